"""What locks are in danger of: said by ``check --deploy``, and of Redis in the log, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from powercrud_models.models import AsyncTask, ObjectLock, TaskItem

if TYPE_CHECKING:
    from powercrud_models.stores.base import Store
    from powercrud_models.stores.server import Server


class Danger(NamedTuple):
    """Something that may lose locks, and what to do about it."""

    check_id: str
    said: str
    hint: str

    def __str__(self) -> str:
        return f"{self.said} {self.hint}"


def dangers_of(server: Server) -> Iterator[Danger]:
    """What is wrong with a Redis server that keeps locks, or with the way to it.

    Raises StoreUnavailable when it does not answer.
    """
    policy = server.info("memory").get("maxmemory_policy", "")
    if policy.startswith("allkeys"):
        yield Danger(
            "W017",
            f"Redis may evict locks when its memory is full: its maxmemory-policy is {policy!r}.",
            "Set it to 'noeviction', or to one of the 'volatile-...' policies, which leave locks "
            "alone because they do not expire.",
        )
    if server.waits_for_ever:
        yield Danger(
            "W018",
            f"The cache {server.cache_name!r} has no time-out: a Redis that hangs would stop "
            "requests, and the heartbeats of tasks.",
            "Give its OPTIONS a socket_timeout of a few seconds (django_redis: SOCKET_TIMEOUT).",
        )


def left_behind(store: Store, alias: str) -> Iterator[Danger]:
    """Whether tasks are in flight whose locks are in another store than this one."""
    locks = ObjectLock.objects.using(alias)
    if store.keeps_rows:
        open_tasks = (AsyncTask.Status.PENDING, AsyncTask.Status.IN_PROGRESS)
        items = TaskItem.objects.using(alias).filter(
            task__status__in=open_tasks, status=TaskItem.Status.TODO
        )
        found = items.exclude(task_id__in=locks.values("task_id")).exists()
        other = "redis"
    else:
        found = locks.filter(task__status__in=AsyncTask.UNFINISHED).exists()
        other = "database"
    if found:
        yield Danger(
            "W019",
            f"POWERCRUD_SETTINGS['STORE'] is {store.name!r}, but tasks are in flight that have "
            f"locked their objects in another store ({other!r}): nobody sees those locks.",
            "Go back to that store, let its tasks end, and only then change the setting.",
        )
