"""The queue of a test, and a worker for it in the test's own process."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Collection
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import Min
from django.test.utils import override_settings

from powercrud_models import lifecycle
from powercrud_models.exceptions import PowerCRUDError, TaskFailed
from powercrud_models.launches import Launch, in_transaction, never_commits
from powercrud_models.models import AsyncTask
from powercrud_models.tasks import run_task

logger = logging.getLogger("powercrud_models")

NOT_STARTED = (AsyncTask.Status.PENDING, AsyncTask.Status.WAITING)
MOST_ROUNDS = 100
"""How often what ran may queue something new, before it is taken for a circle."""


class queue_tasks(override_settings):  # noqa: N801  it is used like override_settings
    """Turn the queue on: tasks are recorded and locked, and wait for ``run_queued()``.

    A context manager, and a decorator for test functions and for Django's test classes. It needs
    neither django-q2 nor a worker.

    >>> with queue_tasks():
    ...     shelf.save()
    """

    def __init__(self) -> None:
        super().__init__(POWERCRUD_SETTINGS=self._turned_on())

    def enable(self) -> None:
        """Keep what has been overridden since this was made, such as around a decorated test."""
        self.options = {"POWERCRUD_SETTINGS": self._turned_on()}
        super().enable()

    @staticmethod
    def _turned_on() -> dict[str, Any]:
        given = getattr(settings, "POWERCRUD_SETTINGS", {})
        return {**given, "ASYNC_ENABLED": True, "QUEUE": "testing"}


def queued_tasks() -> list[AsyncTask]:
    """The tasks that no worker has taken yet, in the order in which they were launched."""
    tasks = AsyncTask.objects.using(lifecycle.tasks_alias()).filter(status__in=NOT_STARTED)
    # the clock of some databases is too coarse to tell their order; their items were counted
    return list(tasks.annotate(first_item=Min("items__pk")).order_by("first_item"))


def run_queued(*, raise_errors: bool = True) -> list[AsyncTask]:
    """Run the queued tasks, and what they queue in turn; return them as they have ended.

    Each runs as in a worker: objects are loaded from the database, and neither the current user
    nor any other context variable of the test is set. On-commit callbacks of the work are called
    when its task has ended. Objects of the test do not change: ``refresh_from_db()``.

    Raises TaskFailed when one of them has failed, and AssertionError when one could not start,
    after all have had their turn; not with ``raise_errors=False``. Raises PowerCRUDError inside a
    transaction, which a worker could not see into.

    >>> [task] = run_queued()
    >>> task.status, task.result()
    ('success', 4)
    """
    alias = lifecycle.tasks_alias()
    if in_transaction(alias):
        raise PowerCRUDError(
            "run_queued() is called inside a transaction: workers see its tasks when it has "
            "committed. Call it after the atomic() block."
        )
    ran: dict[str, None] = {}
    waiting = _keys_of_queued()
    for _ in range(MOST_ROUNDS):
        for task_key in waiting:
            ran[task_key] = None
            contextvars.Context().run(run_as_worker, task_key, alias)
        before, waiting = waiting, _keys_of_queued()
        if waiting == before:  # what is left could not start
            break
    else:
        raise AssertionError(f"What ran has queued more {MOST_ROUNDS} times: does it ever end?")
    found = AsyncTask.objects.using(alias).in_bulk(ran)
    tasks = [found[task_key] for task_key in ran if task_key in found]
    if raise_errors:
        _raise_errors(tasks)
    return tasks


def _keys_of_queued() -> list[str]:
    return [task.key for task in queued_tasks()]


def run_as_worker(task_key: str, alias: str) -> None:
    """Run the task as a worker does, with the on-commit callbacks that a TestCase calls for none.

    Call it in an empty context: a worker knows nothing of the test.
    """
    connection = connections[alias]
    known = len(connection.run_on_commit)
    run_task(task_key)
    if not never_commits(alias):
        return
    while new := [each for each in connection.run_on_commit[known:] if _is_foreign(each[1])]:
        for registered in new:
            connection.run_on_commit.remove(registered)
        _call_as_after_commit(new)


def _is_foreign(callback: Any) -> bool:
    """Whether a callback is none of this package's, which would send a task to the queue."""
    return not isinstance(callback, Launch)


def _call_as_after_commit(registered: Collection[tuple[Any, ...]]) -> None:
    """Call what work has registered; what it raises does not make its task fail."""
    for _, callback, is_robust in registered:
        try:
            callback()
        except Exception:  # it may raise anything
            logger.exception("A task is done, but an on_commit callback of its work failed")
            if not is_robust:
                return


def _raise_errors(tasks: Collection[AsyncTask]) -> None:
    for task in tasks:
        if task.status in NOT_STARTED:
            raise AssertionError(f"{task.describe()}, could not start: {task.error or 'held up'}")
        if task.status != AsyncTask.Status.SUCCESS:
            raise TaskFailed(task)
