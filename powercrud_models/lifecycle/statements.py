"""The statements of every task's way from its claim to its end."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.models import F, QuerySet

from powercrud_models.clock import DatabaseClock, clock_plus
from powercrud_models.compiled import Bound, Change, Compiled, together
from powercrud_models.models import AsyncTask, TaskItem, TaskPulse
from powercrud_models.sessions import commit_without_waiting, limit_idleness

Status = AsyncTask.Status

BEGUN = {
    "status": Status.IN_PROGRESS,
    "fence": F("fence") + 1,
    "attempts": F("attempts") + 1,
    "sends": 0,
    "started_at": DatabaseClock(),
    "resend_at": DatabaseClock(),
}
"""What a claim writes."""
OF_TASK = (
    *("key", "label", "status", "user_id", "payload_version"),
    *("fence", "attempts", "conflicts", "recoveries"),
)
OF_ITEM = ("id", "task_id", "model", "object_id", "work", "status", "tries")
"""What a worker must know of a task and of an item; the rest is read when somebody asks for it.

In the order of the models' fields, as ``from_db`` wants it.
"""


def has_one_writer(alias: str) -> bool:
    """Whether one transaction at a time may write to this database, as on SQLite."""
    return not connections[alias].features.has_select_for_update


def waits_before_it_looks(alias: str) -> bool:
    """Whether an UPDATE that asks who holds its row waits for the row first.

    PostgreSQL answers before it locks a row.
    """
    return connections[alias].vendor != "postgresql"


def take(alias: str, key: str, todo: Bound) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """Begin a pending task that nobody has locked: its row, if it was taken, and what ``todo`` has.

    MariaDB has no UPDATE ... RETURNING.
    """
    if connections[alias].vendor != "mysql":
        taken, rows = together(alias, TAKE.bind(alias, key=key), todo)
        return taken, rows
    if not FREE.select(alias, key=key):
        return [], []
    _, taken, rows = together(alias, BEGIN.bind(alias, key=key), TASK.bind(alias, key=key), todo)
    return taken, rows


def _fenced(alias: str, key: Any, fence: Any) -> QuerySet[AsyncTask]:
    in_progress = AsyncTask.objects.using(alias).filter(status=Status.IN_PROGRESS)
    return in_progress.filter(pk=key, fence=fence)


def _take(alias: str, key: Any) -> Change:
    """It waits for nobody: whoever has the row locked may be a stopped process."""
    pending = AsyncTask.objects.using(alias).filter(pk=key, status=Status.PENDING)
    if not has_one_writer(alias):
        free = pending.select_for_update(skip_locked=True).order_by().values("pk")
        pending = AsyncTask.objects.using(alias).filter(pk__in=free)
    return Change(pending, BEGUN, returning=OF_TASK)


def _free(alias: str, key: Any) -> QuerySet[Any, Any]:
    pending = AsyncTask.objects.using(alias).filter(pk=key, status=Status.PENDING)
    return pending.select_for_update(skip_locked=True).order_by().values_list("pk")


def _begin(alias: str, key: Any) -> Change:
    return Change(AsyncTask.objects.using(alias).filter(pk=key), BEGUN)


def _task(alias: str, key: Any) -> QuerySet[Any, Any]:
    return AsyncTask.objects.using(alias).filter(pk=key).order_by().values_list(*OF_TASK)


def _todo(alias: str, may_be_forgotten: bool, key: Any) -> Any:
    items = TaskItem.objects.using(alias).filter(task_id=key, status=TaskItem.Status.TODO)
    todo = items.order_by("pk").values_list(*OF_ITEM)
    return commit_without_waiting(todo) if may_be_forgotten else todo


def _first_pulse(alias: str, lease_seconds: int, key: Any) -> TaskPulse:
    until = clock_plus(lease_seconds)
    return TaskPulse(task_id=key, fence=1, lease_until=until, beat_at=DatabaseClock())


def _hold_fence(alias: str, lease_seconds: int | None, key: Any, fence: Any) -> Any:
    mine = _fenced(alias, key, fence)
    if has_one_writer(alias):
        return Change(mine, {"fence": F("fence")})  # a write takes the only lock there is
    locked = mine.select_for_update().order_by().values_list("pk")
    return locked if lease_seconds is None else limit_idleness(locked, lease_seconds)


def _item_is_done(alias: str, pk: Any) -> Change:
    done = {"status": TaskItem.Status.DONE, "error": "", "returned": None}
    todo = TaskItem.objects.using(alias).filter(pk=pk, status=TaskItem.Status.TODO)
    return Change(todo, done)


def _task_is_done(alias: str, key: Any, fence: Any) -> Change:
    done = {"status": Status.SUCCESS, "error": "", "finished_at": DatabaseClock()}
    return Change(_fenced(alias, key, fence), done)


TAKE = Compiled(_take, key=str)
FREE = Compiled(_free, key=str)
BEGIN = Compiled(_begin, key=str)
TASK = Compiled(_task, key=str)
TODO = Compiled(_todo, key=str)
FIRST_PULSE = Compiled(_first_pulse, key=str)
HOLD_FENCE = Compiled(_hold_fence, key=str, fence=int)
ITEM_IS_DONE = Compiled(_item_is_done, pk=int)
TASK_IS_DONE = Compiled(_task_is_done, key=str, fence=int)
