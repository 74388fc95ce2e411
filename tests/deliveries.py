"""What queues and workers do to a task, done by a test: deliver, lose, die, be late."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction
from django.db.models import Model
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.models import OrmQ

from powercrud_models import AsyncModelMixin
from powercrud_models.clock import clock_plus
from powercrud_models.lifecycle import Claim, claim
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem, TaskPulse
from powercrud_models.types import ObjectKey

TABLES: tuple[type[Model], ...] = (AsyncTask, TaskItem, ObjectLock, TaskPulse, OrmQ)
"""Where a launch may leave something: the four tables, and django-q2's messages."""


def rows() -> dict[str, list[object]]:
    """All that stands in these tables."""
    return {table.__name__: list(table._base_manager.order_by("pk").values()) for table in TABLES}


NOTHING: dict[str, list[object]] = {table.__name__: [] for table in TABLES}


def messages() -> list[str]:
    """The keys of the tasks that the broker has messages for, in their order."""
    return [message.task["args"][0] for message in OrmQ.objects.order_by("pk")]


def deliver() -> int:
    """Call what the broker's messages name, as a cluster does; return how many there were."""
    waiting = list(OrmQ.objects.order_by("pk"))
    for message in waiting:
        message.delete()
        import_string(message.task["func"])(*message.task["args"], **message.task["kwargs"])
    return len(waiting)


def lose_messages() -> None:
    """What a broker without a disk does when it is killed."""
    OrmQ.objects.all().delete()


def expire_lease(task_key: str) -> None:
    """As if the task's worker had given no sign of life for longer than a lease."""
    assert TaskPulse.objects.filter(pk=task_key).update(lease_until=clock_plus(-1)) == 1


def make_overdue(task_key: str) -> None:
    """As if the task had waited for its worker too long."""
    assert AsyncTask.objects.filter(pk=task_key).update(resend_at=clock_plus(-1)) == 1


def die(task: AsyncTask) -> Claim:
    """A worker claims the task and is never heard of again."""
    taken = claim(task.key)
    assert taken is not None
    expire_lease(task.key)
    return taken


def wait_of(task: AsyncTask) -> float:
    """Seconds until the sweep would send the task."""
    task.refresh_from_db()
    return (task.resend_at - timezone.now()).total_seconds()


def task_of(obj: AsyncModelMixin) -> AsyncTask:
    """The task that the last save of this instance launched."""
    assert obj.async_task is not None
    return obj.async_task


def held_by(task_key: str) -> set[ObjectKey]:
    """What the task has locked."""
    locks = ObjectLock.objects.filter(task_id=task_key)
    return {ObjectKey(*lock) for lock in locks.values_list("model", "object_id")}


@contextmanager
def undone() -> Iterator[None]:
    """A transaction, or a savepoint in one, that is rolled back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)
