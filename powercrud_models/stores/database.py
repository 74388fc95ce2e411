"""Locks as rows of the project's database: one statement for each call."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import Any

from django.db import OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet
from django.utils.translation import gettext_noop

from powercrud_models.compiled import Bound
from powercrud_models.deadlocks import waited_too_long
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.stores.base import Store, conflict_error
from powercrud_models.types import ObjectKey

TABLE = ObjectLock._meta.db_table
LONGEST_WAIT = 5
"""Seconds to wait for a transaction that is still open and has locked the same object."""
MOST_BYTES = 4_000_000
"""How much JSON one statement carries on MariaDB, whose limit is `max_allowed_packet`."""
STILL_OPEN = gettext_noop("It is locked in a transaction that has not ended yet. Try it again.")

# The keys travel as one parameter. `WHERE true` tells SQLite's parser that the ON after it
# belongs to the upsert. The update changes nothing: it is there to name the other holder, and on
# PostgreSQL to wait for one whose transaction is still open.
UPSERT = f"""
INSERT INTO {TABLE} (model, object_id, task_id)
SELECT wanted.model, wanted.object_id, %s FROM {{wanted}} WHERE true
ORDER BY 1, 2
ON CONFLICT (model, object_id) DO UPDATE SET task_id = {TABLE}.task_id
WHERE {TABLE}.task_id <> excluded.task_id
RETURNING model, object_id, task_id
"""
ACQUIRE = {
    "sqlite": UPSERT,
    # it hands back the conflicts only
    "postgresql": f"WITH acquired AS ({UPSERT}) SELECT * FROM acquired WHERE task_id <> %s",
    "mysql": f"""
        SET STATEMENT innodb_lock_wait_timeout = {LONGEST_WAIT} FOR
        INSERT INTO {TABLE} (model, object_id, task_id)
        SELECT wanted.model, wanted.object_id, %s FROM {{wanted}}
        ORDER BY 1, 2
        ON DUPLICATE KEY UPDATE task_id = {TABLE}.task_id
        RETURNING model, object_id, task_id
    """,
}
# MariaDB would else go through the whole table, or through all that is wanted for each row.
JOINED = f"""
{{wanted}} {{join}} {TABLE} AS held
ON held.model = wanted.model AND held.object_id = wanted.object_id
"""
HOLDERS = f"SELECT held.model, held.object_id, held.task_id FROM {JOINED}"
HOLDER = f"SELECT task_id FROM {TABLE} WHERE model = %s AND object_id = %s"
IS_FREE = f"""
NOT EXISTS (SELECT 1 FROM {TABLE} WHERE model = %s AND object_id = %s AND task_id <> %s)
"""
HELD = f"SELECT model, object_id FROM {TABLE} WHERE task_id = %s"
RELEASE_ALL = f"DELETE FROM {TABLE} WHERE task_id = %s"
RELEASE_AMONG = f"""
DELETE FROM {TABLE}
WHERE (model, object_id) IN (SELECT wanted.model, wanted.object_id FROM {{wanted}})
AND task_id = %s
"""
RELEASE = {
    "sqlite": RELEASE_AMONG,
    "postgresql": RELEASE_AMONG,
    "mysql": f"DELETE held FROM {JOINED} WHERE held.task_id = %s",
}
JOIN = {"sqlite": "JOIN", "postgresql": "JOIN", "mysql": "STRAIGHT_JOIN"}
_TEXT = "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
WANTED = {
    "sqlite": """
        (SELECT json_extract(value, '$[0]') AS model, json_extract(value, '$[1]') AS object_id
        FROM json_each(%s)) AS wanted
    """,
    "postgresql": "unnest(%s::text[], %s::text[]) AS wanted (model, object_id)",
    "mysql": f"""
        JSON_TABLE(%s, '$[*]' COLUMNS (
        model VARCHAR({ObjectLock._meta.get_field("model").max_length}) {_TEXT} PATH '$[0]',
        object_id VARCHAR({ObjectLock._meta.get_field("object_id").max_length}) {_TEXT} PATH '$[1]'
        )) AS wanted
    """,
}


class DatabaseStore(Store):
    """Locks live and die with the rows of their tasks: nothing culls or expires them."""

    def acquire(self, task_key: str, keys: Collection[ObjectKey], alias: str) -> None:
        if not keys:
            return
        connection = connections[alias]
        after = [task_key] if connection.vendor == "postgresql" else []
        try:
            rows = _among(connection, ACQUIRE, keys, [task_key], after)
        except OperationalError as error:
            if not waited_too_long(error):
                raise
            open_ones = _held_by_others(connection, keys, task_key)
            if open_ones:
                raise conflict_error(open_ones, alias, Message(STILL_OPEN)) from error
            self.acquire(task_key, keys, alias)  # it has just ended
            return
        others = {ObjectKey(model, pk): holder for model, pk, holder in rows if holder != task_key}
        if others:
            raise conflict_error(others, alias)

    def release(self, task_key: str, alias: str, keys: Collection[ObjectKey] | None = None) -> None:
        if keys is None:
            with connections[alias].cursor() as cursor:
                cursor.execute(RELEASE_ALL, [task_key])
        elif keys:
            _among(connections[alias], RELEASE, keys, [], [task_key], fetch=False)

    def release_as_statement(self, task_key: str) -> Bound | None:
        return RELEASE_ALL, [task_key]

    def holders(self, keys: Collection[ObjectKey], alias: str) -> dict[ObjectKey, str]:
        if not keys:
            return {}
        if len(keys) == 1:  # each save of a guarded model asks this
            [key] = keys
            with connections[alias].cursor() as cursor:
                cursor.execute(HOLDER, key)
                row = cursor.fetchone()
            return {key: row[0]} if row else {}
        return _holders(connections[alias], keys)

    def free_rows(self, rows: QuerySet[Any], key: ObjectKey, owner: str) -> QuerySet[Any]:
        # as extra() would, on a copy; filter(RawSQL(...)) takes longer than the whole UPDATE
        rows.query.add_extra(None, None, [IS_FREE], [*key, owner], None, None)
        return rows

    def held(self, task_key: str, alias: str) -> set[ObjectKey]:
        with connections[alias].cursor() as cursor:
            cursor.execute(HELD, [task_key])
            return {ObjectKey(*row) for row in cursor.fetchall()}

    def release_strays(self, alias: str) -> int:
        """As everywhere; on MariaDB a DELETE would wait for the tasks that it asks for."""
        if connections[alias].vendor != "mysql":
            return super().release_strays(alias)
        released, locks = 0, ObjectLock.objects.using(alias)
        unfinished = AsyncTask.objects.using(alias).filter(status__in=AsyncTask.UNFINISHED)
        strays = locks.exclude(task_id__in=unfinished.values("pk"))
        for task_key in set(strays.values_list("task_id", flat=True)):
            with transaction.atomic(using=alias):
                task = AsyncTask.objects.using(alias).filter(pk=task_key)
                # somebody may just try it again
                if task.exists() and not _has_ended(task.select_for_update(skip_locked=True)):
                    continue
                with connections[alias].cursor() as cursor:
                    cursor.execute(RELEASE_ALL, [task_key])
                    released += cursor.rowcount
        return released


def _has_ended(locked: QuerySet[AsyncTask]) -> bool:
    return any(task.is_finished for task in locked)


def _holders(connection: BaseDatabaseWrapper, keys: Collection[ObjectKey]) -> dict[ObjectKey, str]:
    rows = _among(connection, dict.fromkeys(WANTED, HOLDERS), keys)
    return {ObjectKey(model, pk): holder for model, pk, holder in rows}


def _held_by_others(
    connection: BaseDatabaseWrapper, keys: Collection[ObjectKey], task_key: str
) -> dict[ObjectKey, str]:
    """Who holds these objects, or will when a transaction ends: on MariaDB another session sees."""
    held = _holders(connection, keys)
    with closing(connection.copy()) as other:
        with other.cursor() as cursor:
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
        held.update(_holders(other, keys))
    return {key: holder for key, holder in held.items() if holder != task_key}


def _among(
    connection: BaseDatabaseWrapper,
    statements: dict[str, str],
    keys: Collection[ObjectKey],
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
    *,
    fetch: bool = True,
) -> list[tuple[Any, ...]]:
    """Run the engine's statement, with the keys in place of ``{wanted}``."""
    vendor, rows = connection.vendor, list[tuple[Any, ...]]()
    sql = statements[vendor].format(wanted=WANTED[vendor], join=JOIN[vendor])
    with connection.cursor() as cursor:
        for part in _parts(vendor, keys):
            cursor.execute(sql, [*before, *part, *after])
            rows += cursor.fetchall() if fetch else []
    return rows


def _parts(vendor: str, keys: Collection[ObjectKey]) -> Iterator[list[Any]]:
    """The keys as parameters; several times only where the engine forces it."""
    if vendor == "postgresql":
        models, pks = zip(*keys, strict=True)
        yield [list(models), list(pks)]
        return
    packed = json.dumps([list(key) for key in keys])
    if vendor == "sqlite" or len(packed) <= MOST_BYTES:
        yield [packed]
        return
    ordered = sorted(keys)  # as each statement does
    middle = len(ordered) // 2
    for half in (ordered[:middle], ordered[middle:]):
        yield from _parts(vendor, half)
