"""Promise 4: a task never conflicts with itself, nor does the transaction that launched it."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.test import TestCase

from powercrud_models import ConflictError, get_current_task
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.types import ObjectKey
from tests.deliveries import (
    deliver,
    held_by,
    messages,
    undone,
)
from tests.kinds.models import Bolt, Part, Project, Tag
from tests.promises.made import effects, make_project, name_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


def test_two_parents_in_one_task_share_a_descendant() -> None:
    tag = Tag.objects.create(name="shared")
    projects = [make_project(name) for name in ("first", "second", "third")]
    for project in projects:
        project.tags.add(tag)
    first, *others = projects
    held: list[set[ObjectKey]] = []

    def save_the_others(project: Project) -> None:
        if project == first:
            for other in others:
                other.save()
            held.append(held_by(get_current_task().key))

    Project.script = save_the_others
    first.save()
    deliver()

    assert AsyncTask.objects.get().status == Status.SUCCESS, AsyncTask.objects.get().error
    assert held == [{ObjectKey.of(obj) for obj in (tag, *projects)}]
    assert [effects(project) for project in projects] == [1, 1, 1]
    assert not ObjectLock.objects.exists()


def test_two_saves_in_one_transaction_share_a_descendant() -> None:
    tag = Tag.objects.create(name="shared")
    one, other = make_project("one"), make_project("other")
    one.tags.add(tag)
    other.tags.add(tag)

    with transaction.atomic():
        one.save()
        other.save()

    assert one.async_task == other.async_task == AsyncTask.objects.get()
    assert held_by(one.async_task.key) == {ObjectKey.of(obj) for obj in (one, other, tag)}


def test_the_launching_transaction_may_write_what_it_has_locked() -> None:
    project = make_project(parts=2, bolts=1)
    first, second = Part.objects.order_by("pk")
    bolt = Bolt.objects.get(part=first)

    with transaction.atomic():
        project.save()
        first.name = bolt.name = "saved"
        first.save()
        bolt.save()
        second.delete()
        Part(name="new", project=project).save()

    assert (name_of(first), name_of(bolt)) == ("saved", "saved")
    assert not Part.objects.filter(pk=second.pk).exists()
    with pytest.raises(ConflictError):
        first.save()


def test_inline_work_of_the_launching_transaction_passes_too() -> None:
    project = make_project(parts=1)
    part = Part.objects.get()

    with transaction.atomic():
        project.save()
        part.save(skip_async=True)

    part.refresh_from_db()
    assert part.effects == 1
    assert held_by(project.async_task.key) == {ObjectKey.of(project), ObjectKey.of(part)}


def test_further_launches_add_each_work_and_object_once() -> None:
    project = make_project(parts=2)
    parts = list(Part.objects.order_by("pk"))

    with transaction.atomic():
        project.save()
        for part in parts:
            part.save()
        project.save()
        project.rebuild.enqueue()

    (task,) = AsyncTask.objects.all()
    assert [(item.model, item.object_id, item.work) for item in task.items.order_by("pk")] == [
        ("kinds.project", str(project.pk), "rebuild"),
        ("kinds.part", str(parts[0].pk), "tighten"),
        ("kinds.part", str(parts[1].pk), "tighten"),
    ]
    assert messages() == [task.key]
    assert {obj.async_task for obj in (project, *parts)} == {task}


def test_the_next_transaction_launches_a_task_of_its_own() -> None:
    one, other = make_project("one"), make_project("other")
    with transaction.atomic():
        one.save()
    with transaction.atomic():
        other.save()
    assert one.async_task != other.async_task
    with pytest.raises(ConflictError):
        one.save()


def test_after_a_savepoint_is_rolled_back_the_next_save_launches_afresh() -> None:
    one, other = make_project("one"), make_project("other")

    with transaction.atomic():
        with undone():
            one.save()
            first = one.async_task
        other.save()

    assert AsyncTask.objects.get() == other.async_task != first
    assert one.async_task is None
    assert held_by(other.async_task.key) == {ObjectKey.of(other)}
    assert messages() == [other.async_task.key]


def test_a_savepoint_that_joined_takes_back_its_own_part_only() -> None:
    one, other = make_project("one"), make_project("other")

    with transaction.atomic():
        one.save()
        with undone():
            other.save()

    task = AsyncTask.objects.get()
    assert [item.object_id for item in task.items.all()] == [str(one.pk)]
    assert held_by(task.key) == {ObjectKey.of(one)}
    assert messages() == [task.key]


@pytest.mark.django_db
def test_a_task_that_was_sent_is_not_joined_inside_a_test_case(immediate: None) -> None:
    """``captureOnCommitCallbacks`` leaves what it has called in the transaction's list."""
    project = make_project()
    with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
        project.save()
        first = project.async_task
        assert first.status == Status.PENDING
    first.refresh_from_db()
    assert (first.status, effects(project), len(callbacks)) == (Status.SUCCESS, 1, 1)

    project.refresh_from_db()
    with TestCase.captureOnCommitCallbacks(execute=True):
        project.save()
    second = project.async_task

    assert second != first
    assert (second.status, effects(project)) == (Status.SUCCESS, 2)
    assert not ObjectLock.objects.exists()
