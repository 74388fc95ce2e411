"""What a worker finds when it claims a task, and what it may write until the end."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction

from powercrud_models import LeaseLost
from powercrud_models.lifecycle import claim, finish, hold_fence, sweep
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from powercrud_models.tasks import run_task
from powercrud_models.types import ObjectKey
from tests.deliveries import (
    deliver,
    die,
    expire_lease,
    held_by,
    lose_messages,
    make_overdue,
    rows,
    wait_of,
)
from tests.kinds.models import Crew, Part, Project
from tests.stage import Stage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status
LEASE_SECONDS = 60


class TestDescendantsThatCameAfterTheLaunch:
    def test_join_the_locks_when_the_task_is_claimed(
        self, project: Project, task: AsyncTask
    ) -> None:
        (new,) = Part.objects.bulk_create([Part(name="new", project=project)])
        held: list[set[ObjectKey]] = []
        Project.script = lambda project: held.append(held_by(task.key))
        assert ObjectKey.of(new) not in held_by(task.key)
        run_task(task.key)
        assert ObjectKey.of(new) in held[0]

    def test_send_the_task_back_to_wait_when_another_holds_them(
        self, project: Project, task: AsyncTask
    ) -> None:
        new = Part(name="new", project=project)
        new.save()
        other = new.async_task
        held = held_by(task.key)
        assert held_by(other.key) == {ObjectKey.of(new)}

        run_task(task.key)

        task.refresh_from_db()
        assert (task.status, task.attempts, task.conflicts) == (Status.PENDING, 0, 1)
        assert f"part {new.pk} is held by the task “tighten part {new.pk}”" in task.error
        assert held_by(task.key) == held
        assert Project.objects.get().effects == 0
        assert sweep()["sent"] == 0

        run_task(other.key)
        lose_messages()
        make_overdue(task.key)
        assert sweep()["sent"] == 1
        assert deliver() == 1
        task.refresh_from_db()
        assert (task.status, task.error, task.recoveries) == (Status.SUCCESS, "", 0)
        assert Project.objects.get().effects == 1
        assert not ObjectLock.objects.exists()

    def test_send_it_back_for_longer_each_time(self, project: Project, task: AsyncTask) -> None:
        Part(name="new", project=project).save()
        waits = []
        for _ in range(3):
            run_task(task.key)
            waits.append(wait_of(task))
        assert 0 < waits[0] < waits[1] < waits[2]
        AsyncTask.objects.filter(pk=task.key).update(conflicts=11)
        run_task(task.key)
        assert wait_of(task) == pytest.approx(300, abs=20)

    def test_fail_it_when_it_never_gets_them(self, project: Project, task: AsyncTask) -> None:
        """Two tasks may each hold what the other has come to need."""
        Part(name="new", project=project).save()
        AsyncTask.objects.filter(pk=task.key).update(conflicts=12)
        run_task(task.key)
        task.refresh_from_db()
        assert task.status == Status.FAILED
        assert "is held by the task “tighten part" in task.error
        assert not ObjectLock.objects.filter(task=task).exists()

    def test_cannot_be_found_where_their_method_raises(
        self, project: Project, task: AsyncTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(project: Project) -> object:
            raise ValueError("no neighbours here")

        monkeypatch.setattr(Project, "neighbours", broken)
        run_task(task.key)

        task.refresh_from_db()
        assert task.status == Status.FAILED
        assert "ValueError: no neighbours here" in task.error
        assert not ObjectLock.objects.exists()


def test_a_task_of_which_nothing_is_left_to_do_ends(task: AsyncTask) -> None:
    task.items.all().delete()
    run_task(task.key)
    task.refresh_from_db()
    assert task.is_finished
    assert not ObjectLock.objects.exists()


class TestFinish:
    def test_frees_the_locks_and_keeps_what_others_hold(
        self, project: Project, task: AsyncTask
    ) -> None:
        other = Project.objects.create(name="tunnel")
        run_task(task.key)
        task.refresh_from_db()
        assert task.status == Status.SUCCESS
        assert task.finished_at > task.created_at  # type: ignore[operator]
        assert held_by(task.key) == set()
        assert held_by(other.async_task.key) == {ObjectKey.of(other)}

    def test_is_for_the_worker_that_has_the_task(self, project: Project, task: AsyncTask) -> None:
        stale = die(task)
        current = claim(task.key)
        assert current is not None
        before = rows()

        finish(stale)
        assert rows() == before
        finish(current)
        task.refresh_from_db()
        assert (task.status, held_by(task.key)) == (Status.SUCCESS, set())
        ended = rows()
        finish(current, error="again")
        assert rows() == ended

    def test_is_one_with_the_last_work(self, project: Project, task: AsyncTask) -> None:
        """A worker that dies in between leaves either both or nothing."""
        held = held_by(task.key)

        def die_when_the_locks_are_released(execute: Any, sql: str, *rest: Any) -> Any:
            result = execute(sql, *rest)
            if "DELETE FROM powercrud_models_objectlock" in sql:
                raise KeyboardInterrupt
            return result

        with (
            connection.execute_wrapper(die_when_the_locks_are_released),
            pytest.raises(KeyboardInterrupt),
        ):
            run_task(task.key)

        task.refresh_from_db()
        assert (task.status, held_by(task.key)) == (Status.PENDING, held)
        assert task.items.get().status == TaskItem.Status.TODO
        assert Project.objects.get().effects == 0
        expire_lease(task.key)
        run_task(task.key)
        task.refresh_from_db()
        assert (task.status, held_by(task.key)) == (Status.SUCCESS, set())
        assert Project.objects.get().effects == 1


class TestHoldFence:
    def test_keeps_others_from_taking_over_until_the_transaction_ends(
        self, task: AsyncTask, stage: Stage
    ) -> None:
        taken = die(task)
        fenced = stage.stop()

        def write() -> None:
            with transaction.atomic():
                hold_fence(taken)
                fenced.wait_here()

        worker = stage.act(write, "worker")
        fenced.wait_until_reached()
        other = stage.act(lambda: claim(task.key), "other worker")
        if connection.features.has_select_for_update_skip_locked:
            assert other.result() is None
        else:
            other.wait_until_blocked()
        fenced.let_go()
        worker.result()

        current = other.result() or claim(task.key)
        assert current is not None
        assert current.fence == 2
        with pytest.raises(LeaseLost, match="taken over by another worker"), transaction.atomic():
            hold_fence(taken)

    def test_is_refused_after_the_end(self, project: Project, task: AsyncTask) -> None:
        taken = claim(task.key)
        assert taken is not None
        finish(taken)
        with pytest.raises(LeaseLost), transaction.atomic():
            hold_fence(taken)

    def test_is_refused_by_the_name_of_a_task_whose_row_is_gone(
        self, project: Project, task: AsyncTask
    ) -> None:
        taken = claim(task.key)
        assert taken is not None
        AsyncTask.objects.all().delete()
        with (
            pytest.raises(LeaseLost, match=rf"The task “rebuild project {project.pk}” has ended"),
            transaction.atomic(),
        ):
            hold_fence(taken)

    def test_lasts_for_all_that_a_save_of_work_in_autocommit_runs(self, stage: Stage) -> None:
        (crew,) = Crew.objects.bulk_create([Crew(name="night")])
        (project,) = Project.objects.bulk_create([Project(name="bridge")])
        before, nested = stage.stop(), stage.stop()

        def work(crew: Crew) -> None:
            before.wait_here()
            project.save()

        Crew.script = work
        Project.script = lambda project: nested.wait_here()
        task = crew.post.enqueue()
        worker = stage.act(lambda: run_task(task.key), "worker")
        before.wait_until_reached()
        expire_lease(task.key)
        before.let_go()
        nested.wait_until_reached()
        other = stage.act(lambda: claim(task.key), "other worker")
        if connection.features.has_select_for_update_skip_locked:
            assert other.result() is None
        else:
            other.wait_until_blocked()
        nested.let_go()
        other.error()
        worker.result()
        assert Project.objects.get().effects == 1
