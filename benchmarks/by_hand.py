"""The floor for a launch: the statements that it sends, as a careful developer would write them.

Nothing is looked up, built or checked here that a statement does not need.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.db import connection, transaction

from benchmarks.shop.models import Catalogue

IN_A_MINUTE = {
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', '+60 seconds')",
    "postgresql": "CLOCK_TIMESTAMP() + INTERVAL '60 seconds'",
}[connection.vendor]
NOW = {
    "sqlite": "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')",
    "postgresql": "CLOCK_TIMESTAMP()",
}[connection.vendor]

HOLDER = """
SELECT model, object_id, task_id FROM powercrud_models_objectlock
WHERE model = 'shop.catalogue' AND object_id = %s
"""
SAVE = "UPDATE shop_catalogue SET title = %s WHERE id = %s"
PAGES = """
SELECT id FROM shop_page WHERE id IN (
    SELECT page.id FROM shop_catalogue AS catalogue
    LEFT OUTER JOIN shop_page AS page ON catalogue.id = page.catalogue_id
    WHERE catalogue.id IN (%s)
) ORDER BY id
"""
TASK = f"""
INSERT INTO powercrud_models_asynctask (
    key, label, status, user_id, payload_version, fence, attempts, recoveries, sends,
    queue_error, error, resend_at, started_at, finished_at
) VALUES (%s, %s, 'pending', NULL, 1, 0, 0, 0, 1, '', '', {IN_A_MINUTE}, NULL, NULL)
RETURNING created_at, resend_at
"""
ITEM = """
INSERT INTO powercrud_models_taskitem (
    task_id, model, object_id, work, status, error, returned, returned_as_text
) VALUES (%s, 'shop.catalogue', %s, 'reprint', 'todo', '', NULL, FALSE)
RETURNING id
"""
LOCKS = """
INSERT INTO powercrud_models_objectlock (model, object_id, task_id)
SELECT wanted.model, wanted.object_id, %s FROM {wanted} WHERE true
ORDER BY 1, 2
ON CONFLICT (model, object_id) DO UPDATE SET task_id = powercrud_models_objectlock.task_id
WHERE powercrud_models_objectlock.task_id <> excluded.task_id
RETURNING model, object_id, task_id
"""
LOCKS_SQLITE = LOCKS.format(
    wanted="""
    (SELECT value ->> 0 AS model, value ->> 1 AS object_id FROM json_each(%s)) AS wanted
    """
)
LOCKS_POSTGRESQL = f"""
WITH acquired AS (
    {LOCKS.format(wanted="unnest(%s::text[], %s::text[]) AS wanted (model, object_id)")}
) SELECT * FROM acquired WHERE task_id <> %s
"""
MESSAGE = f"""
INSERT INTO django_q_ormq (key, payload, lock) VALUES ('benchmark', %s, {NOW})
RETURNING id
"""
PAYLOAD = "a message is about this long " * 20


def launch(catalogue: Catalogue) -> None:
    """What ``catalogue.save()`` sends to the database."""
    key, pk = uuid.uuid4().hex, str(catalogue.pk)
    with connection.cursor() as cursor:
        cursor.execute(HOLDER, [pk])
        assert not cursor.fetchall()
        with transaction.atomic():
            cursor.execute(SAVE, [catalogue.title, catalogue.pk])
            pages = _lock_pages(cursor, catalogue)
            cursor.execute(TASK, [key, f"reprint catalogue {pk}"])
            cursor.fetchall()
            cursor.execute(ITEM, [key, pk])
            cursor.fetchall()
            assert not _lock(cursor, key, pk, pages)
            cursor.execute(MESSAGE, [PAYLOAD])
            cursor.fetchall()


def _lock_pages(cursor: Any, catalogue: Catalogue) -> list[str]:
    if connection.vendor == "sqlite":
        cursor.execute(PAGES, [catalogue.pk])
    else:
        with transaction.atomic():
            cursor.execute(f"{PAGES} FOR UPDATE NOWAIT", [catalogue.pk])
    return [str(pk) for (pk,) in cursor.fetchall()]


def _lock(cursor: Any, key: str, pk: str, pages: list[str]) -> bool:
    """Whether another task holds one of them."""
    if connection.vendor == "sqlite":
        wanted = [["shop.catalogue", pk], *(["shop.page", page] for page in pages)]
        cursor.execute(LOCKS_SQLITE, [key, json.dumps(wanted)])
    else:
        models = ["shop.catalogue", *["shop.page"] * len(pages)]
        cursor.execute(LOCKS_POSTGRESQL, [key, models, [pk, *pages], key])
    return any(holder != key for _, _, holder in cursor.fetchall())
