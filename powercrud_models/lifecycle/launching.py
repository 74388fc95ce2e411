"""Launch: the row of the task, its items and its locks, in the transaction that asks for it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from django.db import router
from django.utils.translation import gettext_noop

from powercrud_models.clock import clock_plus
from powercrud_models.conf import get_conf
from powercrud_models.context import current_user
from powercrud_models.exceptions import PowerCRUDError
from powercrud_models.fields import new_key
from powercrud_models.launches import Launch, open_launch, register
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask, TaskItem
from powercrud_models.queues import get_queue
from powercrud_models.resolution import (
    RowsBusy,
    Target,
    keys_of,
    lock_guarded_rows,
    locked_keys,
)
from powercrud_models.signals import announce, task_created
from powercrud_models.stores import get_store, refuse_others
from powercrud_models.types import ObjectKey

logger = logging.getLogger("powercrud_models")


def tasks_alias() -> str:
    """The database that keeps the tasks and their locks."""
    return router.db_for_write(AsyncTask)


def launch(targets: Sequence[Target], alias: str, *, queued: bool = True) -> str:
    """Record these works as a task and lock all that they touch; return the task's key.

    Call it in the transaction of the write that asked for it, which a savepoint undoes if this
    raises. A further launch in the same transaction joins the task that is there already.
    ``queued=False``: the caller runs the task itself, before the transaction commits.

    Raises ConflictError when another task holds one of the objects.
    """
    _refuse_other_database(targets, alias)
    opened = _task_to_join(alias)
    task_key = opened.task_key if opened else new_key()
    keys = lock_rows(targets, alias, owner=task_key)
    if opened is None:
        AsyncTask.objects.using(alias).create(
            key=task_key,
            label=_label(targets),
            user=current_user(),
            sends=1,
            resend_at=clock_plus(get_conf().LEASE_SECONDS),
        )
    TaskItem.objects.using(alias).bulk_create(
        [
            TaskItem(
                task_id=task_key,
                model=type(obj)._meta.label_lower,
                object_id=ObjectKey.of(obj).pk,
                work=work.name,
            )
            for obj, works in targets
            for work in works
        ],
        ignore_conflicts=opened is not None,  # once per work and object
    )
    get_store().acquire(task_key, keys, alias)
    if opened is None:
        announce(task_created, task_key, alias)
    if opened is None and queued:
        _send_on_commit(task_key, alias)
    return task_key


def _task_to_join(alias: str) -> Launch | None:
    """What this transaction has launched already, if no worker can have claimed it.

    A savepoint that was rolled back by hand has undone the task and kept the callback; with
    autocommit off a commit keeps it, too.
    """
    opened = open_launch(alias)
    if opened is None:
        return None
    unclaimed = AsyncTask.objects.using(alias).filter(pk=opened.task_key, fence=0)
    if unclaimed.select_for_update().values_list("pk", flat=True).first() is None:
        opened.committed = True
        return None
    return opened


def lock_rows(targets: Sequence[Target], alias: str, owner: str) -> set[ObjectKey]:
    """The keys of all that the works touch, with the rows locked.

    A row that somebody else has locked is waited for, unless a task is at work on it: that may
    take long, and ends in ConflictError at once.
    """
    try:
        return locked_keys(targets, alias, wait=False)
    except RowsBusy:
        refuse_others(get_store().holders(keys_of(targets, alias), alias), {owner}, alias)
        return locked_keys(targets, alias, wait=True)


def lock_objects(keys: Collection[ObjectKey], alias: str, owner: str) -> None:
    """Lock these objects for the owner; a save of one of them that is still open is waited for.

    Look for their holders before: those keep the rows locked for as long as they are at work.

    Raises ConflictError when another task holds one of them.
    """
    lock_guarded_rows(keys, alias)
    get_store().acquire(owner, keys, alias)


def _refuse_other_database(targets: Sequence[Target], alias: str) -> None:
    if alias != tasks_alias():
        obj, works = targets[0]
        raise PowerCRUDError(
            f"{type(obj).__name__}.{works[0].method}: {obj._meta.verbose_name} {obj.pk} is on the "
            f"database {alias!r}, tasks and locks are on {tasks_alias()!r}: they could not commit "
            "together. Route AsyncTask to the same database, or save with skip_async=True."
        )


def _label(targets: Sequence[Target]) -> Message:
    """What people read; without ``str(obj)``, which may ask the database for each object."""
    obj, works = targets[0]
    return Message(
        gettext_noop("%(work)s %(model)s %(pk)s"),
        work=works[0].label,
        model=Message.of(obj._meta.verbose_name or ""),
        pk=str(obj.pk),
    )


def _send_on_commit(task_key: str, alias: str) -> None:
    queue = get_queue()
    if queue.commits_with(alias):
        queue.send(task_key)
        register(Launch(task_key, send=lambda _: None), alias)
    else:
        register(Launch(task_key, send=send), alias)


def send(task_key: str) -> bool:
    """Wake a worker. A broker that cannot be reached is noted, and left to the sweep."""
    try:
        get_queue().send(task_key)
    except Exception as error:  # each broker's client raises what it likes
        logger.exception("Task %s is saved but could not be sent; the sweep will.", task_key)
        tasks = AsyncTask.objects.using(tasks_alias())
        said = f"{type(error).__name__}: {error}"
        tasks.filter(pk=task_key).update(queue_error=said, sends=0)  # no message is under way
        return False
    return True


def queue_has_messages() -> bool:
    """Whether workers have something to do; so it seems when the broker cannot be reached."""
    try:
        return get_queue().has_messages()
    except Exception:  # each broker's client raises what it likes
        logger.exception("Nobody knows what waits in the queue.")
        return True
