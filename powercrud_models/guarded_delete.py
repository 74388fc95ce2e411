"""The guard of a delete, which takes more than its objects: all that Django's collector finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models import Model, QuerySet
from django.db.models.deletion import Collector

from powercrud_models import guard
from powercrud_models.lifecycle import has_one_writer
from powercrud_models.resolution import lock_rows_of
from powercrud_models.types import ObjectKey, Said


@contextmanager
def deleting(
    taken: Callable[[], set[ObjectKey]], alias: str, said_by: Said | str
) -> Iterator[None]:
    """Look for locks on all that the delete in this block takes, and lock its rows.

    ``taken`` tells what that is, at the moment when it is called.

    Raises ConflictError when another task holds any of it.
    """
    with guard.writing(taken(), alias, said_by):
        keys = _locked(taken, alias)
        guard.look(keys, alias)
        yield
        guard.look(keys, alias)


def _locked(taken: Callable[[], set[ObjectKey]], alias: str) -> set[ObjectKey]:
    """The keys of all that is taken, with their rows locked.

    Nothing new can refer to a row that is locked: what has come in the meantime is locked, too,
    until nothing more comes.
    """
    if has_one_writer(alias):
        return taken()
    locked: set[ObjectKey] = set()
    while new := taken() - locked:
        lock_rows_of(new, alias)
        locked |= new
    return locked


def taken_with(obj: Model, alias: str, *, keep_parents: bool) -> set[ObjectKey]:
    """The keys of all that deleting the object would delete, or set to NULL or a default."""
    collector = Collector(using=alias, origin=obj)
    collector.collect([obj], keep_parents=keep_parents)
    return _collected(collector)


def taken_with_all(rows: QuerySet[Any], alias: str) -> set[ObjectKey]:
    """The same, of all these rows."""
    found = rows.using(alias).select_related(None).order_by()  # as Django's delete() asks for them
    found.query.select_for_update = False
    collector = Collector(using=alias, origin=rows)
    collector.collect(found)
    return _collected(collector)


def _collected(collector: Collector) -> set[ObjectKey]:
    instances = [each for instances in collector.data.values() for each in instances]
    keys = {key for each in instances for key in ObjectKey.all_of(each)}
    for rows in collector.fast_deletes:
        pks = rows.values_list("pk", flat=True)
        keys.update(ObjectKey.from_pk(rows.model, pk) for pk in pks)
    updates: Any = collector.field_updates  # to batches of objects, whatever the stubs say
    keys.update(
        ObjectKey.of(each) for batches in updates.values() for rows in batches for each in rows
    )
    return keys
