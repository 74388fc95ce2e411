"""Promise 9: failed is failed, unknown is unknown."""

from __future__ import annotations

from contextlib import suppress

import pytest
from django.db import IntegrityError, transaction

from powercrud_models import PowerCRUDError
from powercrud_models.exceptions import TaskFailed
from powercrud_models.lifecycle import claim
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from tests.deliveries import (
    deliver,
)
from tests.kinds.models import Project, Tag
from tests.promises.made import effects, make_project, name_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


def test_work_that_raises_fails_with_its_traceback_and_writes_nothing() -> None:
    project = make_project()

    def break_down(project: Project) -> None:
        Project.objects.filter(pk=project.pk).update(name="half done", effects=50)
        raise ValueError("no steel left")

    Project.script = break_down
    project.save()
    deliver()

    task = project.async_task
    assert task.status == Status.FAILED
    assert f"kinds.project {project.pk}: rebuild" in task.error
    assert "in break_down" in task.error
    assert "ValueError: no steel left" in task.error
    assert (name_of(project), effects(project)) == ("bridge", 0)
    assert not ObjectLock.objects.exists()
    with pytest.raises(TaskFailed, match="no steel left") as caught:
        task.result()
    assert caught.value.task == task


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_item_that_fails_fails_the_task_and_the_others_are_done(position: int) -> None:
    projects = [make_project(name) for name in ("first", "second", "third")]
    broken = projects[position]

    def work(project: Project) -> None:
        if project == broken:
            raise ValueError("no steel left")

    Project.script = work
    with transaction.atomic():
        for project in projects:
            project.save()
    deliver()

    task = projects[0].async_task
    assert task.status == Status.FAILED
    assert "no steel left" in task.error
    items = list(task.items.order_by("pk").values_list("status", flat=True))
    expected = [TaskItem.Status.DONE] * 3
    expected[position] = TaskItem.Status.FAILED
    assert items == expected
    assert [effects(project) for project in projects] == [
        int(project != broken) for project in projects
    ]
    with pytest.raises(TaskFailed):
        task.result()


def test_work_that_breaks_its_transaction_fails() -> None:
    project = make_project()

    def swallow(project: Project) -> None:
        with suppress(IntegrityError):
            Tag.objects.create(name=None)  # type: ignore[misc]

    Project.script = swallow
    project.save()
    deliver()
    assert project.async_task.status == Status.FAILED
    assert effects(project) == 0


def test_an_object_that_is_gone_fails_its_item() -> None:
    project = make_project()
    project.save()
    task = project.async_task
    Project.objects.filter(pk=project.pk)._raw_delete("default")
    deliver()

    task.refresh_from_db()
    assert task.status == Status.FAILED
    assert f"project {project.pk} was deleted before “rebuild” could run on it" in task.error
    assert not ObjectLock.objects.exists()


def test_a_payload_of_another_version_fails() -> None:
    project = make_project()
    project.save()
    AsyncTask.objects.update(payload_version=99)
    deliver()
    task = project.async_task
    assert task.status == Status.FAILED
    assert "Upgrade powercrud_models on the side of the worker" in task.error
    assert effects(project) == 0
    assert not ObjectLock.objects.exists()


def test_what_is_not_known_yet_is_no_success() -> None:
    project = make_project()
    project.save()
    task = project.async_task
    with pytest.raises(TimeoutError, match="pending"):
        task.result(timeout=0)
    claim(task.key)
    with pytest.raises(TimeoutError, match="in progress"):
        task.result(timeout=0)
    assert task.progress.fraction == 0.0


def test_waiting_where_it_could_never_end_is_refused() -> None:
    project = make_project()
    with transaction.atomic():
        project.save()
        with pytest.raises(PowerCRUDError, match="would never end"):
            project.async_task.result(timeout=1)
