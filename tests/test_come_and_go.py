"""Descendants that come and go between the save, the launch, the claim and the end."""

from __future__ import annotations

import pytest
from django.db import transaction

from powercrud_models import ConflictError
from powercrud_models.lifecycle import claim
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.types import ObjectKey
from tests.deliveries import deliver, held_by, task_of
from tests.kinds.models import Bolt, Crew, Machine, Member, Part, Project, Tag

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


@pytest.fixture
def project(db: None) -> Project:
    [project] = Project.objects.bulk_create([Project(name="bridge")])
    Part.objects.bulk_create([Part(name="pier", project=project)])
    return project


def held_in_work(project: Project) -> set[ObjectKey]:
    """What the task of its last save holds while its work runs."""
    seen: set[ObjectKey] = set()
    task = task_of(project)
    Project.script = lambda _: seen.update(held_by(task.key))
    deliver()
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.SUCCESS, task.error
    assert not ObjectLock.objects.exists()
    return seen


def test_a_relation_that_is_set_after_the_save_joins_at_the_claim(project: Project) -> None:
    """As ``save_m2m()`` does it, which a form calls after ``save()``."""
    tag = Tag.objects.create(name="steel")
    with transaction.atomic():
        project.save()
        project.tags.add(tag)
    assert ObjectKey.of(tag) not in held_by(task_of(project).key)
    assert ObjectKey.of(tag) in held_in_work(project)


def test_a_child_that_comes_before_the_claim_joins(project: Project) -> None:
    project.save()
    new = Part(name="new", project=project)
    new.save(skip_async=True)
    assert new.holder is None
    assert ObjectKey.of(new) in held_in_work(project)


def test_a_child_that_moves_to_another_parent_before_the_claim(project: Project) -> None:
    [other] = Project.objects.bulk_create([Project(name="tunnel")])
    [moved] = Part.objects.bulk_create([Part(name="lamp", project=other)])
    project.save()
    moved.project = project
    moved.save(skip_async=True)  # nobody holds it yet
    assert ObjectKey.of(moved) in held_in_work(project)
    assert Part.objects.get(pk=moved.pk).project == project


def test_a_child_that_is_held_cannot_move_away(project: Project) -> None:
    [other] = Project.objects.bulk_create([Project(name="tunnel")])
    project.save()
    part = Part.objects.get()
    part.project = other
    with pytest.raises(ConflictError):
        part.save()
    assert Part.objects.get().project == project


def test_a_child_that_was_moved_away_behind_the_guard_is_let_go_with_the_rest(
    project: Project,
) -> None:
    [other] = Project.objects.bulk_create([Project(name="tunnel")])
    project.save()
    Part._base_manager.update(project=other)
    assert held_in_work(project)  # it stays locked to the end: nobody releases a lock early
    Part.objects.get().save()


def test_a_child_that_another_task_holds_at_the_claim_sends_the_task_back(
    project: Project,
) -> None:
    [other] = Project.objects.bulk_create([Project(name="tunnel")])
    [held] = Part.objects.bulk_create([Part(name="lamp", project=other)])
    project.save()
    held.tighten.enqueue()
    Part._base_manager.filter(pk=held.pk).update(project=project)
    task = task_of(project)
    Project.script = None
    assert claim(task.key) is None
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.PENDING
    assert f"part {held.pk} is held by" in task.error


def test_what_work_creates_joins_its_locks_when_it_has_a_key(project: Project) -> None:
    seen: list[bool] = []

    def script(_: Project) -> None:
        part = Part(name="new", project=project)
        part.save()
        Bolt(name="M12", part=part).save()
        for obj in (part, Bolt.objects.get()):
            holder = obj.holder
            seen.append(holder is not None and holder.key == task.key)

    project.save()
    task = task_of(project)
    Project.script = script
    deliver()
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.SUCCESS, task.error
    assert seen == [True, True]
    assert not ObjectLock.objects.exists()


def test_what_work_in_autocommit_creates_is_kept_from_others_at_once(db: None) -> None:
    [crew] = Crew.objects.bulk_create([Crew(name="night")])
    holders: list[str] = []

    def script(crew: Crew) -> None:
        Member.objects.create(name="new", crew=crew)
        holders.extend(
            ObjectLock.objects.filter(model="kinds.member").values_list("task", flat=True)
        )

    Crew.script = script
    task = crew.post.enqueue()
    deliver()
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.SUCCESS, task.error
    assert holders == [task.key]
    assert not ObjectLock.objects.exists()


def test_a_descendant_that_is_deleted_by_the_work(project: Project) -> None:
    Project.script = lambda project: project.parts.all().delete()
    project.save()
    deliver()
    assert not Part.objects.exists()
    assert not ObjectLock.objects.exists()


def test_an_object_that_deletes_itself_in_its_work(db: None) -> None:
    [machine] = Machine.objects.bulk_create([Machine(name="press")])
    machine.script = "tests.test_come_and_go.delete"
    machine.save()
    task = task_of(machine)
    deliver()
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.SUCCESS, task.error
    assert not Machine.objects.exists()
    assert not ObjectLock.objects.exists()


def delete(machine: Machine) -> None:
    machine.delete()
