"""Locks that belong to no task any more: a process has died, or Redis has not heard of the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from powercrud_models.conf import get_conf
from powercrud_models.models import AsyncTask


def void_among(ages: Mapping[str, float], alias: str) -> set[str]:
    """Holders that have acquired nothing for LEASE_SECONDS, and are no unfinished task.

    ``ages``: milliseconds since each has last acquired something. Younger ones may belong to a
    transaction that is still open, so that nobody can see their row.
    """
    lease = get_conf().LEASE_SECONDS * 1000
    idle = {task_key for task_key, age in ages.items() if age > lease}
    return idle - unfinished(idle, alias)


def unfinished(task_keys: Iterable[str], alias: str) -> set[str]:
    """Those that are tasks which have not ended."""
    keys = list(task_keys)
    if not keys:
        return set()
    tasks = AsyncTask.objects.using(alias).filter(pk__in=keys, status__in=AsyncTask.UNFINISHED)
    return set(tasks.values_list("pk", flat=True))
