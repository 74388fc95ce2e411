"""What a crash has left behind, and what a living system makes of it."""

from __future__ import annotations

import contextvars

from django.db.models import Min, QuerySet

from powercrud_models import lifecycle
from powercrud_models.clock import clock_plus
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem, TaskPulse
from powercrud_models.stores import get_store
from powercrud_models.testing.running import run_as_worker
from powercrud_models.types import ObjectKey, model_label

Status = AsyncTask.Status
MOST_ROUNDS = 20
"""How often the sweep may have to send a task before it ends."""
LOCKED = (Status.PENDING, Status.IN_PROGRESS)
"""A task that waits for others holds nothing."""


class Aftermath:
    """The tasks that were launched since this was made: how they are taken up, and how they are."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._others = list(AsyncTask.objects.using(alias).values_list("pk", flat=True))

    def _tasks(self) -> QuerySet[AsyncTask]:
        tasks = AsyncTask.objects.using(self._alias).exclude(pk__in=self._others)
        return tasks.annotate(first_item=Min("items__pk")).order_by("first_item")

    def keys(self) -> list[str]:
        """The keys of the tasks, in the order of their launch."""
        return [task.key for task in self._tasks()]

    def statuses(self) -> list[str]:
        """How they stand."""
        return [task.status for task in self._tasks()]

    def errors(self) -> list[str]:
        """Why tasks have failed."""
        return [task.error for task in self._tasks() if task.error]

    def recover(self) -> None:
        """Let time pass, sweep, and run what the sweep sends, until all tasks have ended.

        Then each is delivered once more: nobody has acknowledged the dead worker's message.
        """
        for _ in range(MOST_ROUNDS):
            unfinished = [task for task in self._tasks() if not task.is_finished]
            if not unfinished:
                self._deliver(self.keys())
                return
            self._let_time_pass()
            contextvars.Context().run(lifecycle.sweep)
            sends = {task.key: task.sends for task in self._tasks()}
            self._deliver([task.key for task in unfinished if sends[task.key] > task.sends])

    def _let_time_pass(self) -> None:
        """Leases run out, and whatever waits for its time has waited."""
        keys = self.keys()
        pulses = TaskPulse.objects.using(self._alias).filter(task_id__in=keys)
        pulses.update(lease_until=clock_plus(-1))
        tasks = AsyncTask.objects.using(self._alias).filter(pk__in=keys)
        tasks.update(resend_at=clock_plus(-1))

    def _deliver(self, task_keys: list[str]) -> None:
        for task_key in task_keys:
            contextvars.Context().run(run_as_worker, task_key, self._alias)

    def assert_all_ended(self) -> None:
        for task in self._tasks():
            if not task.is_finished:
                why = f": {task.error}" if task.error else ""
                raise AssertionError(f"it never ends: {task.describe()}{why}")

    def assert_none_failed(self) -> None:
        for task in self._tasks():
            if task.status == Status.FAILED:
                raise AssertionError(f"{task.describe()}: {task.error}")

    def assert_sound(self) -> None:
        """What must be true at any moment, also right after the crash: who holds what, and why.

        A task that is to go on holds its objects, one that has ended holds nothing, and a success
        has done all its items.
        """
        for task in self._tasks():
            held = get_store().held(task.key, self._alias)
            todo, undone = self._undone_items(task)
            if task.is_finished and held:
                raise AssertionError(f"{_listed(held)} locked for ever: {task.describe()}")
            if task.status in LOCKED and todo - held:
                raise AssertionError(f"{_listed(todo - held)} not locked: {task.describe()}")
            if task.status == Status.SUCCESS and undone:
                raise AssertionError(f"a false success: {', '.join(undone)}: {task.describe()}")
        locks = ObjectLock.objects.using(self._alias)
        stray = locks.exclude(task_id__in=AsyncTask.objects.using(self._alias).values("pk"))
        if stray.exists():
            raise AssertionError(f"{', '.join(map(str, stray))} locked by no task")

    def _undone_items(self, task: AsyncTask) -> tuple[set[ObjectKey], list[str]]:
        """The objects of what is still to do, and all items that are not done, described."""
        items = TaskItem.objects.using(self._alias).filter(task_id=task.key)
        undone = list(items.exclude(status=TaskItem.Status.DONE))
        todo = {
            ObjectKey(model_label(item.model_class), item.object_id)
            for item in undone
            if item.status == TaskItem.Status.TODO and item.model_class
        }
        return todo, [f"{item} is {item.get_status_display()}" for item in undone]


def _listed(keys: set[ObjectKey]) -> str:
    return ", ".join(f"{key.model} {key.pk}" for key in sorted(keys))
