"""``progress()``: never a lie, never in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction

from powercrud_models import progress
from powercrud_models.context import Steps, current_run
from powercrud_models.lifecycle import claim, renew
from powercrud_models.models import AsyncTask, ObjectLock, TaskPulse
from powercrud_models.types import TaskProgress
from tests.kinds.models import Part, Project


@pytest.fixture
def project(db) -> Project:
    """A project with two parts, which no save has written."""
    [project] = Project.objects.bulk_create([Project(name="p")])
    Part.objects.bulk_create([Part(name="a", project=project), Part(name="b", project=project)])
    return project


@pytest.fixture
def script(monkeypatch) -> Callable[[Callable[[Project], object]], None]:
    """Makes a function the work of projects."""

    def script(work: Callable[[Project], object]) -> None:
        monkeypatch.setattr(Project, "script", staticmethod(work))

    return script


@pytest.fixture
def seen(async_off, project, script) -> Callable[..., tuple[list[Any], AsyncTask]]:
    """What the progress of a task looks like at each step of a loop, and after it."""

    def run(iterable: Any, **arguments: Any) -> tuple[list[Any], AsyncTask]:
        seen: list[Any] = []

        def work(project) -> None:
            live = current_run().live
            steps = progress(iterable, **arguments)
            seen.extend((live.current, live.total) for _ in steps)
            seen.append((live.current, live.total))

        script(work)
        return seen, project.rebuild.enqueue()

    return run


def generated() -> Iterator[str]:
    yield from "abc"


@pytest.mark.parametrize(
    ("iterable", "total", "expected"),
    [
        ("abc", None, [(0, 3), (1, 3), (2, 3), (3, 3)]),
        ("abc", 3, [(0, 3), (1, 3), (2, 3), (3, 3)]),
        ("abc", 2, [(0, 2), (1, 2), (2, 2), (3, 3)]),
        ("abc", 1, [(0, 1), (1, 1), (2, None), (3, 3)]),
        ("abc", 0, [(0, 0), (1, None), (2, None), (3, 3)]),
        ("abc", 100, [(0, 100), (1, 100), (2, 100), (3, 3)]),
        (range(0), None, [(0, 0)]),
        (range(0), 5, [(0, 0)]),
        ({"a": 1}, None, [(0, 1), (1, 1)]),
    ],
)
def test_a_total_that_is_wrong_shows_no_more_than_there_is(seen, iterable, total, expected) -> None:
    found, task = seen(iterable, total=total)
    assert found == expected
    assert (task.status, task.progress.fraction) == ("success", 1.0)


def test_progress_over_a_generator(seen) -> None:
    found, task = seen(generated())
    assert found == [(0, None), (1, None), (2, None), (3, 3)]
    assert task.status == "success"


def test_progress_over_a_generator_with_a_total(seen) -> None:
    assert seen(generated(), total=3)[0] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_progress_over_a_queryset_is_one_query(
    async_off, project, script, django_assert_num_queries
) -> None:
    names: list[Any] = []

    def work(project) -> None:
        with django_assert_num_queries(1):
            parts = progress(project.parts.order_by("pk"))
            names.extend((part.name, current_run().live.total) for part in parts)

    script(work)
    project.rebuild()
    assert names == [("a", 2), ("b", 2)]


@pytest.mark.parametrize("total", [-1, -100])
def test_a_negative_total(total) -> None:
    with pytest.raises(ValueError, match=rf"progress\(total={total}\): .* not negative"):
        progress("abc", total=total)


@pytest.mark.django_db(transaction=True)
def test_what_it_refuses_fails_the_task(immediate, script) -> None:
    script(lambda project: progress("abc", total=-1))
    project = Project.objects.create(name="p")
    assert project.async_task.status == "failed"
    assert "progress(total=-1)" in project.async_task.error
    assert not ObjectLock.objects.exists()


@pytest.mark.parametrize("total", ["3", 2.5, [], object()])
def test_a_total_that_is_no_number_of_steps(total) -> None:
    with pytest.raises(
        TypeError, match=r"progress\(total=.*\): a number of steps is a whole number"
    ):
        progress("abc", total=total)


@pytest.mark.parametrize(
    "thing", [3, None, object(), Project.objects, Project, lambda: "abc"], ids=repr
)
def test_what_cannot_be_iterated(thing) -> None:
    with pytest.raises(TypeError, match=r"progress\(\) goes over an iterable, not "):
        progress(thing)


def test_of_nested_loops_the_outermost_is_shown(async_off, project, script) -> None:
    seen: list[Any] = []

    def work(project) -> None:
        live = current_run().live
        seen.extend(
            (outer, inner, innermost, live.current, live.total)
            for outer in progress("ab")
            for inner in progress(range(100), total=1000)
            for innermost in progress(generated())
        )
        seen.extend((again, live.current, live.total) for again in progress("xyz"))

    script(work)
    assert project.rebuild.enqueue().status == "success"
    assert seen[:-3] == [
        (outer, inner, innermost, place, 2)
        for place, outer in enumerate("ab")
        for inner in range(100)
        for innermost in "abc"
    ]
    assert seen[-3:] == [("x", 0, 3), ("y", 1, 3), ("z", 2, 3)]


def test_a_loop_that_is_left_lets_the_next_one_be_shown(async_off, project, script) -> None:
    seen: list[Any] = []

    def work(project) -> None:
        live = current_run().live
        for _ in progress(range(10)):
            break
        with pytest.raises(ZeroDivisionError):
            _ = [1 / step for step in progress(range(10))]
        seen.extend((live.current, live.total) for _ in progress("ab"))

    script(work)
    assert project.rebuild.enqueue().status == "success"
    assert seen == [(0, 2), (1, 2)]


def test_outside_of_a_task_it_is_the_iterable(project) -> None:
    assert list(progress("abc")) == ["a", "b", "c"]
    assert list(progress(generated())) == ["a", "b", "c"]
    assert list(progress("abc", total=1)) == ["a", "b", "c"]
    assert [part.name for part in progress(project.parts.order_by("pk"))] == ["a", "b"]
    assert [(a, b) for a in progress("ab") for b in progress("cd", total=9)] == [
        ("a", "c"),
        ("a", "d"),
        ("b", "c"),
        ("b", "d"),
    ]
    assert list(progress(())) == []


def test_it_has_the_length_that_is_known() -> None:
    assert len(progress("abc")) == 3
    assert len(progress(generated(), total=7)) == 7
    with pytest.raises(TypeError, match="without a length"):
        len(progress(generated()))


@pytest.mark.django_db(transaction=True)
def test_items_start_from_nothing(immediate, script) -> None:
    seen: list[Any] = []

    def work(project) -> None:
        seen.append((current_run().live.current, current_run().live.total))
        for _ in progress("abc"):
            pass

    script(work)
    with transaction.atomic():
        for name in "ab":
            Project(name=name).save()
    assert seen == [(0, None), (0, None)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("steps", [2**31, 2**63, 10**30])
def test_more_steps_than_a_column_can_count_are_a_sign_of_life(queued, project, steps) -> None:
    project.save()
    claimed = claim(project.async_task.key)
    assert claimed is not None
    TaskPulse.objects.update(lease_until="2000-01-01T00:00Z")
    item = claimed.items[0].pk
    assert renew(claimed, Steps(item=item, current=steps - 1, total=steps))
    assert not TaskPulse.objects.filter(lease_until__lt="2001-01-01T00:00Z").exists()
    assert 0.9 < project.async_task.progress.fraction < 1


@pytest.mark.parametrize("done", [0, 1, 2])
@pytest.mark.parametrize("total", [None, 0, 1, 10])
@pytest.mark.parametrize("current", [0, 1, 9, 10, 11, 10**9])
def test_the_fraction_is_1_only_at_the_end(done, current, total) -> None:
    shown = TaskProgress(
        items_done=done, items_total=2, current=current, total=total, pulse_age=None
    )
    assert 0.0 <= shown.fraction <= 1.0
    assert (shown.fraction == 1.0) == (done == 2)
    assert done / 2 <= shown.fraction
    assert ("100%" in str(shown)) == (done == 2)


def test_the_fraction_of_nothing_to_do() -> None:
    nothing = TaskProgress(items_done=0, items_total=0, current=5, total=5, pulse_age=None)
    assert nothing.fraction == 0.0
