"""The floors: the same statements, as a careful developer would write them by hand.

Nothing is looked up, built or checked here that one of them does not need.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from django.db import connection, transaction
from django.db.models import Model
from django_q.tasks import async_task

from benchmarks.shop.models import Catalogue, GuardedArticle, Page

NOW, IN_A_MINUTE = {
    "sqlite": (
        "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')",
        "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', '+60 seconds')",
    ),
    "postgresql": ("CLOCK_TIMESTAMP()", "CLOCK_TIMESTAMP() + INTERVAL '60 seconds'"),
}[connection.vendor]
NOWAIT = connection.features.has_select_for_update_nowait
"""Whether a locked row is refused at once: an error, which needs a savepoint around it."""

HOLDER = """
SELECT task_id FROM powercrud_models_objectlock WHERE model = %s AND object_id = %s
"""
SAVE = "UPDATE shop_catalogue SET title = %s WHERE id = %s"
PAGES = f"""
SELECT id FROM shop_page WHERE id IN (
    SELECT page.id FROM shop_catalogue AS catalogue
    LEFT OUTER JOIN shop_page AS page ON catalogue.id = page.catalogue_id
    WHERE catalogue.id IN (%s)
) ORDER BY id {"FOR UPDATE NOWAIT" if NOWAIT else ""}
"""
TASK = f"""
INSERT INTO powercrud_models_asynctask (
    key, label, status, user_id, payload_version, fence, attempts, conflicts, recoveries, sends,
    queue_error, error, resend_at, started_at, finished_at
) VALUES (%s, %s, 'pending', NULL, 1, 0, 0, 0, 0, 1, '', '', {IN_A_MINUTE}, NULL, NULL)
RETURNING created_at, resend_at
"""
ITEM = """
INSERT INTO powercrud_models_taskitem (
    task_id, model, object_id, work, status, tries, error, returned, returned_as_text
) VALUES (%s, 'shop.catalogue', %s, 'reprint', 'todo', 0, '', NULL, FALSE)
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
INSERT INTO django_q_ormq (key, payload, lock) VALUES ('benchmark', %s, {NOW}) RETURNING id
"""
PAYLOAD = "a message is about as long as this text " * 14


def guarded_save(article: GuardedArticle) -> None:
    """Look, write, look again."""
    _look(article)
    with transaction.atomic():
        Model.save(article)  # past the mixin
        _look(article)


def _look(article: GuardedArticle) -> None:
    with connection.cursor() as cursor:
        cursor.execute(HOLDER, ["shop.guardedarticle", str(article.pk)])
        assert not cursor.fetchall()


def launch(catalogue: Catalogue) -> None:
    """The developer's own models by the ORM, django-q2 by its function, the rest in SQL."""

    def save(_: Any) -> None:
        Model.save(catalogue)  # past the mixin

    def lock_pages(_: Any) -> list[str]:
        pages = Page._base_manager.filter(catalogue=catalogue).order_by("pk")
        return [
            str(pk) for pk in pages.select_for_update(nowait=NOWAIT).values_list("pk", flat=True)
        ]

    def send(_: Any, key: str) -> None:
        async_task("any.function", key, q_options={"save": False})

    _launch(catalogue, save, lock_pages, send)


def bare_statements(catalogue: Catalogue) -> None:
    """All of it in SQL; not even the message is one that a worker could read."""

    def save(cursor: Any) -> None:
        cursor.execute(SAVE, [catalogue.title, catalogue.pk])

    def lock_pages(cursor: Any) -> list[str]:
        cursor.execute(PAGES, [catalogue.pk])
        return [str(pk) for (pk,) in cursor.fetchall()]

    def send(cursor: Any, _: str) -> None:
        cursor.execute(MESSAGE, [PAYLOAD])
        cursor.fetchall()

    _launch(catalogue, save, lock_pages, send)


def _launch(
    catalogue: Catalogue,
    save: Callable[[Any], None],
    lock_pages: Callable[[Any], list[str]],
    send: Callable[[Any, str], None],
) -> None:
    key, pk = uuid.uuid4().hex, str(catalogue.pk)
    with connection.cursor() as cursor:
        cursor.execute(HOLDER, ["shop.catalogue", pk])
        assert not cursor.fetchall()
        with transaction.atomic():
            save(cursor)
            with transaction.atomic() if NOWAIT else nullcontext():
                pages = lock_pages(cursor)
            cursor.execute(TASK, [key, f"reprint catalogue {pk}"])
            cursor.fetchall()
            cursor.execute(ITEM, [key, pk])
            cursor.fetchall()
            _lock(cursor, key, pk, pages)
            send(cursor, key)


def _lock(cursor: Any, key: str, pk: str, pages: list[str]) -> None:
    if connection.vendor == "sqlite":
        wanted = [["shop.catalogue", pk], *(["shop.page", page] for page in pages)]
        cursor.execute(LOCKS_SQLITE, [key, json.dumps(wanted)])
    else:
        models = ["shop.catalogue", *["shop.page"] * len(pages)]
        cursor.execute(LOCKS_POSTGRESQL, [key, models, [pk, *pages], key])
    assert all(holder == key for _, _, holder in cursor.fetchall())
