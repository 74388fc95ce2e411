"""Promise 2: a task ends when all its work has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from powercrud_models import get_current_task
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.types import ObjectKey
from tests.deliveries import (
    deliver,
    held_by,
    messages,
)
from tests.kinds.models import Bolt, Part, Project
from tests.promises.made import make_project, name_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


@pytest.mark.parametrize("skip_async", [None, True])
def test_works_of_nested_saves_run_inside_it(skip_async: bool | None) -> None:
    project = make_project(parts=3, bolts=2)
    parts, bolts = list(Part.objects.all()), list(Bolt.objects.all())
    seen: dict[str, Any] = {}

    def save_parts(project: Project) -> None:
        for part in parts:
            part.save(skip_async=skip_async)
        seen["effects"] = set(Part.objects.values_list("effects", flat=True))
        seen["tasks"] = list(AsyncTask.objects.values_list("key", "status"))
        seen["held"] = held_by(project.async_task.key if project.async_task else key)
        seen["part"] = parts[0].async_task

    Project.script = save_parts
    project.save()
    key = project.async_task.key
    assert {ObjectKey.of(bolt) for bolt in bolts}.isdisjoint(held_by(key))
    assert deliver() == 1

    assert seen["effects"] == {1}
    assert seen["tasks"] == [(key, Status.IN_PROGRESS)]
    assert seen["held"] == {ObjectKey.of(obj) for obj in (project, *parts, *bolts)}
    assert seen["part"] is None
    assert list(AsyncTask.objects.values_list("key", "status")) == [(key, Status.SUCCESS)]
    assert messages() == []
    assert not ObjectLock.objects.exists()


def test_works_that_are_called_run_inside_it() -> None:
    project = make_project(parts=1, bolts=1)
    part, bolt = Part.objects.get(), Bolt.objects.get()
    held: list[set[ObjectKey]] = []

    def tighten(project: Project) -> None:
        part.tighten()
        held.append(held_by(get_current_task().key))

    Project.script = tighten
    project.save()
    deliver()

    part.refresh_from_db()
    assert part.effects == 1
    assert ObjectKey.of(bolt) in held[0]
    assert AsyncTask.objects.count() == 1


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda part: part.save(skip_async=False), id="save(skip_async=False)"),
        pytest.param(lambda part: part.tighten.enqueue(), id="enqueue()"),
    ],
)
def test_a_task_of_its_own_is_refused_inside_it(ask: Callable[[Part], object]) -> None:
    project = make_project(parts=1)
    part = Part.objects.get()
    part.name = "changed"
    Project.script = lambda project: ask(part)
    project.save()
    deliver()

    task = AsyncTask.objects.get()
    assert task.status == Status.FAILED
    assert f"of part {part.pk} asks for a task of its own inside task {task.key}" in task.error
    assert name_of(part) == "part 0"
    assert messages() == []


def test_a_task_of_several_items_ends_with_the_last() -> None:
    first, second = make_project("first"), make_project("second")
    seen: list[str] = []
    Project.script = lambda project: seen.append(AsyncTask.objects.get().status)
    with transaction.atomic():
        first.save()
        second.save()
    deliver()

    assert seen == [Status.IN_PROGRESS, Status.IN_PROGRESS]
    assert AsyncTask.objects.get().status == Status.SUCCESS
