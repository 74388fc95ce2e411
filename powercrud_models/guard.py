"""The guard: a write to an object that another task holds is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import connections, transaction
from django.db.models import Model
from django.db.models.deletion import Collector
from django.db.transaction import TransactionManagementError

from powercrud_models import lifecycle
from powercrud_models.conf import get_conf
from powercrud_models.context import Run, current_run
from powercrud_models.exceptions import ConflictError
from powercrud_models.launches import open_launch
from powercrud_models.resolution import lock_rows_of
from powercrud_models.stores import get_store, refuse_others
from powercrud_models.types import ObjectKey, Said

IN_ERROR = 3
"""What PostgreSQL's drivers call the state of a transaction that can only be rolled back."""


def watched(obj: Model, alias: str) -> set[ObjectKey]:
    """The keys that a write of this object has to look for: none with the guard off."""
    if obj.pk is None or not get_conf().GUARD_WRITES or alias != lifecycle.tasks_alias():
        return set()
    return ObjectKey.all_of(obj)


def refuse_broken_transaction(alias: str, said_by: Said) -> None:
    """Raise TransactionManagementError where Django or the database would, but say of what."""
    connection = connections[alias]
    broken = connection.needs_rollback
    if connection.in_atomic_block and connection.vendor == "postgresql" and not broken:
        # an error that was caught too early: the driver knows of it, Django may not
        broken = connection.connection.info.transaction_status == IN_ERROR
    if broken:
        raise TransactionManagementError(
            f"{said_by}: an error has broken the transaction that is open, so nothing can be "
            "written before its atomic() block has ended."
        )


@contextmanager
def writing(keys: Collection[ObjectKey], alias: str, said_by: Said) -> Iterator[None]:
    """Look for locks, then open the transaction of the write.

    The first look refuses at once what would otherwise wait for the holder's transaction and
    then overwrite its result. Call ``look`` again after the write: a launch may have come in
    between. Guard and launch exclude each other because both write the row first.
    """
    refuse_broken_transaction(alias, said_by)
    try:
        look(keys, alias)
        with transaction.atomic(using=alias), _fenced(alias):
            yield
    except ConflictError:
        sweep_after_conflict(alias)
        raise


def sweep_after_conflict(alias: str) -> None:
    """Whoever runs into a lock sees to it that a dead holder does not keep it."""
    if not connections[alias].in_atomic_block:
        lifecycle.sweep(thorough=False)


def _fenced(alias: str) -> AbstractContextManager[None]:
    """Hold the current task's fence in this transaction, if the transaction does not hold it."""
    run = current_run()
    if run is None or run.claim is None or run.fenced:
        return nullcontext()
    if alias != run.claim.alias:  # this transaction cannot hold it, but can begin under it
        with transaction.atomic(using=run.claim.alias):
            lifecycle.hold_fence(run.claim)
        return nullcontext()
    return _holding_fence(run, run.claim)


@contextmanager
def _holding_fence(run: Run, claim: lifecycle.Claim) -> Iterator[None]:
    lifecycle.hold_fence(claim)
    run.fenced = True
    try:
        yield
    finally:
        run.fenced = False


def look(keys: Collection[ObjectKey], alias: str) -> None:
    """Raise ConflictError when one of the objects is held, but by whoever runs or launches here."""
    held = get_store().holders(keys, alias)
    if held:
        run, launch = current_run(), open_launch(alias)
        owners = {run.owner if run else None, launch.task_key if launch else None}
        refuse_others(held, owners, alias)


def lock_row(obj: Model, alias: str) -> bool:
    """Lock the object's row until the transaction ends; False when there is none."""
    row = type(obj)._base_manager.using(alias).filter(pk=obj.pk)
    return row.select_for_update().values_list("pk", flat=True).first() is not None


def locked_for_delete(obj: Model, alias: str, keep_parents: bool) -> set[ObjectKey]:
    """The keys of all that deleting the object would delete, with their rows locked.

    Nothing new can refer to a row that is locked: what has come in the meantime is locked, too,
    until nothing more comes.
    """
    if lifecycle.has_one_writer(alias):
        return taken_by_delete(obj, alias, keep_parents)
    locked: set[ObjectKey] = set()
    while new := taken_by_delete(obj, alias, keep_parents) - locked:
        lock_rows_of(new, alias)
        locked |= new
    return locked


def taken_by_delete(obj: Model, alias: str, keep_parents: bool) -> set[ObjectKey]:
    """The keys of all that deleting the object would delete, or set to NULL or a default."""
    collector = Collector(using=alias, origin=obj)
    collector.collect([obj], keep_parents=keep_parents)
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
