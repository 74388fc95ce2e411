"""For how long the tasks of dead workers keep what they hold."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.journal import Claimed, Journal
from benchmarks.processes import Process
from powercrud_models.models import AsyncTask

GRACE_SECONDS = 1.0
"""A claim of which no worker has told by then was made by one that died at once."""


Seconds = dict[Claimed, float]


@dataclass
class Held:
    """Adds up the time during which somebody could have taken a task over, and nobody did."""

    journal: Journal
    by_dead: Seconds = field(default_factory=lambda: defaultdict(float))
    by_stopped: Seconds = field(default_factory=lambda: defaultdict(float))
    waiting: Seconds = field(default_factory=lambda: defaultdict(float))
    _seen: Seconds = field(default_factory=lambda: defaultdict(float))
    _before: list[Seconds] = field(default_factory=list)

    def keep(self) -> None:
        """The cluster has taken a message: until now it could."""
        self._before = [dict(counter) for counter in self._counters]

    def forget(self) -> None:
        """It has hung since then: nobody could have taken anything."""
        for counter, before in zip(self._counters, self._before, strict=False):
            counter.clear()
            counter.update(before)

    @property
    def _counters(self) -> tuple[Seconds, ...]:
        return self.by_dead, self.by_stopped, self.waiting

    def look(self, seconds: float, processes: dict[str, list[Process]]) -> None:
        """Count these seconds, in which these processes were there to take tasks."""
        states = {each.pid: each for role in processes.values() for each in role}
        unfinished = AsyncTask.objects.filter(status__in=AsyncTask.UNFINISHED)
        in_progress: dict[Claimed, int | None] = {}
        pending = []
        for key, fence, status in unfinished.values_list("key", "fence", "status"):
            claimed = Claimed(key, fence)
            if status == AsyncTask.Status.IN_PROGRESS:
                in_progress[claimed] = self.journal.claimer(claimed)
            else:
                pending.append(claimed)
        if not can_take_tasks(processes, busy=set(in_progress.values())):
            return
        for claimed in pending:
            self.waiting[claimed] += seconds
        for claimed, pid in in_progress.items():
            self._seen[claimed] += seconds
            if pid is None and self._seen[claimed] < GRACE_SECONDS:
                continue
            if pid not in states:
                self.by_dead[claimed] += seconds
            elif states[pid].is_stopped:
                self.by_stopped[claimed] += seconds


def can_take_tasks(processes: dict[str, list[Process]], busy: set[int | None]) -> bool:
    """Whether a worker that runs can get a message.

    It cannot while the pusher is gone, nor while an idle worker is stopped: it may have the lock
    of the queue between pusher and workers.
    """
    workers = processes.get("worker", [])
    pushers = processes.get("pusher", [])
    return (
        any(not worker.is_stopped for worker in workers)
        and any(not pusher.is_stopped for pusher in pushers)
        and not any(worker.is_stopped and worker.pid not in busy for worker in workers)
        and bool(processes.get("main"))
        and bool(processes.get("sentinel"))
    )
