"""What a worker writes about the task that it has claimed, item by item, to the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import OperationalError, transaction
from django.db.models import QuerySet
from django.utils.translation import gettext

from powercrud_models.clock import DatabaseClock, clock_plus
from powercrud_models.compiled import together
from powercrud_models.conf import get_conf
from powercrud_models.context import Steps
from powercrud_models.exceptions import LeaseLost, PowerCRUDError
from powercrud_models.lifecycle.limits import todo_of
from powercrud_models.lifecycle.statements import (
    HOLD_FENCE,
    ITEM_IS_DONE,
    TASK_IS_DONE,
    has_one_writer,
)
from powercrud_models.messages import storable
from powercrud_models.models import AsyncTask, TaskItem, TaskPulse
from powercrud_models.sessions import limit_of_idleness
from powercrud_models.signals import announce, task_finished
from powercrud_models.stores import get_store

Status = AsyncTask.Status
ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
MOST_STEPS = 2**31 - 1
"""What the columns of a pulse can count; a beat that fails for it would be no sign of life."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A task in the hands of this worker, for as long as its fence stands."""

    task: AsyncTask
    fence: int
    items: Sequence[TaskItem]
    """What is left to do, in the order in which it was launched."""
    alias: str


def hold_fence(taken: Claim, *, wait: bool = True) -> None:
    """Lock the task's row to the end of this transaction, so that nobody can take it over.

    ``wait=False``: a thread of the work does not wait for the transaction of the work, which may
    wait for the thread.

    Raises LeaseLost when somebody has taken it over, or it has ended; PowerCRUDError when it would
    have to wait and must not.
    """
    alias, mine = taken.alias, {"key": taken.task.key, "fence": taken.fence}
    lease = limit_of_idleness(alias, get_conf().LEASE_SECONDS)
    held: object
    if has_one_writer(alias):
        held = HOLD_FENCE.change(alias, lease, **mine)
    elif wait:
        held = HOLD_FENCE.select(alias, lease, **mine)
    else:
        held = _is_free(taken) and HOLD_FENCE.select(alias, lease, **mine)
    if not held:
        raise lease_lost(taken)


def _is_free(taken: Claim) -> bool:
    """Whether this transaction could lock the task's row at once, and now has.

    Raises PowerCRUDError when it would have to wait.
    """
    row = AsyncTask.objects.using(taken.alias).filter(pk=taken.task.key)
    try:
        with transaction.atomic(using=taken.alias):
            return row.select_for_update(nowait=True).values_list("pk").first() is not None
    except OperationalError as error:
        raise PowerCRUDError(
            "A thread of atomic work writes while the transaction of the work is open: each would "
            "wait for the other. Let threads write in work with atomic=False."
        ) from error


def lease_lost(taken: Claim) -> LeaseLost:
    """What to raise when the fence of this claim stands no more."""
    if taken.items:
        said = gettext("The task “%(label)s” has ended, or was taken over by another worker.")
    else:
        said = gettext(
            "The objects that “%(label)s” held have been released, because its process gave no "
            "sign of life for longer than LEASE_SECONDS. Others may have changed them since: read "
            "them again, and begin anew."
        )
    return LeaseLost(said % {"label": taken.task.label})


def end_item(
    taken: Claim,
    item: TaskItem,
    status: TaskItem.Status,
    *,
    error: str = "",
    returned: Any = None,
    ends_task: bool,
) -> None:
    """Record how the item ended, in the transaction of its work; the last one ends the task.

    Call ``hold_fence`` before it in the same transaction.

    Raises LeaseLost when it has ended already: a server that crashed may have forgotten a claim,
    and given the same fence to another worker.
    """
    item.status, item.error = status, error
    is_done = status == TaskItem.Status.DONE
    if ends_task and is_done and returned is None and not _errors(taken):
        _end_well(taken, item)
        return
    outcome = {"status": status, "error": error, **_storable(returned)}
    todo = task_items(taken).filter(pk=item.pk, status=TaskItem.Status.TODO)
    if not todo.update(**outcome):
        raise lease_lost(taken)
    if ends_task:
        finish(taken)
        return
    if taken.task.recoveries:  # it gets on: whoever dies next is the first again
        AsyncTask.objects.using(taken.alias).filter(pk=taken.task.key).update(recoveries=0)
        transaction.on_commit(partial(setattr, taken.task, "recoveries", 0), using=taken.alias)
    if has_one_writer(taken.alias):
        renew(taken, Steps())  # the heartbeat was kept out for the length of the item


def _end_well(taken: Claim, item: TaskItem) -> None:
    """The most frequent end, in the fewest statements: all is done, and nothing was returned."""
    alias, key = taken.alias, taken.task.key
    item_is_done = ITEM_IS_DONE.bind(alias, pk=item.pk)
    task_is_done = TASK_IS_DONE.bind(alias, key=key, fence=taken.fence)
    release = get_store().release_as_statement(key)
    done = together(alias, item_is_done, task_is_done, *([release] if release else []))
    if done[:2] != [1, 1]:
        raise lease_lost(taken)
    if release is None:
        get_store().release(key, alias)
    announce(task_finished, key, alias)


def _storable(returned: Any) -> dict[str, Any]:
    if _json_can_carry(returned):
        return {"returned": returned, "returned_as_text": False}
    return {"returned": storable(repr(returned)), "returned_as_text": True}


def record_try(taken: Claim, item: TaskItem, error: str) -> None:
    """Record that a try of the item has raised; it is tried again.

    Raises LeaseLost when another worker has the task.
    """
    with transaction.atomic(using=taken.alias):
        hold_fence(taken)
        item.tries += 1
        item.error = error
        item.save(using=taken.alias, update_fields=["tries", "error"])


def _json_can_carry(value: Any) -> bool:
    """Whether every database stores it: not all take a NUL, or half of a surrogate pair."""
    try:
        encoded = DjangoJSONEncoder(allow_nan=False, ensure_ascii=False).encode(value)
        encoded.encode()
    except (TypeError, ValueError):
        return False
    return not ESCAPED_NUL.search(encoded)


def has_ended(taken: Claim, item: TaskItem) -> bool:
    """Whether an outcome of the item is committed."""
    todo = task_items(taken).filter(pk=item.pk, status=TaskItem.Status.TODO)
    return not todo.exists()


def renew(taken: Claim, steps: Steps) -> bool:
    """Give a sign of life, and say how far the item has come.

    Returns False when another worker has the task.
    """
    pulse = TaskPulse.objects.using(taken.alias).filter(pk=taken.task.key, fence=taken.fence)
    return bool(
        pulse.update(
            lease_until=clock_plus(get_conf().LEASE_SECONDS),
            beat_at=DatabaseClock(),
            item_id=steps.item,
            current=min(steps.current, MOST_STEPS),
            total=None if steps.total is None else min(steps.total, MOST_STEPS),
        )
    )


def finish(taken: Claim, error: str = "") -> None:
    """End the task as its items ended and release its locks."""
    errors = [error] if error else _errors(taken)
    status = Status.FAILED if errors else Status.SUCCESS
    end(taken.task.key, taken.fence, status, errors[0] if errors else "", taken.alias)


def _errors(taken: Claim) -> list[str]:
    """Why items of the task have failed, the first one first."""
    is_failed = TaskItem.Status.FAILED
    if taken.fence == 1:  # all that has ended has ended here
        return [item.error for item in taken.items if item.status == is_failed]
    failed = task_items(taken).filter(status=is_failed).order_by("pk")
    return list(failed.values_list("error", flat=True)[:1])


def end(task_key: str, fence: int, status: AsyncTask.Status, error: str, alias: str) -> bool:
    """Write the outcome of a task that is in progress under this fence, and free its locks."""
    mine = AsyncTask.objects.using(alias).filter(
        pk=task_key, fence=fence, status=Status.IN_PROGRESS
    )
    ended = mine.update(status=status, error=error, finished_at=DatabaseClock())
    if ended:
        if status != Status.SUCCESS:
            skip_rest(task_key, alias)
        get_store().release(task_key, alias)
        announce(task_finished, task_key, alias)
    return bool(ended)


def skip_rest(task_key: str, alias: str) -> None:
    """What is left of a task that ends otherwise than well is not done."""
    todo_of(task_key, alias).update(status=TaskItem.Status.SKIPPED)


def task_items(taken: Claim) -> QuerySet[TaskItem]:
    return TaskItem.objects.using(taken.alias).filter(task_id=taken.task.key)
