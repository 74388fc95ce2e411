"""What ``benchmarks.throughput`` runs where there is a database."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from pathlib import Path

from django.db import connection
from django_q.models import OrmQ, Task
from django_q.tasks import async_task

from benchmarks.brokers import check_broker, clear_broker
from benchmarks.cluster import STOP_SECONDS, Cluster
from benchmarks.contenders import CONTENDERS, OURS, WORKERS, Result
from benchmarks.files import folder, size
from benchmarks.journal import RECORDS
from benchmarks.processes import until
from benchmarks.shop.models import NoOp
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem, TaskPulse

WRITTEN = (AsyncTask, TaskItem, ObjectLock, TaskPulse, OrmQ, Task, NoOp)
PAUSE_SECONDS = 0.002
"""Between two looks at how many have ended."""
MOST_SECONDS = 300

_starts = count(1)


def run(tasks: int, rounds: int) -> list[dict[str, Result]]:
    """For each round, what each contender reached; who goes first changes."""
    check_broker()
    order = deque(CONTENDERS)
    results = []
    for _ in range(rounds):
        results.append({name: _measure(name, tasks) for name in order})
        order.rotate()
    return results


def _measure(name: str, tasks: int) -> Result:
    _clean()
    (_launch if name == OURS else _enqueue)(tasks)
    cluster = Cluster(folder() / f"cluster-{next(_starts)}.log", CONTENDERS[name], journal=RECORDS)
    try:
        ends, records = folder() / "ends", folder() / RECORDS
        rates = _rates(tasks, cluster, ends, ends if name == OURS else records)
        fault = _fault(tasks) if name == OURS else ""
        _stop(cluster)
    finally:
        cluster.group.kill()
        clear_broker()
    return Result(rates[1], rates[0], fault)


def _launch(tasks: int) -> None:
    for number in range(tasks):
        NoOp(number=number).save()


def _enqueue(tasks: int) -> None:
    for number in range(tasks):
        async_task("benchmarks.shop.models.end_of_no_op", number)


def _rates(tasks: int, cluster: Cluster, *files: Path) -> list[float]:
    """Tasks per second, from the end of the first tenth of them to the end of the last one.

    Each of the files grows by a byte for each task.
    """
    first = tasks // 10
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    deadline = time.perf_counter() + MOST_SECONDS
    while len(ended) < len(files):
        time.sleep(PAUSE_SECONDS)
        now = time.perf_counter()
        for place, file in enumerate(files):
            if size(file) >= first:
                begun.setdefault(place, now)
            if size(file) >= tasks:
                ended.setdefault(place, now)
        if now > deadline:
            sizes = [size(file) for file in files]
            raise TimeoutError(f"{sizes} of {tasks} tasks ended:\n{cluster.tail()}")
    return [(tasks - first) / (ended[place] - begun[place]) for place in range(len(files))]


def _fault(tasks: int) -> str:
    """What is not as it has to be, once the last task has been committed."""
    unfinished = AsyncTask.objects.filter(status__in=AsyncTask.UNFINISHED)
    succeeded = AsyncTask.objects.filter(status=AsyncTask.Status.SUCCESS)
    try:
        until(lambda: not unfinished.exists(), "all tasks ended")
    except TimeoutError:
        return f"{unfinished.count()} tasks have not ended"
    if succeeded.count() != tasks:
        return f"{succeeded.count()} of {tasks} tasks succeeded"
    if ObjectLock.objects.exists():
        return f"{ObjectLock.objects.count()} objects are still locked"
    done = size(folder() / "ends")
    return "" if done == tasks else f"{done} runs of {tasks} tasks"


def _stop(cluster: Cluster) -> None:
    """In order, as far as that is quick."""
    cluster.wait_until_complete(WORKERS)
    main = cluster.group.program
    if main is not None:
        os.kill(main, signal.SIGTERM)
    has_ended: Callable[[], bool] = lambda: not cluster.group.members  # noqa: E731
    until(has_ended, "the cluster ended in order", STOP_SECONDS)


def _clean() -> None:
    """No rows, and no dead ones to step over, are left from what ran before."""
    for name in ("ends", RECORDS):
        (folder() / name).unlink(missing_ok=True)
    for model in WRITTEN:
        with connection.cursor() as cursor:
            cursor.execute(f'DELETE FROM "{model._meta.db_table}"')
            if connection.vendor == "postgresql":
                cursor.execute(f'VACUUM ANALYZE "{model._meta.db_table}"')
