"""Sweep: what a queue has lost is sent again; what a dead worker left behind is taken up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import OperationalError, connections, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils.translation import gettext_noop

from powercrud_models.clock import DatabaseClock, clock_plus
from powercrud_models.conf import get_conf
from powercrud_models.lifecycle.claiming import MAX_RECOVERIES, at_work, expired
from powercrud_models.lifecycle.ending import HOLDER_DIED, end, has_one_writer
from powercrud_models.lifecycle.launching import send, tasks_alias
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem, TaskPulse

Status = AsyncTask.Status
MOST_AT_ONCE = 100
MAX_DOUBLINGS = 10

_sweeping: ContextVar[bool] = ContextVar("powercrud_sweeping", default=False)


def sweep(*, thorough: bool = True) -> dict[str, int]:
    """Take care of overdue tasks, and return how many of each kind there were.

    A task whose worker has died is sent again, or failed when too many workers died of it; a
    pending one that nobody has claimed in time is sent again, each time later. ``thorough``
    also releases locks without a task and deletes the record of tasks that ended more than
    CLEANUP_GRACE_PERIOD seconds ago.

    Any number of processes may sweep at the same time.

    >>> sweep()
    {'sent': 1, 'failed': 0, 'released': 0, 'deleted': 0}
    """
    counts = {"sent": 0, "failed": 0, "released": 0, "deleted": 0}
    if _sweeping.get():  # an immediate queue runs tasks within `send`, and they sweep as well
        return counts
    token = _sweeping.set(True)
    try:
        _sweep(counts, tasks_alias(), thorough=thorough)
    finally:
        _sweeping.reset(token)
    return counts


def _sweep(counts: dict[str, int], alias: str, *, thorough: bool) -> None:
    for task in _due(alias)[:MOST_AT_ONCE]:
        try:
            error = _reason_to_give_up(task, alias)
            if error:
                counts["failed"] += _give_up(task, error, alias)
            else:
                counts["sent"] += _send_again(task, alias)
        except Busy:
            break
    if thorough:
        counts["released"] = _release_stray_locks(alias)
        counts["deleted"] = _delete_old(alias)


def _due(alias: str) -> QuerySet[AsyncTask]:
    return (
        AsyncTask.objects.using(alias)
        .filter(Q(status=Status.PENDING) | expired(alias), resend_at__lte=DatabaseClock())
        .order_by("resend_at")
    )


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
    """Send it, unless another sweep has just done so (compare and set on ``sends``)."""
    pause = get_conf().LEASE_SECONDS * 2 ** min(task.sends, MAX_DOUBLINGS)
    with _own_transaction(alias):
        mine = _due(alias).filter(pk=task.key, sends=task.sends)
        if at_work(mine, alias):
            return False
        if not mine.update(resend_at=clock_plus(pause), sends=F("sends") + 1):
            return False
    send(task.key)
    return True


def _reason_to_give_up(task: AsyncTask, alias: str) -> str:
    """Why no worker can take this overdue task up; empty when one can."""
    if task.status != Status.IN_PROGRESS:
        return ""
    if not TaskItem.objects.using(alias).filter(task_id=task.key).exists():
        return Message(HOLDER_DIED)
    if task.recoveries >= MAX_RECOVERIES:
        return Message(
            gettext_noop("%(workers)s workers died while they were at work on this task."),
            workers=task.recoveries + 1,
        )
    return ""


def _give_up(task: AsyncTask, error: str, alias: str) -> bool:
    with _own_transaction(alias):
        stale = AsyncTask.objects.using(alias).filter(expired(alias), pk=task.key)
        if at_work(stale, alias) or not stale.update(fence=F("fence") + 1):
            return False
        return end(task.key, task.fence + 1, Status.FAILED, error, alias)


def _release_stray_locks(alias: str) -> int:
    holders = AsyncTask.objects.using(alias).filter(
        pk=OuterRef("task_id"), status__in=AsyncTask.UNFINISHED
    )
    return ObjectLock.objects.using(alias).filter(~Exists(holders)).delete()[0]


def _delete_old(alias: str) -> int:
    """Delete the record of tasks that ended long ago, with their items and pulses."""
    old = AsyncTask.objects.using(alias).filter(
        finished_at__lt=clock_plus(-get_conf().CLEANUP_GRACE_PERIOD)
    )
    keys = list(old.values_list("pk", flat=True)[:1000])
    TaskItem.objects.using(alias).filter(task_id__in=keys).delete()
    TaskPulse.objects.using(alias).filter(task_id__in=keys).delete()
    AsyncTask.objects.using(alias).filter(pk__in=keys).delete()
    return len(keys)
