"""An object by its key, as ``_base_manager`` finds it: what each item of each task begins with."""

from __future__ import annotations

from copy import copy
from functools import cache
from typing import Any

from django.db import connections
from django.db.models import Manager, Model
from django.db.models.expressions import RawSQL


def load(model: type[Model], pk: Any, alias: str) -> Model | None:
    """The object, or None when there is none (any more).

    >>> load(Book, 3, "default")
    <Book: Hamlet>
    """
    compiled = _compiled(model, alias) if _is_plain(model) else None
    if compiled is None:
        return model._base_manager.using(alias).filter(pk=pk).first()
    sql, compiler, names = compiled
    connection = connections[alias]
    with connection.cursor() as cursor:
        cursor.execute(sql, [model._meta.pk.get_db_prep_value(pk, connection)])
        found = cursor.fetchall()
    compiler = copy(compiler)
    compiler.connection = connection  # that of this thread
    for row in compiler.results_iter([found]):
        return model.from_db(alias, names, row)
    return None


@cache
def _is_plain(model: type[Model]) -> bool:
    """Whether the query is the same for all keys but for the key itself."""
    key = model._meta.pk
    if model._meta.is_composite_pk or key.is_relation:
        return False
    compares = key.get_lookup("exact")
    is_djangos = compares is not None and compares.__module__.startswith("django.")
    return is_djangos and type(model._base_manager) is Manager


@cache
def _compiled(model: type[Model], alias: str) -> tuple[str, Any, list[str]] | None:
    """The query with one parameter, the compiler that converts its rows, and their fields.

    None when the key is not its only parameter. To build and compile it takes the ORM several times
    as long as to run it.
    """
    key = RawSQL("%s", ["the key"])
    compiler: Any = model._base_manager.filter(pk=key).order_by().query.get_compiler(alias)
    sql, parameters = compiler.as_sql()
    if parameters != ("the key",):
        return None
    compiler.connection = None
    return sql, compiler, [column.target.attname for column, *_ in compiler.select]
