"""What ``benchmarks.chaos`` runs where there is a database: tasks, and what kills their workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from django.db import connection
from django.db.models import Sum

from benchmarks import journal, web
from benchmarks.brokers import check_broker, clear_broker
from benchmarks.files import folder
from benchmarks.held import Held, Seconds
from benchmarks.monkey import Monkey
from benchmarks.outcome import Outcome
from benchmarks.processes import Group, Process
from benchmarks.settings import environment_of_child
from benchmarks.shop.models import Delivery, Parcel
from benchmarks.supervisor import Supervisor
from powercrud_models.conf import get_conf
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem

TICK_SECONDS = 0.1
SECONDS_PER_TASK = 3
CALM_SECONDS = 120
"""How long it waits, without killing, for what is unfinished when the time for killing is over."""


def run(tasks: int, kill_every: float, seed: int, keep: str) -> Outcome:
    """Launch so many tasks, kill processes meanwhile, and count."""
    check_broker()
    chaos = Chaos(tasks, kill_every, seed)
    try:
        chaos.go_on()
        forced = chaos.supervisor.end()
    finally:
        chaos.clean_up(keep)
    return chaos.outcome(forced=forced)


class Chaos:
    """One run of it."""

    def __init__(self, tasks: int, kill_every: float, seed: int) -> None:
        self.tasks = tasks
        self._kill_every = kill_every
        self._random = Random(seed)
        self._environment = {
            **environment_of_child(),
            web.TASKS: str(tasks),
            web.SEED: str(seed),
        }
        name = connection.settings_dict["NAME"]
        database = Path(name) if connection.vendor == "sqlite" else None
        self._monkey = Monkey(self._random, get_conf().LEASE_SECONDS, database, self._busy)
        self._held = Held(journal.Journal())
        self._web: Group | None = None
        self._begun = time.monotonic()
        self.supervisor = Supervisor()

    def go_on(self) -> None:
        """Until every task has ended, or the time is over."""
        last = self._begun
        next_strike = last + self._kill_every
        killing_ends = last + 60 + SECONDS_PER_TASK * self.tasks
        claims = 0
        while not self._all_ended() and time.monotonic() < killing_ends + CALM_SECONDS:
            time.sleep(TICK_SECONDS)
            self._monkey.let_go(all_of_them=last > killing_ends)
            self._keep_web()
            processes = self.supervisor.cluster.processes()
            now = time.monotonic()
            if not self.supervisor.is_stopping:
                self._held.look(now - last, processes)
            last = now
            if len(self._held.journal) > claims:
                claims = len(self._held.journal)
                self.supervisor.lively()
            self.supervisor.look(
                may_hang=not self._monkey.has_stopped_some and not self._at_work(processes)
            )
            if next_strike < now < killing_ends and self._is_worth_it(now - next_strike):
                struck = self._monkey.strike(self.supervisor.cluster, self._web)
                if struck == ("cluster", "SIGTERM"):
                    self.supervisor.stopping()
                next_strike = now + self._kill_every * self._random.uniform(0.5, 1.5)
        self._monkey.let_go(all_of_them=True)

    def _is_worth_it(self, overdue: float) -> bool:
        """Whether there are workers to be struck; a cluster that starts is seldom struck, too."""
        return self.supervisor.cluster.is_complete or overdue > self._kill_every

    def clean_up(self, keep: str) -> None:
        """Leave no process, and no message."""
        self.supervisor.cluster.group.kill()
        if self._web is not None:
            self._web.kill()
        clear_broker()
        if keep:
            Path(keep).mkdir(parents=True, exist_ok=True)
            for file in [*folder().glob("*.log"), folder() / journal.CLAIMS]:
                Path(keep, file.name).write_bytes(file.read_bytes())

    def _at_work(self, processes: dict[str, list[Process]]) -> bool:
        """Whether a living worker has a task in hand."""
        return not self._busy().isdisjoint(worker.pid for worker in processes.get("worker", []))

    def _busy(self) -> set[int]:
        """The processes, dead or alive, that have claimed what is in progress."""
        rows = AsyncTask.objects.filter(status=AsyncTask.Status.IN_PROGRESS)
        claimers = (
            self._held.journal.claimer(journal.Claimed(*row))
            for row in rows.values_list("key", "fence")
        )
        return {pid for pid in claimers if pid is not None}

    def _keep_web(self) -> None:
        if self._web is None or (self._web.program is None and not self._all_launched()):
            if self._web is not None:
                self.supervisor.restarts["web process had died"] += 1
                self._web.kill()
            self._web = Group("benchmarks.web", self._environment, folder() / "web.log")

    def _all_launched(self) -> bool:
        return Delivery._base_manager.values("order").distinct().count() == self.tasks

    def _all_ended(self) -> bool:
        unfinished = AsyncTask.objects.filter(status__in=AsyncTask.UNFINISHED)
        return self._all_launched() and not unfinished.exists()

    def outcome(self, *, forced: bool) -> Outcome:
        effects = _effects_by_order()
        said = AsyncTask.objects.aggregate(
            claims=Sum("attempts", default=0),
            recoveries=Sum("recoveries", default=0),
        )
        failed = AsyncTask.objects.filter(status=AsyncTask.Status.FAILED)
        return Outcome(
            tasks=self.tasks,
            once=sum(counts == {1} for counts in effects.values()),
            more=sum(max(counts) > 1 for counts in effects.values()),
            never=self.tasks - sum(0 not in counts for counts in effects.values()),
            failed=failed.count(),
            unfinished=AsyncTask.objects.filter(status__in=AsyncTask.UNFINISHED).count(),
            locks=ObjectLock.objects.count(),
            false_successes=sum(1 for _ in _false_successes()),
            held_by_dead=_longest(self._held.by_dead),
            held_by_stopped=_longest(self._held.by_stopped),
            waiting=_longest(self._held.waiting),
            strikes={f"{whom} {how}": times for (whom, how), times in self._monkey.strikes.items()},
            restarts=dict(self.supervisor.restarts),
            seconds=time.monotonic() - self._begun,
            stopped_by_force=forced,
            errors=[error or "?" for error in failed.values_list("error", flat=True)[:3]],
            **said,
        )


def _longest(seconds: Seconds) -> float:
    return max(seconds.values(), default=0.0)


def _effects_by_order() -> dict[int, set[int]]:
    """How often each effect of each task was seen: {1} is once and only once."""
    effects: dict[int, set[int]] = {}
    for order, times in Delivery._base_manager.values_list("order", "effects"):
        effects.setdefault(order, set()).add(times)
    for order, times in Parcel._base_manager.values_list("delivery__order", "effects"):
        effects[order].add(times)
    return effects


def _false_successes() -> Iterator[str]:
    """Tasks that say success, with an item that is not done, or without its effect."""
    counted = {str(pk): n for pk, n in Delivery._base_manager.values_list("pk", "effects")}
    for task in AsyncTask.objects.filter(status=AsyncTask.Status.SUCCESS):
        items = TaskItem.objects.filter(task_id=task.key)
        if any(
            item.status != TaskItem.Status.DONE or not counted.get(item.object_id) for item in items
        ):
            yield task.key
