"""Statements of Django's ORM that are compiled once and run often, each time with other values.

To build and compile a small query takes the ORM several times as long as the database takes to run
it. A task goes through a handful of them, always the same: these are kept as SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Model, QuerySet
from django.db.models.sql import InsertQuery, UpdateQuery

from powercrud_models.sessions import uses_psycopg3


class Change(NamedTuple):
    """An UPDATE of these rows."""

    rows: QuerySet[Any]
    values: Mapping[str, Any]
    returning: tuple[str, ...] = ()
    """Columns to return, where the database can."""


Bound = tuple[str, list[Any]]
"""A statement and its parameters."""
Built = QuerySet[Any, Any] | Change | Model
"""A SELECT, an UPDATE, or the INSERT of this instance."""


class Compiled:
    """One statement. ``kinds`` are the types of what changes from run to run: str or int.

    ``build`` gets the alias, what else the statement is compiled for anew, and a stand-in for each
    of these. A SELECT returns what the driver returns: keep to text and whole numbers.

    >>> NAME = Compiled(lambda alias, pk: Book.objects.filter(pk=pk).values_list("name"), pk=int)
    >>> NAME.select("default", pk=3)
    [('Hamlet',)]
    """

    def __init__(self, build: Callable[..., Built], **kinds: type[str] | type[int]) -> None:
        self._build = build
        self._stand_ins: dict[str, Any] = {
            name: f"\0stands for {name}" if kind is str else 1_913_000_000 + number
            for number, (name, kind) in enumerate(kinds.items())
        }
        self._sql: dict[tuple[Any, ...], tuple[str, list[tuple[str | None, Any]]]] = {}

    def select(self, alias: str, *anew: Any, **values: Any) -> list[tuple[Any, ...]]:
        """The rows; ``anew`` is handed to ``build``, and compiled for once for each value."""
        with connections[alias].cursor() as cursor:
            cursor.execute(*self._statement(alias, anew, values))
            return list(cursor.fetchall())

    def change(self, alias: str, *anew: Any, **values: Any) -> int:
        """How many rows an UPDATE or an INSERT has written."""
        with connections[alias].cursor() as cursor:
            cursor.execute(*self._statement(alias, anew, values))
            return int(cursor.rowcount)

    def bind(self, alias: str, *anew: Any, **values: Any) -> Bound:
        """The statement and its parameters, for ``together``."""
        return self._statement(alias, anew, values)

    def _statement(
        self, alias: str, anew: tuple[Any, ...], values: Mapping[str, Any]
    ) -> tuple[str, list[Any]]:
        known = self._sql.get((alias, anew))
        if known is None:
            known = self._sql[alias, anew] = self._compile(alias, anew)
        sql, slots = known
        return sql, [constant if name is None else values[name] for name, constant in slots]

    def _compile(
        self, alias: str, anew: tuple[Any, ...]
    ) -> tuple[str, list[tuple[str | None, Any]]]:
        sql, parameters = _as_sql(self._build(alias, *anew, **self._stand_ins), alias)
        names = {stand_in: name for name, stand_in in self._stand_ins.items()}
        slots = [
            (names.get(value), value) if isinstance(value, str | int) else (None, value)
            for value in parameters
        ]
        assert {name for name, _ in slots if name} == set(names.values()), f"lost a value: {sql}"
        return sql, slots


def together(alias: str, *bound: Bound) -> list[Any]:
    """Run statements one after the other, on PostgreSQL in one round trip.

    Returns the rows of each that has some to return, and of each other how many it has written.
    Call it in a transaction.
    """
    connection = connections[alias]
    bound_by_server = connection.settings_dict["OPTIONS"].get("server_side_binding")
    is_one_trip = uses_psycopg3(connection) and not bound_by_server
    results = []
    with connection.cursor() as cursor:
        if is_one_trip:
            statements, parameters = zip(*bound, strict=True)
            cursor.execute("; ".join(statements), list(chain.from_iterable(parameters)))
        for number, statement in enumerate(bound):
            if not is_one_trip:
                cursor.execute(*statement)
            elif number:
                cursor.nextset()
            rows = list(cursor.fetchall()) if cursor.description else None
            results.append(cursor.rowcount if rows is None else rows)
    return results


def _as_sql(built: Built, alias: str) -> Any:
    """The statement and its parameters."""
    if isinstance(built, Model):
        fields = [field for field in built._meta.concrete_fields if not field.generated]
        insert = InsertQuery(type(built))
        insert.insert_values(fields, [built])
        [statement] = insert.get_compiler(alias).as_sql()
        return statement
    if isinstance(built, Change):
        update: Any = built.rows.query.chain(UpdateQuery)
        update.add_update_values(built.values)
        sql, parameters = update.get_compiler(alias).as_sql()
        quote = connections[alias].ops.quote_name
        columns = ", ".join(quote(column) for column in built.returning)
        return (f"{sql} RETURNING {columns}" if columns else sql), parameters
    return built.query.get_compiler(alias).as_sql()
