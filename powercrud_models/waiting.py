"""Waiting for a task that another process runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

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
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = FIRST_PAUSE
    task.refresh_from_db(using=task._state.db)
    if not task.is_finished:
        _refuse_endless_wait(task)
    while not task.is_finished:
        left = pause if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{task.describe()} has not ended within {timeout} s.")
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
        task.refresh_from_db(using=task._state.db)


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
