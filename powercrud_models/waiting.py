"""Waiting for a task that another process runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections

from powercrud_models.context import current_run
from powercrud_models.exceptions import PowerCRUDError
from powercrud_models.launches import never_commits, open_launch

if TYPE_CHECKING:
    from powercrud_models.models import AsyncTask

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two looks at the task; each pause is longer than the one before."""


def wait_until_ended(task: AsyncTask, timeout: float | None) -> None:
    """Wait until the task has ended, for at most ``timeout`` seconds; it is read anew.

    Raises TimeoutError when it has not, and PowerCRUDError where it never would.
    """
    if _has_ended(task):
        return
    _refuse_endless_wait(task)
    for pause in _pauses(timeout):
        time.sleep(pause)
        if _has_ended(task):
            return
    raise _too_late(task, timeout)


async def await_end(task: AsyncTask, timeout: float | None) -> None:  # noqa: ASYNC109
    """The same for async code."""
    if await sync_to_async(_has_ended)(task):
        return
    await sync_to_async(_refuse_endless_wait)(task)
    for pause in _pauses(timeout):
        await asyncio.sleep(pause)
        if await sync_to_async(_has_ended)(task):
            return
    raise await sync_to_async(_too_late)(task, timeout)


def _has_ended(task: AsyncTask) -> bool:
    task.refresh_from_db(using=task._state.db)
    return task.is_finished


def _pauses(timeout: float | None) -> Iterator[float]:
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = FIRST_PAUSE
    while deadline is None or time.monotonic() < deadline:
        yield pause if deadline is None else max(min(pause, deadline - time.monotonic()), 0)
        pause = min(pause * 1.5, LONGEST_PAUSE)


def _too_late(task: AsyncTask, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"{task.describe()} has not ended within {timeout} s.")


def _refuse_endless_wait(task: AsyncTask) -> None:
    connection = connections[task._state.db or DEFAULT_DB_ALIAS]
    advice = "Ask for it after the commit."
    run, launch = current_run(), open_launch(connection.alias)
    if run is not None and run.owner == task.key:
        reason = "this code is part of it"
    elif launch is not None and launch.task_key == task.key:
        reason = "it is queued when this transaction commits"
    elif never_commits(connection.alias):
        reason = "no worker sees what a test's transaction has written"
        advice = "Call powercrud_models.testing.run_queued() first."
    elif connection.in_atomic_block and connection.vendor == "sqlite":
        reason = "this transaction keeps every worker from writing"
    else:
        return
    raise PowerCRUDError(
        f"Waiting here for the result of “{task.label}” would never end: {reason}. {advice}"
    )
