"""Locks as rows of the project's database: one statement for each call."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from django.db import connections
from django.db.models import QuerySet

from powercrud_models.compiled import Bound
from powercrud_models.models import ObjectLock
from powercrud_models.stores.base import Store, conflict_error
from powercrud_models.types import ObjectKey

TABLE = f'"{ObjectLock._meta.db_table}"'

# The keys travel as one parameter. `WHERE true` tells SQLite's parser that the ON after it
# belongs to the upsert. The update changes nothing: it is there to name the other holder, and on
# PostgreSQL to wait for one whose transaction is still open.
ACQUIRE = f"""
INSERT INTO {TABLE} (model, object_id, task_id)
SELECT wanted.model, wanted.object_id, %s FROM {{wanted}} WHERE true
ORDER BY 1, 2
ON CONFLICT (model, object_id) DO UPDATE SET task_id = {TABLE}.task_id
WHERE {TABLE}.task_id <> excluded.task_id
RETURNING model, object_id, task_id
"""
HOLDERS = f"""
SELECT held.model, held.object_id, held.task_id FROM {TABLE} AS held
JOIN {{wanted}} ON held.model = wanted.model AND held.object_id = wanted.object_id
"""
HOLDER = f"SELECT task_id FROM {TABLE} WHERE model = %s AND object_id = %s"
IS_FREE = f"""
NOT EXISTS (SELECT 1 FROM {TABLE} WHERE model = %s AND object_id = %s AND task_id <> %s)
"""
HELD = f"SELECT model, object_id FROM {TABLE} WHERE task_id = %s"
RELEASE_ALL = f"DELETE FROM {TABLE} WHERE task_id = %s"
RELEASE = f"""
DELETE FROM {TABLE} WHERE task_id = %s
AND (model, object_id) IN (SELECT wanted.model, wanted.object_id FROM {{wanted}})
"""
WANTED = {
    "sqlite": """
        (SELECT json_extract(value, '$[0]') AS model, json_extract(value, '$[1]') AS object_id
        FROM json_each(%s)) AS wanted
    """,
    "postgresql": "unnest(%s::text[], %s::text[]) AS wanted (model, object_id)",
}


class DatabaseStore(Store):
    """Locks live and die with the rows of their tasks: nothing culls or expires them."""

    def acquire(self, task_key: str, keys: Collection[ObjectKey], alias: str) -> None:
        if not keys:
            return
        statement = ACQUIRE
        if connections[alias].vendor == "postgresql":  # hand back the conflicts only
            statement = f"WITH acquired AS ({ACQUIRE}) SELECT * FROM acquired WHERE task_id <> %s"
            rows = self._run(statement, alias, [task_key], keys, [task_key])
        else:
            rows = self._run(statement, alias, [task_key], keys)
        others = {ObjectKey(model, pk): holder for model, pk, holder in rows if holder != task_key}
        if others:
            raise conflict_error(others, alias)

    def release(self, task_key: str, alias: str, keys: Collection[ObjectKey] | None = None) -> None:
        if keys is None:
            self._run(RELEASE_ALL, alias, [task_key], fetch=False)
        elif keys:
            self._run(RELEASE, alias, [task_key], keys, fetch=False)

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
        rows = self._run(HOLDERS, alias, [], keys)
        return {ObjectKey(model, pk): holder for model, pk, holder in rows}

    def free_rows(self, rows: QuerySet[Any], key: ObjectKey, owner: str) -> QuerySet[Any]:
        # as extra() would, on a copy; filter(RawSQL(...)) takes longer than the whole UPDATE
        rows.query.add_extra(None, None, [IS_FREE], [*key, owner], None, None)
        return rows

    def held(self, task_key: str, alias: str) -> set[ObjectKey]:
        return {ObjectKey(*row) for row in self._run(HELD, alias, [task_key])}

    def _run(
        self,
        statement: str,
        alias: str,
        before: list[Any],
        keys: Collection[ObjectKey] = (),
        after: list[Any] | None = None,
        *,
        fetch: bool = True,
    ) -> list[tuple[Any, ...]]:
        """Run one statement, with the keys in place of ``{wanted}``."""
        connection = connections[alias]
        parameters = [*before]
        if keys:
            statement = statement.format(wanted=WANTED[connection.vendor])
            if connection.vendor == "postgresql":
                models, pks = zip(*keys, strict=True)
                parameters += [list(models), list(pks)]
            else:
                parameters.append(json.dumps([list(key) for key in keys]))
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters + (after or []))
            return cursor.fetchall() if fetch else []
