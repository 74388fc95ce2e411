"""For how long the tasks of dead workers keep what they hold."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from benchmarks.files import tell
from benchmarks.journal import Claimed, Journal
from benchmarks.processes import Process
from powercrud_models.models import AsyncTask

GRACE_SECONDS = 1.0
"""A claim of which no worker has told by then was made by one that died at once."""
WORTH_TELLING = 8.0
"""A task that a dead worker keeps for so long is worth a look at what happened meanwhile."""

Seconds = dict[Claimed, float]


@dataclass
class Held:
    """Adds up the time during which somebody could have taken a task over, and nobody did."""

    journal: Journal
    by_dead: Seconds = field(default_factory=lambda: defaultdict(float))
    by_stopped: Seconds = field(default_factory=lambda: defaultdict(float))
    waiting: Seconds = field(default_factory=lambda: defaultdict(float))
    _seen: Seconds = field(default_factory=lambda: defaultdict(float))

    def look(self, seconds: float, processes: dict[str, list[Process]]) -> None:
        """Count these seconds, if a worker ran in them; these were the processes."""
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
        if all(worker.is_stopped for worker in processes.get("worker", [])):
            return
        for claimed in pending:
            self.waiting[claimed] += seconds
        for claimed, pid in in_progress.items():
            self._seen[claimed] += seconds
            if pid is None and self._seen[claimed] < GRACE_SECONDS:
                continue
            if pid not in states:
                self.by_dead[claimed] += seconds
                if self.by_dead[claimed] - seconds < WORTH_TELLING <= self.by_dead[claimed]:
                    tell(
                        f"held by {pid}, dead, for {WORTH_TELLING} s: {claimed}; {_said(processes)}"
                    )
            elif states[pid].is_stopped:
                self.by_stopped[claimed] += seconds


def _said(processes: dict[str, list[Process]]) -> str:
    return ", ".join(
        f"{role} {each.pid}{' (stopped)' if each.is_stopped else ''}"
        for role, members in processes.items()
        for each in members
    )
