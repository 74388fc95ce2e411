"""From declarations to object keys: one query per path, for a whole batch of objects."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Literal

from django.core.exceptions import ValidationError
from django.db import OperationalError, connections, transaction
from django.db.models import Model, QuerySet
from django.db.models.expressions import RawSQL

from powercrud_models.contradictions import target_of
from powercrud_models.deadlocks import is_deadlock
from powercrud_models.types import (
    ObjectKey,
    RelationPath,
    WorkDeclaration,
    model_label,
    parents_of,
)

Target = tuple[Model, Sequence[WorkDeclaration]]
"""An object, and the works that are to run on it."""

RowLocks = Literal["wait", "nowait"]


def is_guarded(model: type[Model]) -> bool:
    """Whether this model's ``save()``, or a queryset of one of its managers, looks for locks."""
    classes = [getattr(each, "_queryset_class", None) for each in model._meta.managers]
    return any(hasattr(each, "_powercrud_guarded") for each in (model, *classes))


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
        if is_deadlock(error):
            raise
        raise RowsBusy from error


def lock_guarded_rows(keys: Collection[ObjectKey], alias: str, *, nowait: bool = False) -> None:
    """Lock the rows of those objects whose models are guarded, as ``lock_rows_of`` does."""
    if connections[alias].features.has_select_for_update:
        guarded = {key for key in keys if is_guarded(key.model_class)}
        lock_rows_of(guarded, alias, nowait=nowait)


class RowsBusy(Exception):
    """Another transaction has locked the row of an object that is to be locked."""


def _resolve(targets: Sequence[Target], alias: str, row_locks: RowLocks | None) -> set[ObjectKey]:
    keys = {key for obj, _ in targets for key in ObjectKey.all_of(obj)}
    returned: set[ObjectKey] = set()
    paths: dict[tuple[type[Model], RelationPath], list[Any]] = defaultdict(list)
    batches: dict[tuple[type[Model], str], list[Any]] = defaultdict(list)
    for obj, works in targets:
        for path in dict.fromkeys(path for work in works for path in work.paths):
            paths[type(obj), path].append(obj.pk)
        for method in dict.fromkeys(method for work in works for method in work.batch_methods):
            batches[type(obj), method].append(obj.pk)
        for method in dict.fromkeys(method for work in works for method in work.methods):
            said_by = f"{type(obj).__name__}.{method} of {obj._meta.verbose_name} {obj.pk} returned"
            returned.update(keys_in(getattr(obj, method)(), said_by, alias))
    for (model, path), pks in paths.items():
        keys.update(_along(model, path, pks, alias, row_locks))
    for (model, method), pks in batches.items():
        for batch in _batches(model, pks, alias):
            returned.update(
                keys_in(getattr(model, method)(batch), f"{model.__name__}.{method} returned", alias)
            )
    if row_locks is not None:
        lock_guarded_rows(returned - keys, alias, nowait=row_locks == "nowait")
    return keys | returned


def _along(
    model: type[Model],
    relation: RelationPath,
    pks: list[Any],
    alias: str,
    row_locks: RowLocks | None,
) -> set[ObjectKey]:
    """The keys at the end of the path; of a recursive one on every level, one query for each."""
    target = target_of(model, relation.path, said_by=model.__name__)
    keys: set[ObjectKey] = set()
    visited: set[Any] = set()  # without `pks`: a child's key need not be its parent's
    while pks:
        reached: set[ObjectKey] = set()
        for rows in _reached(model, relation.path, target, pks, alias):
            reached.update(_keys(_lock(rows, row_locks)))
        keys |= reached
        if not relation.recursive:
            break
        found = {key.python_pk for key in reached if key.model == model_label(target)}
        model, pks = target, sorted(found - visited)
        visited |= found
    return keys


def _reached(
    model: type[Model], path: str, target: type[Model], pks: list[Any], alias: str
) -> Iterator[QuerySet[Any]]:
    """The objects at the end of the path; several querysets only where the engine forces it."""
    pk_paths = [f"{path}__{field.name}" for field in target._meta.pk_fields]
    for batch in _batches(model, pks, alias):
        reached = batch.order_by().values(*pk_paths)
        yield target._base_manager.using(alias).filter(pk__in=reached).order_by("pk")


def _batches(model: type[Model], pks: list[Any], alias: str) -> Iterator[QuerySet[Any]]:
    """These objects; several querysets only where the engine forces it."""
    most = _most_parameters(alias) // len(model._meta.pk_fields)
    for start in range(0, len(pks), most):
        yield model._base_manager.using(alias).filter(pk__in=pks[start : start + most])


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


def lock_rows_of(
    keys: Collection[ObjectKey], alias: str, *, nowait: bool = False, no_key: bool = False
) -> None:
    """Lock the rows of these objects until the transaction ends, in the order of their keys.

    ``no_key``: not against new rows that refer to them, where the database can tell, as an UPDATE.
    """
    no_key = no_key and connections[alias].features.has_select_for_no_key_update
    pks: dict[type[Model], list[Any]] = defaultdict(list)
    for key in sorted(keys):
        pks[key.model_class].append(key.python_pk)
    for model, found in pks.items():
        rows = model._base_manager.using(alias).filter(pk__in=among(model, found, alias))
        locked = rows.order_by("pk").select_for_update(nowait=nowait, no_key=no_key)
        list(locked.values_list("pk", flat=True))


def among(model: type[Model], pks: Sequence[Any], alias: str) -> Any:
    """What to give to ``pk__in``: the keys as one parameter, where the database takes an array."""
    connection, pk = connections[alias], model._meta.pk
    if connection.vendor != "postgresql" or model._meta.is_composite_pk:
        return pks
    values = [pk.get_db_prep_value(each, connection) for each in pks]
    return RawSQL(f"SELECT unnest(%s::{pk.rel_db_type(connection)}[])", [values])


def keys_in(found: Any, said_by: str, alias: str) -> Iterator[ObjectKey]:
    """The keys in an object, a queryset, (model, pks), or an iterable of these; None has none.

    ``said_by`` is how an error message begins: who returned it, or was given it.

    Raises ValueError for an object without a key, and TypeError for anything else.
    """
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
                yield from keys_in(each, said_by, alias)
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
        f"{said_by} a {model._meta.verbose_name} that has not been saved, so nobody can "
        "lock it: save it first."
    )


def _not_understood(found: Any, said_by: str) -> Exception:
    return TypeError(
        f"{said_by} {found!r}; what can be locked are objects, querysets, (model, pks) pairs, or "
        "an iterable of these."
    )
