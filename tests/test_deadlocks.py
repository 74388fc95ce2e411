"""A deadlock that the database breaks: tried again where nothing else is lost with it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import F, Model

from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.tasks import run_task
from tests.deliveries import deliver, task_of
from tests.kinds.models import Clock, Part, Project, Tag
from tests.promises.made import effects, make_project, name_of
from tests.stage import DEADLINE, Stage, in_standard_quotes

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("queued"),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer"),
]

Status = AsyncTask.Status


def is_deadlock(error: BaseException | None) -> bool:
    return isinstance(error, OperationalError) and "deadlock" in str(error).lower()


@dataclass
class CrossWriters:
    """Two works write the same two rows, which neither has locked, from both ends."""

    order: dict[int, Sequence[int]]
    """The rows that each object's work writes."""
    attempts: Counter[int] = field(default_factory=Counter)
    met: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))

    @classmethod
    def between(cls, one: Model, other: Model) -> CrossWriters:
        project = make_project("shared", parts=2)
        parts = list(Part.objects.filter(project=project).values_list("pk", flat=True))
        return cls({one.pk: parts, other.pk: parts[::-1]})

    def write(self, obj: Model, between: Callable[[], object] = lambda: None) -> None:
        self.attempts[obj.pk] += 1
        first, second = self.order[obj.pk]
        Part.objects.filter(pk=first).update(effects=F("effects") + 1)
        between()
        if self.attempts[obj.pk] == 1:
            self.met.wait(DEADLINE)
        Part.objects.filter(pk=second).update(effects=F("effects") + 1)

    def run(self, stage: Stage, *tasks: AsyncTask) -> None:
        """Run the tasks at the same time, and look at what has become of them."""
        workers = [stage.act(partial(run_task, task.key), f"worker of {task}") for task in tasks]
        for worker in workers:
            worker.result()
        assert sorted(self.attempts.values()) == [1, 2]  # there was one deadlock
        assert [(each.status, each.error) for each in AsyncTask.objects.all()] == [
            (Status.SUCCESS, "")
        ] * len(tasks)
        written = Part.objects.filter(pk__in=next(iter(self.order.values())))
        assert set(written.values_list("effects", flat=True)) == {len(tasks)}
        assert not ObjectLock.objects.exists()


def test_work_that_a_deadlock_has_undone_is_done_again(stage: Stage) -> None:
    one, other = make_project("one"), make_project("other")
    writers = CrossWriters.between(one, other)
    Project.script = writers.write
    one.save()
    other.save()
    writers.run(stage, task_of(one), task_of(other))
    assert [effects(project) for project in (one, other)] == [1, 1]


def test_what_undone_work_had_set_in_motion_is_done_again(stage: Stage) -> None:
    one, other = Clock.objects.bulk_create([Clock(), Clock()])
    writers = CrossWriters.between(one, other)
    Clock.script = lambda clock: writers.write(clock, between=clock.save)
    writers.run(stage, one.wind.enqueue(), other.wind.enqueue())
    assert set(Clock.objects.values_list("strikes", flat=True)) == {1}


def meet_after(part_of_sql: str, barrier: threading.Barrier) -> Callable[..., Any]:
    """Wait for the other thread behind the first such statement."""
    has_met = False

    def wrapper(execute: Any, sql: str, *rest: Any) -> Any:
        nonlocal has_met
        result = execute(sql, *rest)
        if part_of_sql in in_standard_quotes(sql) and not has_met:
            has_met = True
            barrier.wait(DEADLINE)
        return result

    return wrapper


def test_a_save_that_a_deadlock_has_undone_is_tried_again(stage: Stage) -> None:
    """A save holds its own row and wants a descendant's; the other has them the other way round."""
    project = make_project(parts=1)
    part = Part.objects.get()
    project.name = "saved"
    met = threading.Barrier(2)
    updates: list[str] = []

    def count(execute: Any, sql: str, *rest: Any) -> Any:
        if in_standard_quotes(sql).startswith('UPDATE "kinds_project"'):
            updates.append(sql)
        return execute(sql, *rest)

    def save() -> None:
        with (
            connection.execute_wrapper(count),
            connection.execute_wrapper(meet_after('UPDATE "kinds_project"', met)),
        ):
            project.save()

    def write() -> None:
        with transaction.atomic():
            Part.objects.filter(pk=part.pk).update(name="written")
            # MariaDB undoes the one that has written less
            Tag.objects.bulk_create([Tag(name="much") for _ in range(50)])
            met.wait(DEADLINE)
            saver.wait_until_blocked()  # who has waited longest is the one that finds the deadlock
            Project.objects.filter(pk=project.pk).update(name="written")

    saver = stage.act(save, "saver")
    writer = stage.act(write, "writer")
    writer.result()
    saver.result()

    assert len(updates) == 2  # there was a deadlock
    assert (name_of(project), name_of(part)) == ("saved", "written")
    assert deliver() == 1
    assert task_of(project).status == Status.SUCCESS
    assert not ObjectLock.objects.exists()


def test_inside_a_larger_transaction_a_deadlock_is_the_callers(stage: Stage) -> None:
    """What came before the save is lost with it, and only the caller can repeat that."""
    parts = Part.objects.filter(project=make_project(parts=2)).order_by("pk")
    met = threading.Barrier(2)
    updates: Counter[str] = Counter()

    def save_both(name: str, first: int, second: int) -> None:
        def count(execute: Any, sql: str, *rest: Any) -> Any:
            if in_standard_quotes(sql).startswith('UPDATE "kinds_part"'):
                updates[name] += 1
            return execute(sql, *rest)

        mine = list(parts.all())  # instances of its own
        with connection.execute_wrapper(count), transaction.atomic():
            for part in mine:
                part.name = name
            mine[first].save()
            met.wait(DEADLINE)
            mine[second].save()

    actors = {
        "forth": stage.act(lambda: save_both("forth", 0, 1), "forth"),
        "back": stage.act(lambda: save_both("back", 1, 0), "back"),
    }
    errors = {name: actor.error() for name, actor in actors.items()}

    [victim] = [name for name, error in errors.items() if error is not None]
    assert is_deadlock(errors[victim])
    assert updates == {"forth": 2, "back": 2}
    [survivor] = errors.keys() - {victim}
    assert set(parts.values_list("name", flat=True)) == {survivor}
    assert AsyncTask.objects.get().items.count() == 2


@pytest.mark.parametrize(
    "delete",
    [
        pytest.param(lambda project: project.delete(), id="delete"),
        pytest.param(lambda project: Project.objects.filter(pk=project.pk).delete(), id="queryset"),
    ],
)
def test_a_delete_that_a_deadlock_has_undone_is_done_again(
    stage: Stage, delete: Callable[[Project], object]
) -> None:
    """A delete locks children first, a launch its target."""
    project = make_project("bridge", parts=1)
    locked = stage.stop()

    def call() -> None:
        with locked.at("after", "FOR UPDATE", '"kinds_part"'):
            delete(Project.objects.get(pk=project.pk))

    deleter = stage.act(call, "deleter")
    locked.wait_until_reached()
    saver = stage.act(Project.objects.get(pk=project.pk).save, "saver")
    saver.wait_until_blocked()
    locked.let_go()
    errors = [deleter.error(), saver.error()]
    assert not any(is_deadlock(error) for error in errors), errors
