"""What is taken up again, what is given up, what is cleaned away, and what is left alone."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from powercrud_models import ConflictError, LeaseLost, get_current_task
from powercrud_models.clock import clock_plus
from powercrud_models.exceptions import TaskFailed
from powercrud_models.lifecycle import Claim, claim, hold_fence, sweep
from powercrud_models.models import AsyncTask, ObjectLock, TaskPulse
from powercrud_models.tasks import run_task
from powercrud_models.types import DEFAULT_OPTIONS, ObjectKey
from tests.deliveries import (
    NOTHING,
    deliver,
    die,
    expire_lease,
    held_by,
    lose_messages,
    make_overdue,
    messages,
    rows,
    undone,
    wait_of,
)
from tests.gates import until
from tests.kinds.models import Crew, Part, Project
from tests.stage import Stage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status
LEASE_SECONDS = 60


def use_up(task: AsyncTask) -> Claim:
    """As many workers die of the task as may."""
    return [die(task) for _ in range(1 + DEFAULT_OPTIONS.recoveries)][-1]


class TestADeadWorker:
    def test_its_task_can_be_claimed_when_the_lease_has_run_out(
        self, project: Project, task: AsyncTask
    ) -> None:
        assert claim(task.key) is not None
        assert claim(task.key) is None
        expire_lease(task.key)
        run_task(task.key)

        task.refresh_from_db()
        assert (task.status, task.fence, task.attempts, task.recoveries) == (
            Status.SUCCESS,
            2,
            2,
            1,
        )

    def test_its_task_is_sent_again(self, project: Project, task: AsyncTask) -> None:
        claim(task.key)
        assert sweep() == {"sent": 0, "failed": 0, "released": 0, "deleted": 0}
        expire_lease(task.key)
        assert sweep()["sent"] == 1
        assert messages() == [task.key]
        assert sweep()["sent"] == 0

        deliver()
        task.refresh_from_db()
        assert task.status == Status.SUCCESS
        assert not ObjectLock.objects.exists()

    def test_its_task_keeps_its_locks_until_then(self, project: Project, task: AsyncTask) -> None:
        held = held_by(task.key)
        assert len(held) == 2
        for _ in range(DEFAULT_OPTIONS.recoveries):
            die(task)
            sweep()
            assert held_by(task.key) == held
            with pytest.raises(ConflictError):
                Part.objects.get().save()

    def test_a_task_that_too_many_died_of_is_failed_and_its_locks_are_free(
        self, project: Project, task: AsyncTask
    ) -> None:
        last = use_up(task)

        assert sweep() == {"sent": 0, "failed": 1, "released": 0, "deleted": 0}

        task.refresh_from_db()
        assert task.status == Status.FAILED
        assert task.error.endswith("or got no further: 4 of them.")
        assert task.finished_at is not None
        assert not ObjectLock.objects.exists()
        with pytest.raises(TaskFailed, match="4 of them"):
            task.result()
        with pytest.raises(LeaseLost), transaction.atomic():
            hold_fence(last)
        Part.objects.get().save()

    def test_whoever_runs_into_its_locks_has_it_sent_again(
        self, project: Project, task: AsyncTask
    ) -> None:
        die(task)
        with pytest.raises(ConflictError):
            Part.objects.get().save()
        assert messages() == [task.key]

    def test_whoever_runs_into_the_locks_of_a_used_up_task_frees_them(
        self, project: Project, task: AsyncTask
    ) -> None:
        use_up(task)
        with pytest.raises(ConflictError):
            Part.objects.get().save()
        Part.objects.get().save()
        task.refresh_from_db()
        assert task.status == Status.FAILED

    def test_a_conflict_inside_a_transaction_sends_it_when_that_commits(
        self, project: Project, task: AsyncTask
    ) -> None:
        die(task)
        with transaction.atomic():
            with pytest.raises(ConflictError):
                Part.objects.get().save()
            assert messages() == []
        assert task.key in messages()

    def test_a_conflict_in_a_transaction_that_is_undone_leaves_that_to_others(
        self, project: Project, task: AsyncTask
    ) -> None:
        die(task)
        with undone(), pytest.raises(ConflictError):
            Part.objects.get().save()
        assert messages() == []

    def test_what_goes_wrong_with_the_sweep_is_not_the_callers(
        self, project: Project, task: AsyncTask
    ) -> None:
        die(task)

        def refuse(execute: Any, sql: str, *rest: Any) -> Any:
            if "resend_at" in sql and not sql.startswith("SELECT"):
                raise OperationalError("the database is shutting down")
            return execute(sql, *rest)

        with connection.execute_wrapper(refuse), pytest.raises(ConflictError):
            Part.objects.get().save()

    def test_a_message_that_comes_first_finds_it_failed(
        self, project: Project, task: AsyncTask
    ) -> None:
        use_up(task)
        assert claim(task.key) is None
        task.refresh_from_db()
        assert (task.status, list(task.items.values_list("status", flat=True))) == (
            Status.FAILED,
            ["skipped"],
        )
        assert not ObjectLock.objects.exists()

    def test_what_was_not_done_of_it_can_be_tried_again(
        self, project: Project, task: AsyncTask
    ) -> None:
        use_up(task)
        sweep()
        task.retry()
        deliver()
        assert task.result() is None

    def test_a_worker_that_has_just_finished_takes_it_up(
        self, project: Project, task: AsyncTask
    ) -> None:
        die(task)
        other = Project.objects.create(name="tunnel")
        lose_messages()
        run_task(other.async_task.key)
        task.refresh_from_db()
        assert (task.status, task.recoveries, messages()) == (Status.SUCCESS, 1, [])

    def test_a_worker_that_has_been_at_work_for_long_leaves_it_to_another(
        self, project: Project, task: AsyncTask, settings: Any
    ) -> None:
        """The queue limits the time of a call, and the time for this one may be over soon."""
        die(task)
        other = Project.objects.create(name="tunnel")
        lose_messages()
        settings.POWERCRUD_SETTINGS = {
            "ASYNC_ENABLED": True,
            "QUEUE": "django-q2",
            "LEASE_SECONDS": 2,
            "HEARTBEAT_SECONDS": 1,
        }
        begun = time.monotonic()
        Project.script = lambda _: until(lambda: time.monotonic() > begun + 2, "a lease is over")
        run_task(other.async_task.key)
        assert messages() == [task.key]

    def test_a_live_worker_gives_signs_of_life(self, settings: Any) -> None:
        settings.POWERCRUD_SETTINGS = {
            "ASYNC_ENABLED": True,
            "QUEUE": "django-q2",
            "LEASE_SECONDS": 2,
            "HEARTBEAT_SECONDS": 1,
        }
        (crew,) = Crew.objects.bulk_create([Crew(name="night")])
        leases = []

        def work(crew: Crew) -> None:
            pulse = TaskPulse.objects.filter(task_id=get_current_task().key)
            leases.append(pulse.get().lease_until)
            until(lambda: pulse.get().lease_until > leases[0], "the lease was renewed")
            leases.append(pulse.get().lease_until)

        Crew.script = work
        task = crew.post.enqueue()
        run_task(task.key)
        task.refresh_from_db()
        assert task.status == Status.SUCCESS, task.error
        assert leases[0] < leases[1]

    def test_the_sweep_does_not_wait_for_a_worker_that_has_stopped_at_work(
        self, project: Project, task: AsyncTask, stage: Stage
    ) -> None:
        loading, at_work = stage.stop(), stage.stop()
        Project.script = lambda project: at_work.wait_here()

        def work() -> None:
            with loading.at("before", 'FROM "kinds_project" WHERE "kinds_project"."id" = '):
                run_task(task.key)

        worker = stage.act(work, "worker")
        loading.wait_until_reached()
        expire_lease(task.key)
        loading.let_go()
        at_work.wait_until_reached()
        sweeper = stage.act(sweep, "sweeper")
        if connection.features.has_select_for_update_skip_locked:
            assert sweeper.result()["sent"] == 0
        else:  # SQLite: there is only one write lock
            sweeper.wait_until_blocked()
        at_work.let_go()
        worker.result()

        assert sweeper.result()["sent"] == 0
        task.refresh_from_db()
        assert (task.status, task.attempts) == (Status.SUCCESS, 1)


class TestATaskThatNobodyClaims:
    def test_is_sent_again_later_each_time(self, task: AsyncTask) -> None:
        assert wait_of(task) == pytest.approx(LEASE_SECONDS, abs=20)
        waits = []
        for _ in range(4):
            assert sweep()["sent"] == 0
            make_overdue(task.key)
            assert sweep()["sent"] == 1
            assert messages() == [task.key]
            waits.append(wait_of(task))
            lose_messages()
        assert waits == [pytest.approx(LEASE_SECONDS * factor, abs=20) for factor in (2, 4, 8, 16)]
        assert task.sends == 5

    def test_is_given_its_time_while_the_queue_has_messages(self, task: AsyncTask) -> None:
        """Its own may be one of them: a long queue shall not grow by those who wait in it."""
        Project.objects.create(name="tunnel")
        make_overdue(task.key)
        assert sweep()["sent"] == 0
        AsyncTask.objects.filter(pk=task.key).update(resend_at=clock_plus(-3601))
        assert sweep()["sent"] == 1

    def test_is_sent_at_its_time_when_it_has_no_message(self, task: AsyncTask) -> None:
        """It was put off, before it is tried again."""
        Project.objects.create(name="tunnel")
        AsyncTask.objects.filter(pk=task.key).update(sends=0)
        make_overdue(task.key)
        assert sweep()["sent"] == 1

    def test_is_sent_for_ever_but_not_ever_later(self, task: AsyncTask) -> None:
        AsyncTask.objects.filter(pk=task.key).update(sends=1000)
        make_overdue(task.key)
        assert sweep()["sent"] == 1
        assert wait_of(task) == pytest.approx(LEASE_SECONDS * 1024, abs=20)

    def test_is_sent_by_the_command(
        self, task: AsyncTask, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_overdue(task.key)
        call_command("pcrud_cleanup_async")
        assert capsys.readouterr().out == "sent: 1, failed: 0, released: 0, deleted: 0\n"
        assert messages() == [task.key]

    def test_runs_within_the_sweep_where_the_queue_is_immediate(
        self, project: Project, task: AsyncTask, immediate: None
    ) -> None:
        other = Project.objects.create(name="tunnel")
        assert other.async_task.status == Status.SUCCESS
        make_overdue(task.key)
        assert sweep()["sent"] == 1
        task.refresh_from_db()
        assert (task.status, task.attempts) == (Status.SUCCESS, 1)

    def test_what_a_sweep_runs_does_not_sweep_in_turn(self, task: AsyncTask, settings: Any) -> None:
        """Or each task of a long queue would run inside the one before it."""
        for number in range(4):
            Project.objects.create(name=f"tunnel {number}")
        lose_messages()
        keys = list(AsyncTask.objects.values_list("pk", flat=True))
        for key in keys:
            make_overdue(key)
        settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": "immediate"}
        depths: list[int] = []
        Project.script = lambda project: depths.append(len(inspect.stack(0)))

        assert sweep()["sent"] == len(keys) == len(depths)
        assert len(set(depths)) == 1


class TestTwoSweepsAtOnce:
    """The one has seen what is due, and the other is quicker."""

    def sweep_after(self, stage: Stage, quicker: Callable[[], object]) -> dict[str, int]:
        seen = stage.stop()

        def slow() -> dict[str, int]:
            with seen.at("after", 'SELECT "powercrud_models_asynctask"'):
                return sweep()

        sweeper = stage.act(slow, "slow sweep")
        seen.wait_until_reached()
        quicker()
        seen.let_go()
        return sweeper.result()

    def test_send_a_pending_task_once(self, task: AsyncTask, stage: Stage) -> None:
        make_overdue(task.key)
        assert self.sweep_after(stage, sweep)["sent"] == 0
        assert messages() == [task.key]

    def test_send_a_dead_workers_task_once(self, task: AsyncTask, stage: Stage) -> None:
        die(task)
        assert self.sweep_after(stage, sweep)["sent"] == 0
        assert messages() == [task.key]

    def test_fail_a_used_up_task_once(self, task: AsyncTask, stage: Stage) -> None:
        use_up(task)
        assert self.sweep_after(stage, sweep)["failed"] == 0
        task.refresh_from_db()
        assert (task.status, task.fence) == (Status.FAILED, 5)

    def test_leave_a_task_alone_that_was_claimed_in_between(
        self, task: AsyncTask, stage: Stage
    ) -> None:
        make_overdue(task.key)
        assert self.sweep_after(stage, lambda: claim(task.key))["sent"] == 0
        assert messages() == []

    def test_do_not_fail_a_task_that_gave_a_sign_of_life_in_between(
        self, task: AsyncTask, stage: Stage
    ) -> None:
        use_up(task)

        def beat() -> None:
            TaskPulse.objects.update(lease_until=clock_plus(LEASE_SECONDS))

        assert self.sweep_after(stage, beat)["failed"] == 0
        task.refresh_from_db()
        assert task.status == Status.IN_PROGRESS
        assert held_by(task.key)


class TestCleaning:
    def lock(self, pk: int, holder: str) -> ObjectKey:
        ObjectLock.objects.create(model="kinds.bolt", object_id=str(pk), task_id=holder)
        return ObjectKey("kinds.bolt", str(pk))

    def test_locks_without_a_living_task_are_released_and_live_ones_never(self) -> None:
        for number, status in enumerate(Status.values):
            due = clock_plus(60)
            AsyncTask.objects.create(key=status, label=status, status=status, resend_at=due)
            self.lock(number, status)
        self.lock(99, "never heard of")

        assert sweep()["released"] == 4
        holders = set(ObjectLock.objects.values_list("task_id", flat=True))
        assert holders == {"pending", "waiting", "in_progress"}
        assert sweep(thorough=False)["released"] == 0

    def test_the_locks_of_an_open_launch_are_left_alone(self, stage: Stage) -> None:
        (project,) = Project.objects.bulk_create([Project(name="bridge")])
        open_ = stage.stop()

        def launch() -> None:
            with transaction.atomic():
                project.save()
                open_.wait_here()

        launcher = stage.act(launch, "launcher")
        open_.wait_until_reached()
        sweeper = stage.act(sweep, "sweeper")
        if connection.features.has_select_for_update:
            sweeper.result()
        else:
            sweeper.wait_until_blocked()
        open_.let_go()
        launcher.result()
        assert sweeper.result()["released"] == 0
        assert held_by(project.async_task.key) == {ObjectKey.of(project)}

    def test_the_record_of_a_task_that_ended_long_ago_is_deleted(
        self, task: AsyncTask, settings: Any
    ) -> None:
        run_task(task.key)
        settings.POWERCRUD_SETTINGS = {"CLEANUP_GRACE_PERIOD": 1000}
        self.ended_before(990, task)
        before = rows()
        assert sweep()["deleted"] == 0
        assert rows() == before
        self.ended_before(1010, task)
        assert sweep()["deleted"] == 1
        assert rows() == NOTHING

    @pytest.mark.parametrize("take", [None, claim], ids=["pending", "in progress"])
    def test_the_record_of_a_task_that_has_not_ended_is_kept_however_old(
        self, task: AsyncTask, take: Callable[[str], object] | None
    ) -> None:
        if take:
            take(task.key)
        long_ago = timezone.now() - timedelta(days=1000)
        AsyncTask.objects.filter(pk=task.key).update(created_at=long_ago)
        assert sweep()["deleted"] == 0
        assert AsyncTask.objects.filter(pk=task.key).exists()
        assert held_by(task.key)

    def ended_before(self, seconds: float, task: AsyncTask) -> None:
        AsyncTask.objects.filter(pk=task.key).update(finished_at=clock_plus(-seconds))
