"""The guard: a write to an object that another task holds is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from django.db import connections, transaction
from django.db.models import Model
from django.db.models.deletion import Collector
from django.db.transaction import TransactionManagementError

from powercrud_models import lifecycle
from powercrud_models.conf import get_conf
from powercrud_models.context import current_run
from powercrud_models.exceptions import ConflictError
from powercrud_models.launches import open_launch
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey


def watched(obj: Model, alias: str) -> set[ObjectKey]:
    """The keys that a write of this object has to look for: none with the guard off."""
    if obj.pk is None or not get_conf().GUARD_WRITES or alias != lifecycle.tasks_alias():
        return set()
    return {ObjectKey.of(obj)}


@contextmanager
def writing(keys: Collection[ObjectKey], alias: str, said_by: str) -> Iterator[None]:
    """Look for locks, then open the transaction of the write.

    The first look refuses at once what would otherwise wait for the holder's transaction and
    then overwrite its result. Call ``look`` again after the write: a launch may have come in
    between. Guard and launch exclude each other because both write the row first.
    """
    if connections[alias].needs_rollback:
        raise TransactionManagementError(
            f"{said_by}: an error has broken the transaction that is open, so nothing can be "
            "written before its atomic() block has ended."
        )
    try:
        look(keys, alias)
        with transaction.atomic(using=alias), _fenced():
            yield
    except ConflictError:
        if not connections[alias].in_atomic_block:
            lifecycle.sweep(thorough=False)  # the holder may be dead
        raise


@contextmanager
def _fenced() -> Iterator[None]:
    """Hold the current task's fence in this transaction, if the transaction does not hold it."""
    run = current_run()
    if run is None or run.claim is None or run.fenced:
        yield
        return
    lifecycle.hold_fence(run.claim)
    run.fenced = True
    try:
        yield
    finally:
        run.fenced = False


def look(keys: Collection[ObjectKey], alias: str) -> None:
    """Raise ConflictError when one of the objects is held, but by whoever runs or launches here."""
    if not keys:
        return
    run, launch = current_run(), open_launch(alias)
    owners = {run.owner if run else None, launch.task_key if launch else None}
    get_store().refuse_held_by_others(owners, keys, alias)


def taken_by_delete(obj: Model, alias: str, keep_parents: bool) -> set[ObjectKey]:
    """The keys of all that deleting the object would delete, or set to NULL or a default."""
    collector = Collector(using=alias, origin=obj)
    collector.collect([obj], keep_parents=keep_parents)
    keys = {ObjectKey.of(each) for instances in collector.data.values() for each in instances}
    for rows in collector.fast_deletes:
        pks = rows.values_list("pk", flat=True)
        keys.update(ObjectKey.from_pk(rows.model, pk) for pk in pks)
    for batches in collector.field_updates.values():
        keys.update(ObjectKey.of(each) for batch in batches for each in batch)
    return keys
