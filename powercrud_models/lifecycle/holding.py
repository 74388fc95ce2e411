"""A hold: a task without items, in the hands of the process that reserves its objects.

It has nothing that a worker could do, so nobody sends it, and the sweep gives it up when its
process gives no more sign of life.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import transaction

from powercrud_models.clock import DatabaseClock
from powercrud_models.fields import new_key
from powercrud_models.lifecycle.claiming import start_pulse
from powercrud_models.lifecycle.ending import Claim, end, lease_lost
from powercrud_models.lifecycle.launching import lock_objects
from powercrud_models.models import AsyncTask
from powercrud_models.types import ObjectKey

Status = AsyncTask.Status


def start_hold(keys: Collection[ObjectKey], label: str, user: Any, alias: str) -> Claim:
    """Record a task that is in progress here, and lock these objects for it.

    Call it in a transaction of its own, whose commit lets the others see the locks, and after a
    look for holders: see ``lock_objects``.

    Raises ConflictError when another task holds one of the objects.
    """
    task_key, tasks = new_key(), AsyncTask.objects.using(alias)
    lock_objects(keys, alias, owner=task_key)
    tasks.create(
        key=task_key,
        label=label,
        user=user,
        status=Status.IN_PROGRESS,
        fence=1,
        attempts=1,
        started_at=DatabaseClock(),
    )
    task = tasks.get(pk=task_key)  # with the times that the database has written
    start_pulse(task, alias)
    return Claim(task=task, fence=task.fence, items=(), alias=alias)


def end_hold(held: Claim, error: str = "") -> None:
    """End the task, as failed if there is an error, and release its locks.

    Raises LeaseLost when it has been given up before.
    """
    status = Status.FAILED if error else Status.SUCCESS
    with transaction.atomic(using=held.alias):
        ended = end(held.task.key, held.fence, status, error, held.alias)
    if not ended:
        raise lease_lost(held)
