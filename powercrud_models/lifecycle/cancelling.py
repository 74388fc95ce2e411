"""Cancel a task, and take one up again that did not succeed."""

from __future__ import annotations

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext

from powercrud_models.clock import DatabaseClock, clock_plus
from powercrud_models.conf import get_conf
from powercrud_models.deadlocks import attempts
from powercrud_models.exceptions import PowerCRUDError
from powercrud_models.lifecycle.claiming import targets_of
from powercrud_models.lifecycle.ending import Claim, end, hold_fence, skip_rest
from powercrud_models.lifecycle.launching import lock_rows, send, tasks_alias
from powercrud_models.models import AsyncTask, TaskItem, TaskPulse
from powercrud_models.signals import announce, task_finished
from powercrud_models.stores import get_store

Status = AsyncTask.Status
TRIED_AGAIN = (TaskItem.Status.FAILED, TaskItem.Status.SKIPPED)


def cancel(task: AsyncTask) -> None:
    """End a task that nobody has begun; ask the worker of one that is in progress to stop.

    Raises PowerCRUDError for a hold, which ends with its block.
    """
    alias = tasks_alias()
    for attempt in attempts(alias):
        with attempt, transaction.atomic(using=alias):
            _cancel(task, alias)


def _cancel(task: AsyncTask, alias: str) -> None:
    if _cancel_untouched(task.key, alias):
        return
    items = TaskItem.objects.using(alias).filter(task_id=task.key)
    if not items.exists():
        raise PowerCRUDError(
            gettext("“%(label)s” holds objects for a block of code, and ends with it.")
            % {"label": task.label}
        )
    TaskPulse.objects.using(alias).filter(task_id=task.key).update(cancel_requested=True)
    _cancel_untouched(task.key, alias)  # its worker may have put it off meanwhile


def _cancel_untouched(task_key: str, alias: str) -> bool:
    """Whether nobody had the task in hand, so that it is cancelled now."""
    untouched = AsyncTask.objects.using(alias).filter(
        pk=task_key, status__in=(Status.PENDING, Status.WAITING)
    )
    if not untouched.update(
        status=Status.CANCELLED, fence=F("fence") + 1, finished_at=DatabaseClock()
    ):
        return False
    skip_rest(task_key, alias)
    get_store().release(task_key, alias)
    announce(task_finished, task_key, alias)
    return True


def is_cancelled(taken: Claim) -> bool:
    """Whether somebody has asked to cancel the task."""
    pulse = TaskPulse.objects.using(taken.alias).filter(pk=taken.task.key, cancel_requested=True)
    return pulse.exists()


def cancel_rest(taken: Claim) -> None:
    """End the task as cancelled: what is done stays done, the rest is skipped.

    Raises LeaseLost when another worker has the task.
    """
    with transaction.atomic(using=taken.alias):
        hold_fence(taken)
        end(taken.task.key, taken.fence, Status.CANCELLED, "", taken.alias)


def retry(task: AsyncTask) -> None:
    """Queue again what failed or was skipped, under locks as at the launch.

    Raises ConflictError, and changes nothing, when another task holds what it touches, and
    PowerCRUDError for a task that has not ended, that succeeded, or that is a hold.
    """
    alias = tasks_alias()
    for attempt in attempts(alias):
        with attempt, transaction.atomic(using=alias):
            _retry(task, alias)


def _retry(task: AsyncTask, alias: str) -> None:
    ended = AsyncTask.objects.using(alias).filter(pk=task.key)
    ended = ended.filter(status__in=(Status.FAILED, Status.CANCELLED))
    again = TaskItem.objects.using(alias).filter(task_id=task.key, status__in=TRIED_AGAIN)
    items = list(again.order_by("pk"))
    if not items or not ended.update(
        status=Status.PENDING,
        fence=F("fence") + 1,
        attempts=0,
        conflicts=0,
        recoveries=0,
        sends=F("sends") + 1,
        error="",
        finished_at=None,
        resend_at=clock_plus(get_conf().LEASE_SECONDS),
    ):
        raise PowerCRUDError(
            gettext("There is nothing to try again in “%(label)s”: it is %(status)s.")
            % {"label": task.label, "status": task.get_status_display()}
        )
    again.update(
        status=TaskItem.Status.TODO, tries=0, error="", returned=None, returned_as_text=False
    )
    TaskPulse.objects.using(alias).filter(task_id=task.key).update(cancel_requested=False)
    targets = targets_of(items, alias)
    get_store().acquire(task.key, lock_rows(targets, alias, task.key), alias)
    transaction.on_commit(lambda: send(task.key), using=alias, robust=True)
