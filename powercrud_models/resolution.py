"""From declarations to object keys: one query per path, for a whole batch of objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from django.db import OperationalError, connections, transaction
from django.db.models import Model, QuerySet

from powercrud_models.declarations import target_of
from powercrud_models.types import ObjectKey, WorkDeclaration, model_label

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
    keys = {ObjectKey.of(obj) for obj, _ in targets}
    sources: dict[tuple[type[Model], str], list[Any]] = defaultdict(list)
    for obj, works in targets:
        for path in dict.fromkeys(path for work in works for path in work.paths):
            sources[type(obj), path].append(obj.pk)
        for method in dict.fromkeys(method for work in works for method in work.methods):
            keys.update(_returned_by(obj, method, alias))
    for (model, path), pks in sources.items():
        target = target_of(model, path, said_by=model.__name__)
        label = model_label(target)
        keys.update(
            ObjectKey(label, str(pk))
            for rows in _reached(model, path, target, pks, alias)
            for pk in _lock(rows, row_locks)
        )
    return keys


def _reached(
    model: type[Model], path: str, target: type[Model], pks: list[Any], alias: str
) -> Iterator[QuerySet[Any]]:
    """The objects at the end of the path; several querysets only where the engine forces it."""
    most = connections[alias].features.max_query_params or len(pks)
    for start in range(0, len(pks), most):
        chunk = model._base_manager.using(alias).filter(pk__in=pks[start : start + most])
        reached = chunk.order_by().values(f"{path}__pk")
        yield target._base_manager.using(alias).filter(pk__in=reached).order_by("pk")


def _lock(rows: QuerySet[Any], row_locks: RowLocks | None) -> Iterable[Any]:
    if row_locks is not None and is_guarded(rows.model):
        rows = rows.select_for_update(nowait=row_locks == "nowait")
    return rows.values_list("pk", flat=True)


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
                raise ValueError(
                    f"{said_by} returned a {found._meta.verbose_name} that has not been saved, so "
                    "nobody can lock it: save it first."
                )
            yield ObjectKey.of(found)
        case QuerySet():
            label = model_label(found.model)
            for pk in found.using(alias).order_by().values_list("pk", flat=True):
                yield ObjectKey(label, str(pk))
        case (type() as model, pks) if issubclass(model, Model):
            for pk in pks:
                yield ObjectKey(model_label(model), str(pk))
        case Iterable() if not isinstance(found, str | bytes):
            for each in found:
                yield from _flatten(each, said_by, alias)
        case _:
            raise TypeError(
                f"{said_by} returned {found!r}; @descendants methods return objects, querysets, "
                "(model, pks) pairs, or an iterable of these."
            )
