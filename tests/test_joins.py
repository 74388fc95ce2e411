"""Which task a launch joins: the one of its own transaction, while it is there and unclaimed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection, transaction

from powercrud_models import AsyncModelMixin
from powercrud_models.launches import Launch, register
from powercrud_models.lifecycle import claim
from powercrud_models.models import AsyncTask, ObjectLock
from tests.deliveries import deliver, expire_lease, task_of
from tests.kinds.models import Bolt, Part, Project
from tests.promises.made import effects, make_project
from tests.stage import Stage

pytestmark = pytest.mark.django_db(transaction=True)

Status = AsyncTask.Status


def test_what_goes_wrong_with_the_sending_is_not_the_savers() -> None:
    def send(task_key: str) -> None:
        raise OSError("the broker is gone, and so is the database")

    with transaction.atomic():
        register(Launch("key", send), "default")


@contextmanager
def autocommit_off() -> Iterator[None]:
    transaction.set_autocommit(False)
    try:
        yield
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@pytest.fixture(params=["queued", "immediate"])
def queue(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(request.param)


def test_after_a_savepoint_is_rolled_back_by_hand_the_next_save_launches_afresh(
    queue: None,
) -> None:
    one, other = make_project("one"), make_project("other")

    with transaction.atomic():
        savepoint = connection.savepoint()  # what transaction.savepoint() calls
        assert savepoint is not None
        one.save()
        connection.savepoint_rollback(savepoint)
        other.save()
    deliver()

    assert AsyncTask.objects.get() == task_of(other)
    assert task_of(other).status == Status.SUCCESS
    assert (effects(one), effects(other)) == (0, 1)
    assert not ObjectLock.objects.exists()


def test_with_autocommit_off_a_claimed_task_is_not_joined(queued: None, stage: Stage) -> None:
    one, other = make_project("one"), make_project("other")

    with autocommit_off():
        one.save()
        transaction.commit()
        key = task_of(one).key
        transaction.commit()  # of the look at the task
        assert stage.act(lambda: claim(key), "worker").result() is not None
        other.save()
        transaction.commit()
    expire_lease(key)
    assert deliver() == 2

    assert [item.object_id for item in task_of(one).items.all()] == [str(one.pk)]
    assert [item.object_id for item in task_of(other).items.all()] == [str(other.pk)]
    assert {task.status for task in (task_of(one), task_of(other))} == {Status.SUCCESS}
    assert (effects(one), effects(other)) == (1, 1)
    assert not ObjectLock.objects.exists()


def test_with_autocommit_off_a_task_of_the_open_transaction_is_joined(queued: None) -> None:
    one, other = make_project("one"), make_project("other")

    with autocommit_off():
        one.save()
        other.save()
        transaction.commit()

    assert task_of(one) == task_of(other) == AsyncTask.objects.get()
    assert deliver() == 1
    assert (effects(one), effects(other)) == (1, 1)


def test_a_save_in_an_on_commit_callback_of_work_launches_its_own_task(queued: None) -> None:
    project = make_project(parts=1, bolts=1)
    part = Part.objects.get()
    Project.script = lambda project: transaction.on_commit(part.save)
    project.save()
    assert deliver() == 1

    assert task_of(project).status == Status.SUCCESS
    assert task_of(part).status == Status.PENDING
    assert task_of(part) != task_of(project)
    assert set(ObjectLock.objects.values_list("task_id", flat=True)) == {task_of(part).key}
    assert deliver() == 1
    part.refresh_from_db()
    assert part.effects == 1
    part.save()


@pytest.mark.parametrize("model", [Part, Bolt])
def test_a_save_in_an_on_commit_callback_of_work_leaves_no_lock(
    immediate: None, model: type[AsyncModelMixin]
) -> None:
    project = make_project(parts=1, bolts=1)
    saved = model._base_manager.get()
    Project.script = lambda project: transaction.on_commit(saved.save)
    project.save()

    assert task_of(project).status == Status.SUCCESS
    assert not ObjectLock.objects.exists()
    saved.save()
    assert {task.status for task in AsyncTask.objects.all()} == {Status.SUCCESS}
