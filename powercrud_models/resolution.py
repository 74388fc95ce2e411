"""From declarations to object keys: one query per path, for a whole batch of objects."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db import OperationalError, connections, transaction
from django.db.models import Model, QuerySet

from powercrud_models.declarations import target_of
from powercrud_models.types import ObjectKey, WorkDeclaration, parents_of

Target = tuple[Model, Sequence[WorkDeclaration]]
"""An object, and the works that are to run on it."""

RowLocks = Literal["wait", "nowait"]


def is_guarded(model: type[Model]) -> bool:
    """Whether this model's ``save()`` looks for locks."""
    return hasattr(model, "_powercrud_guarded")


def keys_of(targets: Sequence[Target], alias: str) -> set[ObjectKey]:
    """The keys of the targets and of all that their works touch, as they are at this moment."""
    return _resolve(targets, alias, row_locks=None)


def locked_keys(targets: Sequence[Target], alias: str, *, wait: bool) -> set[ObjectKey]:
    """The same, with the rows of guarded models locked until the transaction ends.

    A save of a descendant that is still open would otherwise commit under the new lock. The rows
    are locked in the order of their keys. With ``wait=False`` a row that another transaction has
    locked raises RowsBusy, and this transaction is as it was before.
    """
    if wait or not connections[alias].features.has_select_for_update_nowait:
        return _resolve(targets, alias, row_locks="wait")
    try:
        with transaction.atomic(using=alias):  # the refusal of a row spoils a transaction
            return _resolve(targets, alias, row_locks="nowait")
    except OperationalError as error:
        raise RowsBusy from error


class RowsBusy(Exception):
    """Another transaction has locked the row of a descendant."""


def _resolve(targets: Sequence[Target], alias: str, row_locks: RowLocks | None) -> set[ObjectKey]:
    keys = {key for obj, _ in targets for key in ObjectKey.all_of(obj)}
    returned: set[ObjectKey] = set()
    sources: dict[tuple[type[Model], str], list[Any]] = defaultdict(list)
    for obj, works in targets:
        for path in dict.fromkeys(path for work in works for path in work.paths):
            sources[type(obj), path].append(obj.pk)
        for method in dict.fromkeys(method for work in works for method in work.methods):
            returned.update(_returned_by(obj, method, alias))
    for (model, path), pks in sources.items():
        target = target_of(model, path, said_by=model.__name__)
        for rows in _reached(model, path, target, pks, alias):
            keys.update(_keys(_lock(rows, row_locks)))
    if row_locks is not None and connections[alias].features.has_select_for_update:
        guarded = {key for key in returned - keys if is_guarded(key.model_class)}
        lock_rows_of(guarded, alias, nowait=row_locks == "nowait")
    return keys | returned


def _reached(
    model: type[Model], path: str, target: type[Model], pks: list[Any], alias: str
) -> Iterator[QuerySet[Any]]:
    """The objects at the end of the path; several querysets only where the engine forces it."""
    most = _most_parameters(alias) // len(model._meta.pk_fields)
    pk_paths = [f"{path}__{field.name}" for field in target._meta.pk_fields]
    for start in range(0, len(pks), most):
        chunk = model._base_manager.using(alias).filter(pk__in=pks[start : start + most])
        reached = chunk.order_by().values(*pk_paths)
        yield target._base_manager.using(alias).filter(pk__in=reached).order_by("pk")


def _most_parameters(alias: str) -> int:
    """How many values one statement may carry."""
    connection = connections[alias]
    if connection.vendor == "sqlite":  # Django 5.2 believes that it is 999
        from sqlite3 import SQLITE_LIMIT_VARIABLE_NUMBER  # not every Python has SQLite

        connection.ensure_connection()
        return int(connection.connection.getlimit(SQLITE_LIMIT_VARIABLE_NUMBER))
    return connection.features.max_query_params or sys.maxsize


def _lock(rows: QuerySet[Any], row_locks: RowLocks | None) -> QuerySet[Any]:
    if row_locks is not None and is_guarded(rows.model):
        return rows.select_for_update(nowait=row_locks == "nowait")
    return rows


def _keys(rows: QuerySet[Any]) -> Iterator[ObjectKey]:
    """The keys of these rows, and of the rows of their parents."""
    model: type[Model] = rows.model
    parents = parents_of(model)
    for pk, *pks_of_parents in rows.values_list("pk", *(name for _, name in parents)):
        yield ObjectKey.from_pk(model, pk)
        for (parent, _), parent_pk in zip(parents, pks_of_parents, strict=True):
            yield ObjectKey.from_pk(parent, parent_pk)


def lock_rows_of(keys: Collection[ObjectKey], alias: str, *, nowait: bool = False) -> None:
    """Lock the rows of these objects until the transaction ends, in the order of their keys."""
    pks: dict[type[Model], list[Any]] = defaultdict(list)
    for key in sorted(keys):
        pks[key.model_class].append(key.python_pk)
    for model, found in pks.items():
        rows = model._base_manager.using(alias).filter(pk__in=found).order_by("pk")
        list(rows.select_for_update(nowait=nowait).values_list("pk", flat=True))


def _returned_by(obj: Model, method: str, alias: str) -> Iterator[ObjectKey]:
    said_by = f"{type(obj).__name__}.{method} of {obj._meta.verbose_name} {obj.pk}"
    return _flatten(getattr(obj, method)(), said_by, alias)


def _flatten(found: Any, said_by: str, alias: str) -> Iterator[ObjectKey]:
    """The keys in what a method returned: an object, a queryset, (model, pks), or several."""
    match found:
        case None:
            return
        case Model():
            if found.pk is None:
                raise _not_saved(type(found), said_by)
            yield from ObjectKey.all_of(found)
        case QuerySet():
            yield from _keys(_unordered(found.using(alias)))
        case (type() as model, Iterable() as pks) if issubclass(model, Model) and not isinstance(
            pks, str | bytes
        ):
            pks = list(pks)
            yield from (_key_from_pair(model, pk, said_by) for pk in pks)
            if parents_of(model):
                yield from _keys(model._base_manager.using(alias).filter(pk__in=pks))
        case Iterable() if not isinstance(found, str | bytes):
            for each in found:
                yield from _flatten(each, said_by, alias)
        case _:
            raise _not_understood(found, said_by)


def _unordered(rows: QuerySet[Any]) -> QuerySet[Any]:
    if rows.query.is_sliced or rows.query.distinct_fields:
        return rows  # the order decides which rows there are
    return rows.order_by()


def _key_from_pair(model: type[Model], pk: Any, said_by: str) -> ObjectKey:
    if pk is None:
        raise _not_saved(model, said_by)
    try:
        if not isinstance(pk, Model):  # it could pass for the text of a key
            return ObjectKey.from_pk(model, pk)
    except (TypeError, ValueError, ValidationError):
        pass
    raise _not_understood((model, [pk]), said_by)


def _not_saved(model: type[Model], said_by: str) -> Exception:
    return ValueError(
        f"{said_by} returned a {model._meta.verbose_name} that has not been saved, so nobody can "
        "lock it: save it first."
    )


def _not_understood(found: Any, said_by: str) -> Exception:
    return TypeError(
        f"{said_by} returned {found!r}; @descendants methods return objects, querysets, "
        "(model, pks) pairs, or an iterable of these."
    )
