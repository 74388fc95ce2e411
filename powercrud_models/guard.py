"""The guard: a write to an object that another task holds is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from django.db import connections, transaction
from django.db.models import Model
from django.db.transaction import TransactionManagementError
from django.utils.translation import gettext_noop

from powercrud_models import lifecycle
from powercrud_models.conf import get_conf
from powercrud_models.context import Fence, current_run, fence_of, fenced, is_running_here
from powercrud_models.exceptions import ConflictError
from powercrud_models.launches import open_launch
from powercrud_models.messages import Message
from powercrud_models.resolution import lock_rows_of
from powercrud_models.stores import get_store, refuse_others
from powercrud_models.types import ObjectKey, Said

LOST_THREAD = gettext_noop(
    "that task runs in this process: a thread that work starts is part of the task only when it "
    "is given the context, as in Thread(target=copy_context().run, args=(function,))"
)
IN_ERROR = 3
"""What PostgreSQL's drivers call the state of a transaction that can only be rolled back."""


def watched(obj: Model, alias: str) -> set[ObjectKey]:
    """The keys that a write of this object has to look for: none with the guard off."""
    if obj.pk is None or not is_on(alias):
        return set()
    return ObjectKey.all_of(obj)


def is_on(alias: str) -> bool:
    """Whether writes to this database look for locks: on another one nobody can hold anything."""
    return get_conf().GUARD_WRITES and alias == lifecycle.tasks_alias()


def refuse_broken_transaction(alias: str, said_by: Said | str) -> None:
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
def writing(keys: Collection[ObjectKey], alias: str, said_by: Said | str) -> Iterator[None]:
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
        sweep_when_committed(alias)
        raise


@contextmanager
def writing_rows(keys: Collection[ObjectKey], alias: str, said_by: Said | str) -> Iterator[None]:
    """The same for an update of rows that are there: they are locked, and looked at, before it.

    No launch can come in between any more: it would have to lock one of these rows.
    """
    with writing(keys, alias, said_by):
        if not lifecycle.has_one_writer(alias):
            lock_rows_of(keys, alias, no_key=True)
        look(keys, alias)
        yield


def sweep_when_committed(alias: str) -> None:
    """Whoever runs into a lock sees to it that a dead holder does not keep it.

    Errors of the sweep are logged: they are not the caller's.
    """
    connection = connections[alias]
    if not (connection.in_atomic_block or connection.get_autocommit()):
        return  # only the caller knows when it commits

    def sweep() -> None:  # Django 5.2 logs the name of the function, and a partial has none
        lifecycle.sweep(thorough=False)

    transaction.on_commit(sweep, using=alias, robust=True)


def _fenced(alias: str) -> AbstractContextManager[None]:
    """Hold the current task's fence in this transaction, if the transaction does not hold it."""
    run = current_run()
    if run is None or run.claim is None or fence_of(run.claim) is Fence.OURS:
        return nullcontext()
    if alias != run.claim.alias:  # this transaction cannot hold it, but can begin under it
        with transaction.atomic(using=run.claim.alias):
            lifecycle.hold_fence(run.claim, wait=fence_of(run.claim) is Fence.FREE)
        return nullcontext()
    return _holding_fence(run.claim)


@contextmanager
def _holding_fence(claim: lifecycle.Claim) -> Iterator[None]:
    lifecycle.hold_fence(claim, wait=fence_of(claim) is Fence.FREE)
    with fenced(claim):
        yield


def look(keys: Collection[ObjectKey], alias: str) -> None:
    """Raise ConflictError when one of the objects is held, but by whoever runs or launches here."""
    held = get_store().holders(keys, alias)
    if held:
        run, launch = current_run(), open_launch(alias)
        owners = {run.owner if run else None, launch.task_key if launch else None}
        is_lost_thread = run is None and is_running_here(held.values())
        refuse_others(held, owners, alias, hint=Message(LOST_THREAD) if is_lost_thread else None)


def lock_parents(obj: Model, alias: str) -> None:
    """Lock the rows of the object's parents, which a task on the object holds, too."""
    if not lifecycle.has_one_writer(alias):
        lock_rows_of(ObjectKey.all_of(obj) - {ObjectKey.of(obj)}, alias)


def lock_row(obj: Model, alias: str) -> bool:
    """Lock the object's row until the transaction ends; False when there is none."""
    lock_parents(obj, alias)
    row = type(obj)._base_manager.using(alias).filter(pk=obj.pk)
    return row.select_for_update().values_list("pk", flat=True).first() is not None
