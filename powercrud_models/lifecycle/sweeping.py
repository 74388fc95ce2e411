"""Sweep: what a queue has lost is sent again; what a dead worker left behind is taken up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from django.db import OperationalError, connections, transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Greatest

from powercrud_models.clock import DatabaseClock, clock_plus
from powercrud_models.conf import get_conf
from powercrud_models.lifecycle.claiming import at_work, expired
from powercrud_models.lifecycle.ending import end
from powercrud_models.lifecycle.launching import queue_has_messages, send, tasks_alias
from powercrud_models.lifecycle.limits import reason_to_give_up, todo_of
from powercrud_models.lifecycle.statements import has_one_writer
from powercrud_models.models import AsyncTask, TaskItem, TaskPulse
from powercrud_models.stores import get_store

Status = AsyncTask.Status
MOST_AT_ONCE = 100
MAX_DOUBLINGS = 10
PAUSE_OF_ORPHANS = 2
"""Seconds until a dead worker's task is sent for the second time, or taken up without the queue."""

_sweeping: ContextVar[bool] = ContextVar("powercrud_sweeping", default=False)


def sweep(
    *,
    thorough: bool = True,
    take_up: Callable[[AsyncTask], bool] | None = None,
    late: bool = True,
) -> dict[str, int]:
    """Take care of overdue tasks, and return how many of each kind there were.

    A task whose worker has died is sent again, or failed when too many workers died of it; a
    pending one that nobody has claimed in time is sent again, each time later, and not before
    MAX_TASK_DURATION while the queue has messages: its own may be one of them. ``thorough``
    also releases locks without a task and deletes the record of tasks that ended more than
    CLEANUP_GRACE_PERIOD seconds ago. ``take_up`` runs a dead worker's task in this process, instead
    of sending it to the end of a queue that may be long; it says whether it does. ``late=False``:
    pending tasks are looked after by others.

    Any number of processes may sweep at the same time.

    >>> sweep()
    {'sent': 1, 'failed': 0, 'released': 0, 'deleted': 0}
    """
    counts = {"sent": 0, "failed": 0, "released": 0, "deleted": 0}
    if _sweeping.get():  # an immediate queue runs tasks within `send`, and they sweep as well
        return counts
    token = _sweeping.set(True)
    try:
        _sweep(counts, tasks_alias(), take_up, late=late)
        if thorough:
            counts["released"] = get_store().release_strays(tasks_alias())
            counts["deleted"] = _delete_old(tasks_alias())
    finally:
        _sweeping.reset(token)
    return counts


def _sweep(
    counts: dict[str, int], alias: str, take_up: Callable[[AsyncTask], bool] | None, *, late: bool
) -> None:
    orphans = _due(alias).filter(status=Status.IN_PROGRESS)[:MOST_AT_ONCE]
    with suppress(Busy, QueueAway):
        for task in orphans:
            error = _reason_to_give_up(task, alias)
            if error:
                counts["failed"] += _give_up(task, error, alias)
            elif take_up is None or not take_up(task):
                counts["sent"] += _send_again(task, alias)
        for task in _late(alias)[:MOST_AT_ONCE] if late else ():
            counts["sent"] += _send_again(task, alias)


def _late(alias: str) -> QuerySet[AsyncTask]:
    """Pending tasks that have waited long enough, or whose message seems to be lost."""
    late = _due(alias).filter(status=Status.PENDING)
    if late.filter(sends__gt=0).exists() and queue_has_messages():
        long_ago = clock_plus(-get_conf().MAX_TASK_DURATION)
        return late.filter(Q(sends=0) | Q(resend_at__lte=long_ago))
    return late


def seconds_until_due(alias: str) -> float | None:
    """When a sweep will next find something, as far as one can tell now; None for nothing."""
    unfinished = AsyncTask.objects.using(alias).annotate(now=DatabaseClock())
    pending = unfinished.filter(status=Status.PENDING).annotate(due=F("resend_at"))
    running = unfinished.filter(status=Status.IN_PROGRESS).annotate(
        due=Greatest("resend_at", "pulse__lease_until")
    )
    first = [
        tasks.filter(due__isnull=False).order_by("due").values_list("due", "now").first()
        for tasks in (pending, running)
    ]
    return min(((due - now).total_seconds() for due, now in filter(None, first)), default=None)


def _due(alias: str) -> QuerySet[AsyncTask]:
    return (
        AsyncTask.objects.using(alias)
        .filter(Q(status=Status.PENDING) | expired(alias), resend_at__lte=DatabaseClock())
        .order_by("resend_at")
    )


class QueueAway(Exception):
    """The broker cannot be reached."""


class Busy(Exception):
    """SQLite's one writer is at work; it may be the very worker that gives no sign of life."""


@contextmanager
def _own_transaction(alias: str) -> Iterator[None]:
    """A transaction that waits for nobody: raises Busy instead of waiting for SQLite's writer."""
    connection = connections[alias]
    if not has_one_writer(alias) or connection.in_atomic_block:
        with transaction.atomic(using=alias):
            yield
        return
    with connection.cursor() as cursor:
        [patience] = cursor.execute("PRAGMA busy_timeout").fetchone()
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            with transaction.atomic(using=alias):
                yield
        except OperationalError as error:
            raise Busy from error
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {patience}")


def _send_again(task: AsyncTask, alias: str) -> bool:
    """Send it, unless another sweep has just done so (compare and set on ``sends``).

    A pending one may wait in a long queue. A dead worker's task has waited for its lease already,
    and its message may be lost as well.
    """
    longer = 2 ** min(task.sends, MAX_DOUBLINGS)
    if task.status == Status.PENDING:
        pause = get_conf().LEASE_SECONDS * longer
    else:
        pause = min(PAUSE_OF_ORPHANS * longer, get_conf().HEARTBEAT_SECONDS)
    with _own_transaction(alias):
        mine = _due(alias).filter(pk=task.key, sends=task.sends)
        if at_work(mine, alias):
            return False
        if not mine.update(resend_at=clock_plus(pause), sends=F("sends") + 1):
            return False
    if not send(task.key):
        raise QueueAway  # the others would not arrive, either
    return True


def _reason_to_give_up(task: AsyncTask, alias: str) -> str:
    """Why no worker can take a dead one's task up; empty when one can."""
    items = list(todo_of(task.key, alias))
    return reason_to_give_up(task.key, items, task.recoveries, alias)


def _give_up(task: AsyncTask, error: str, alias: str) -> bool:
    with _own_transaction(alias):
        stale = AsyncTask.objects.using(alias).filter(expired(alias), pk=task.key)
        if at_work(stale, alias) or not stale.update(fence=F("fence") + 1):
            return False
        return end(task.key, task.fence + 1, Status.FAILED, error, alias)


def _delete_old(alias: str) -> int:
    """Delete the record of tasks that ended long ago, with their items and pulses."""
    old = AsyncTask.objects.using(alias).filter(
        finished_at__lt=clock_plus(-get_conf().CLEANUP_GRACE_PERIOD)
    )
    with transaction.atomic(using=alias):
        if connections[alias].features.has_select_for_update_skip_locked:
            old = old.select_for_update(skip_locked=True)  # somebody may just try one again
        keys = list(old.values_list("pk", flat=True)[:1000])
        TaskItem.objects.using(alias).filter(task_id__in=keys).delete()
        TaskPulse.objects.using(alias).filter(task_id__in=keys).delete()
        AsyncTask.objects.using(alias).filter(pk__in=keys).delete()
    return len(keys)
