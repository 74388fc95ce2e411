"""Kills and stops processes of a cluster and of the web process, at random, by their ids."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.cluster import Cluster
from benchmarks.files import folder, size, tell
from benchmarks.processes import Group, processes_of_group, until

CHANCES = {
    ("worker", "SIGKILL"): 12,
    ("worker", "SIGTERM"): 4,
    ("worker", "SIGSTOP"): 12,
    ("pusher", "SIGKILL"): 2,
    ("pusher", "SIGTERM"): 1,
    ("pusher", "SIGSTOP"): 1,
    ("monitor", "SIGKILL"): 1,
    ("monitor", "SIGTERM"): 1,
    ("monitor", "SIGSTOP"): 1,
    ("sentinel", "SIGKILL"): 1,
    ("sentinel", "SIGTERM"): 1,
    ("sentinel", "SIGSTOP"): 1,
    ("cluster", "SIGKILL"): 1,
    ("cluster", "SIGTERM"): 1,
    ("cluster", "SIGSTOP"): 1,
    ("web", "SIGKILL"): 3,
    ("web", "SIGSTOP"): 1,
}
SHORT, LONG = (0.2, 0.8), (1.2, 1.6)
"""How long a process stays stopped, in leases: it keeps its task, or loses it."""
TRIES = 10
COMMIT_SECONDS = 0.5
BUSY, BUSY_SECONDS = 0.8, 0.5
LOCK_SECONDS = 0.6
"""Within which a living writer ends its transaction, which is longer than any work."""


@dataclass
class Monkey:
    """Strikes when told to, and lets what it has stopped go on when its time has come."""

    random: Random
    lease: float
    sqlite: Path | None
    """The database, if stopping one of its writers would stop all others."""
    at_work: Callable[[], set[int]]
    """The processes that have a task in hand: the workers to be struck, more often than not."""
    strikes: Counter[tuple[str, str]] = field(default_factory=Counter)
    _stopped: list[tuple[float, Sequence[int]]] = field(default_factory=list)

    @property
    def has_stopped_some(self) -> bool:
        return bool(self._stopped)

    def strike(self, cluster: Cluster, web: Group | None) -> tuple[str, str] | None:
        """Pick a process and a signal until there is one to hit, and return them."""
        for _ in range(TRIES):
            [(whom, how)] = self.random.choices(list(CHANCES), list(CHANCES.values()))
            pids = self._pids(whom, how, cluster, web)
            if pids and self._hit(pids, how, is_web=whom == "web"):
                self.strikes[whom, how] += 1
                tell(f"{how} {whom} {pids}")
                return whom, how
        return None

    def let_go(self, *, all_of_them: bool = False) -> None:
        """Wake up the stopped processes whose time is over, or all."""
        now = time.monotonic()
        for when, pids in list(self._stopped):
            if all_of_them or when <= now:
                _send(pids, signal.SIGCONT)
                self._stopped.remove((when, pids))

    def _pids(self, whom: str, how: str, cluster: Cluster, web: Group | None) -> list[int]:
        if whom == "web":
            return list(web.members) if web else []
        if whom == "cluster" and how != "SIGTERM":
            return list(cluster.group.members)
        role = "main" if whom == "cluster" else whom
        pids = [each.pid for each in cluster.processes().get(role, []) if not each.is_stopped]
        if whom == "worker" and self.random.random() < BUSY:
            pids = self._busy(pids)
        return [self.random.choice(pids)] if pids else []

    def _busy(self, workers: list[int]) -> list[int]:
        """Those that have a task in hand, as soon as one has; all, if none gets any."""
        found: list[int] = []
        with suppress(TimeoutError):
            until(lambda: self.at_work() & {*workers}, "a worker had a task", BUSY_SECONDS)
            found = sorted(self.at_work() & {*workers})
        return found or workers

    def _hit(self, pids: list[int], how: str, *, is_web: bool) -> bool:
        if how == "SIGSTOP":
            return self._stop(pids)
        if is_web:
            _wait_for_a_commit()
        _send(pids, signal.Signals[how])
        return True

    def _stop(self, pids: list[int]) -> bool:
        _send(pids, signal.SIGSTOP)
        groups = {os.getpgid(pid) for pid in pids if _exists(pid)}
        with suppress(TimeoutError):
            until(lambda: _all_stopped(pids, groups), "the processes stopped", 1)
        if self.sqlite and not _is_free(self.sqlite):
            _send(pids, signal.SIGCONT)
            return False
        leases = self.random.uniform(*self.random.choice([SHORT, LONG, LONG]))
        self._stopped.append((time.monotonic() + leases * self.lease, pids))
        return True


def _send(pids: Sequence[int], what: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, what)


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _all_stopped(pids: Sequence[int], groups: set[int]) -> bool:
    living = {pid: each for group in groups for pid, each in processes_of_group(group).items()}
    return all(living[pid].is_stopped for pid in pids if pid in living)


def _is_free(database: Path) -> bool:
    """Whether none of the stopped has SQLite's write lock: a living one would give it back."""
    with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
        deadline = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < deadline:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                time.sleep(0.002)
            else:
                connection.execute("ROLLBACK")
                return True
    return False


def _wait_for_a_commit() -> None:
    """Between it and the sending of the message, if one comes soon."""
    commits = folder() / "commits"
    before = size(commits)
    committed: Callable[[], bool] = lambda: size(commits) > before  # noqa: E731
    with suppress(TimeoutError):
        until(committed, "the web process committed", COMMIT_SECONDS)
