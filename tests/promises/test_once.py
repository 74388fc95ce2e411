"""Promise 7: duplicate deliveries do nothing, and a worker that was taken over writes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from powercrud_models import LeaseLost
from powercrud_models.lifecycle import Claim, claim, hold_fence
from powercrud_models.models import AsyncTask
from powercrud_models.tasks import run_task
from tests.deliveries import (
    expire_lease,
    rows,
)
from tests.kinds.models import Crew, Member, Project
from tests.promises.made import effects, make_crew, make_project, name_of
from tests.stage import Stage
from tests.takeover import SECOND, overtake

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


def test_five_deliveries_have_one_effect() -> None:
    project = make_project()
    project.save()
    key = project.async_task.key
    for _ in range(5):
        run_task(key)

    task = AsyncTask.objects.get()
    assert (effects(project), task.attempts, task.fence) == (1, 1, 1)


def test_five_deliveries_at_once_have_one_effect(stage: Stage) -> None:
    project = make_project(parts=3)
    project.save()
    key = project.async_task.key
    together = threading.Barrier(5)

    def deliver_with_the_others() -> None:
        connection.ensure_connection()
        together.wait(timeout=30)
        run_task(key)

    workers = [stage.act(deliver_with_the_others, f"worker {n}") for n in range(5)]
    for worker in workers:
        worker.result()

    task = AsyncTask.objects.get()
    assert (task.status, task.attempts) == (Status.SUCCESS, 1)
    assert effects(project) == 1


def test_a_delivery_while_the_task_runs_does_nothing_and_does_not_wait(stage: Stage) -> None:
    crew, _ = make_crew()
    calls, at_work = [], stage.stop()

    def work(crew: Crew) -> None:
        calls.append(crew)
        at_work.wait_here()

    Crew.script = work
    key = crew.post.enqueue().key
    worker = stage.act(lambda: run_task(key), "worker")
    at_work.wait_until_reached()
    run_task(key)  # returns, while the first still runs
    assert not worker.has_ended
    at_work.let_go()
    worker.result()

    assert calls == [crew]
    assert AsyncTask.objects.get(pk=key).attempts == 1


def test_nobody_takes_a_task_over_while_an_open_transaction_has_its_fence(stage: Stage) -> None:
    project = make_project()
    at_work, before_work = stage.stop(), stage.stop()
    Project.script = lambda project: at_work.wait_here()
    project.save()
    key = project.async_task.key

    def work() -> None:
        with before_work.at("before", 'FROM "kinds_project" WHERE "kinds_project"."id" = '):
            run_task(key)

    worker = stage.act(work, "worker")
    before_work.wait_until_reached()
    expire_lease(key)
    before_work.let_go()
    at_work.wait_until_reached()
    other = stage.act(lambda: claim(key), "other worker")
    if connection.features.has_select_for_update:
        assert other.result() is None  # without waiting for the first, which has stopped
    else:
        other.wait_until_blocked()
    at_work.let_go()
    worker.result()

    assert other.result() is None
    task = AsyncTask.objects.get()
    assert (task.status, task.attempts, effects(project)) == (Status.SUCCESS, 1, 1)


def test_a_stale_worker_loses_its_item_to_the_one_that_took_over(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project()
    project.save()
    key = project.async_task.key
    loading = stage.stop()

    def work() -> None:
        with loading.at("before", 'FROM "kinds_project" WHERE "kinds_project"."id" = '):
            run_task(key)

    stale = stage.act(work, "stale worker")
    loading.wait_until_reached()
    assert AsyncTask.objects.get().status == Status.IN_PROGRESS
    expire_lease(key)
    run_task(key)
    assert (AsyncTask.objects.get().status, effects(project)) == (Status.SUCCESS, 1)
    ended = rows()
    loading.let_go()
    stale.result()

    assert effects(project) == 1
    assert rows() == ended
    assert "was taken over by another worker" in caplog.text


def test_a_stale_worker_may_write_nothing_more() -> None:
    project = make_project()
    project.save()
    key = project.async_task.key
    stale = claim(key)
    expire_lease(key)
    current = claim(key)

    def write(taken: Claim | None) -> None:
        assert taken is not None
        with transaction.atomic():
            Project._base_manager.filter(pk=project.pk).update(effects=taken.fence)
            hold_fence(taken)

    with pytest.raises(LeaseLost):
        write(stale)
    assert effects(project) == 0
    write(current)
    assert effects(project) == 2


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda crew, member: member.save(), id="save"),
        pytest.param(lambda crew, member: member.delete(), id="delete"),
        pytest.param(lambda crew, member: member.train(), id="direct call"),
    ],
)
def test_stale_work_in_autocommit_is_stopped_at_its_next_write(
    stage: Stage, write: Callable[[Crew, Member], object]
) -> None:
    crew, member = make_crew()
    task, raised = overtake(stage, crew, member, write)
    assert (name_of(member), len(raised)) == ("Ada", 1)
    assert task.result() == SECOND


@pytest.mark.parametrize("ends", ["done", "failed"])
def test_a_stale_worker_may_not_say_how_its_work_ended(stage: Stage, ends: str) -> None:
    crew, _ = make_crew()
    stopped = stage.stop()

    def work(crew: Crew) -> str:
        if stopped.was_reached:
            return "by the second worker"
        stopped.wait_here()
        if ends == "failed":
            raise ValueError("by the stale worker")
        return "by the stale worker"

    Crew.script = work
    task = crew.post.enqueue()
    stale = stage.act(lambda: run_task(task.key), "stale worker")
    stopped.wait_until_reached()
    expire_lease(task.key)
    run_task(task.key)
    ended = rows()
    stopped.let_go()
    stale.result()

    assert task.result() == SECOND
    assert rows() == ended


def test_who_takes_over_does_not_repeat_what_is_done() -> None:
    projects = [make_project(name) for name in ("first", "second", "third")]

    def die_at_the_second(project: Project) -> None:
        if project == projects[1] and AsyncTask.objects.get().attempts == 1:
            raise KeyboardInterrupt

    Project.script = die_at_the_second
    with transaction.atomic():
        for project in projects:
            project.save()
    key = projects[0].async_task.key
    with pytest.raises(KeyboardInterrupt):
        run_task(key)
    assert [effects(project) for project in projects] == [1, 0, 0]
    run_task(key)

    assert [effects(project) for project in projects] == [1, 1, 1]
    task = AsyncTask.objects.get()
    assert (task.status, task.attempts) == (Status.SUCCESS, 2)


def test_work_whose_on_commit_callback_fails_is_done_all_the_same(caplog) -> None:
    first, second = make_project("first"), make_project("second")

    def call_back(project: Project) -> None:
        if project.pk == first.pk:
            transaction.on_commit(lambda: 1 / 0)

    Project.script = call_back
    with transaction.atomic():
        first.save()
        second.save()
    run_task(AsyncTask.objects.get().key)

    task = first.async_task
    assert task.status == Status.SUCCESS
    assert [item.status for item in task.items.all()] == ["done", "done"]
    assert (effects(first), effects(second)) == (1, 1)
    assert "an on_commit callback of its work failed" in caplog.text
