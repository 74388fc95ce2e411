"""Return: a task that a worker has claimed goes back to pending, with its locks, for a reason."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import F

from powercrud_models.clock import clock_plus
from powercrud_models.conf import get_conf
from powercrud_models.lifecycle.ending import Claim, end, finish, hold_fence
from powercrud_models.lifecycle.launching import send
from powercrud_models.lifecycle.limits import reason_to_give_up, todo_of
from powercrud_models.models import AsyncTask, TaskPulse
from powercrud_models.queues import get_queue

MAX_BACKOFF_SECONDS = 300


def put_back(taken: Claim, reason: str) -> None:
    """Let it wait for what another task holds; it has not begun, so the attempt does not count."""
    pause = min(2 ** (taken.task.conflicts + 1), MAX_BACKOFF_SECONDS)
    _return(
        taken,
        after=pause,
        conflicts=F("conflicts") + 1,
        attempts=F("attempts") - 1,
        error=reason,
    )


def put_off(taken: Claim, seconds: float) -> None:
    """Let it wait before items that raised are tried again.

    Raises LeaseLost when another worker has the task.
    """
    with transaction.atomic(using=taken.alias):
        hold_fence(taken)
        _return(taken, after=seconds)


def give_back(taken: Claim) -> None:
    """Leave the rest to another worker, and wake one: this one stops in order, nothing is counted.

    Raises LeaseLost when another worker has the task.
    """
    with transaction.atomic(using=taken.alias):
        hold_fence(taken)
        _pass_on(taken, attempts=F("attempts") - 1)


def give_up(taken: Claim, error: str) -> None:
    """As if this worker had died, but at once: another one tries it, unless too many have.

    Raises LeaseLost when another worker has the task.
    """
    with transaction.atomic(using=taken.alias):
        hold_fence(taken)
        key, alias = taken.task.key, taken.alias
        [recoveries] = AsyncTask.objects.using(alias).filter(pk=key).values_list("recoveries")[0]
        items = list(todo_of(key, alias))
        if reason_to_give_up(key, items, recoveries, alias):
            finish(taken, error=error)
        else:
            _pass_on(taken, recoveries=F("recoveries") + 1)


def _pass_on(taken: Claim, **counts: Any) -> None:
    _return(taken, after=get_conf().LEASE_SECONDS, sends=F("sends") + 1, **counts)
    if get_queue().waits:  # else it would be run again here, within what stops the process
        transaction.on_commit(lambda: send(taken.task.key), using=taken.alias, robust=True)


def _return(taken: Claim, *, after: float, **changes: Any) -> None:
    pulse = TaskPulse.objects.using(taken.alias).filter(pk=taken.task.key)
    if pulse.filter(cancel_requested=True).exists():
        end(taken.task.key, taken.fence, AsyncTask.Status.CANCELLED, "", taken.alias)
        return
    mine = AsyncTask.objects.using(taken.alias).filter(pk=taken.task.key, fence=taken.fence)
    mine.update(status=AsyncTask.Status.PENDING, resend_at=clock_plus(after), **changes)
