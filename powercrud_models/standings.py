"""How tasks stand, read for a whole page of them at once: for lists and pages that show tasks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, F, Q
from django.utils.translation import gettext

from powercrud_models.clock import DatabaseClock
from powercrud_models.models import AsyncTask, TaskItem, TaskPulse
from powercrud_models.types import TaskProgress

Status = AsyncTask.Status
TODO, FAILED = TaskItem.Status.TODO, TaskItem.Status.FAILED


@dataclass(kw_only=True)
class Standing:
    """A task, and what the rows beside its own said of it at one time."""

    task: AsyncTask
    counts: dict[str, int] = field(default_factory=dict)
    """How many items there are of each status."""
    item_is_at_work: bool = False
    """Whether the item whose steps the pulse counts is still to do."""
    pulse: Any = None
    """Its TaskPulse, with the database's time in ``now`` and the task's ``status`` by then; None
    before the first claim."""

    @property
    def items(self) -> int:
        return sum(self.counts.values())

    @property
    def progress(self) -> TaskProgress:
        """How far it has come."""
        total = self.items
        ended, at_work = total - self.counts.get(TODO, 0), self.item_is_at_work
        if not total:  # a hold is one unit, done when its block has ended
            total, ended, at_work = 1, int(not self._is_running), self._is_running
        # of a try that is over its steps are worth nothing
        steps = self.pulse if at_work and self._is_running else None
        return TaskProgress(
            items_done=ended,
            items_total=total,
            items_failed=self.counts.get(FAILED, 0),
            current=steps.current if steps else 0,
            total=steps.total if steps else None,
            pulse_age=self._pulse_age,
        )

    @property
    def _pulse_age(self) -> float | None:
        return (self.pulse.now - self.pulse.beat_at).total_seconds() if self.pulse else None

    @property
    def _is_running(self) -> bool:
        return self.pulse is not None and self.pulse.status == Status.IN_PROGRESS

    @property
    def step(self) -> str:
        """Where the ``progress()`` loop of the item at work is; empty without one."""
        progress = self.progress
        if not (progress.current or progress.total):
            return ""
        if progress.total is None:
            return str(progress.current)
        return gettext("%(step)d of %(all)d") % {"step": progress.current, "all": progress.total}

    @property
    def sign_of_life(self) -> str:
        """How old the pulse of a task in progress is; empty for others, whose pulses are over."""
        age = self._pulse_age
        if age is None or not self._is_running:
            return ""
        ago = gettext("%(seconds)d s ago") % {"seconds": max(0, int(age))}
        if self.pulse.lease_until >= self.pulse.now:
            return ago
        return gettext("%(ago)s; its lease has run out") % {"ago": ago}


def standings(tasks: Collection[AsyncTask], alias: str | None) -> dict[str, Standing]:
    """How each of the tasks stands, by its key: two queries, however many there are."""
    found = {task.key: Standing(task=task) for task in tasks}
    pulses = TaskPulse.objects.using(alias).filter(pk__in=found)
    for pulse in pulses.annotate(
        now=DatabaseClock(), status=F("task__status")
    ):  # before the items: what it counts may end in between, not begin
        found[pulse.task_id].pulse = pulse
    begun = [each.pulse.item_id for each in found.values() if each.pulse is not None]
    items = TaskItem.objects.using(alias).filter(task_id__in=found).values("task_id", "status")
    at_work = Count("pk", filter=Q(status=TODO, pk__in=begun))
    for row in items.annotate(count=Count("pk"), at_work=at_work):
        standing = found[row["task_id"]]
        standing.counts[row["status"]] = row["count"]
        standing.item_is_at_work |= bool(row["at_work"])
    return found
