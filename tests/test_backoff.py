"""Tries that wait, errors that no try mends, deaths that are counted, and ends of processes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

import pytest
from django.db import connection, transaction

from powercrud_models.lifecycle import sweep
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from powercrud_models.tasks import run_task
from powercrud_models.types import WorkOptions
from tests.deliveries import (
    deliver,
    die,
    held_by,
    lose_messages,
    make_overdue,
    messages,
    task_of,
    wait_of,
)
from tests.kinds.declared import Attempt
from tests.kinds.models import Project

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


@pytest.fixture
def attempt(db: None) -> Attempt:
    return Attempt.objects.create()


def broken(attempt: Attempt) -> None:
    raise ValueError("broken")


def try_again(task: AsyncTask) -> None:
    """As if its pause were over."""
    make_overdue(task.key)
    assert sweep()["sent"] == 1
    assert deliver() == 1
    task.refresh_from_db()


class TestBackoff:
    def test_between_two_tries_the_task_waits_with_its_locks(self, attempt: Attempt) -> None:
        Attempt.script = broken
        task = attempt.wait_and_see.enqueue()
        held = held_by(task.key)
        deliver()
        task.refresh_from_db()
        assert (task.status, messages()) == (Status.PENDING, [])
        assert held_by(task.key) == held
        assert wait_of(task) == pytest.approx(100, abs=20)
        item = task.items.get()
        assert (item.status, item.tries) == (TaskItem.Status.TODO, 1)
        assert "ValueError: broken" in item.error

    def test_each_pause_is_twice_as_long_and_then_it_fails(self, attempt: Attempt) -> None:
        Attempt.script = broken
        task = attempt.wait_and_see.enqueue()
        deliver()
        pauses = [wait_of(task)]
        try_again(task)
        pauses.append(wait_of(task))
        assert pauses == [pytest.approx(100, abs=20), pytest.approx(200, abs=20)]
        try_again(task)
        assert (task.status, task.items.get().tries) == (Status.FAILED, 2)
        assert "ValueError: broken" in task.error
        assert not ObjectLock.objects.exists()

    def test_a_later_try_that_is_well_leaves_no_error(self, attempt: Attempt) -> None:
        Attempt.script = broken
        task = attempt.wait_and_see.enqueue()
        deliver()
        Attempt.script = None
        try_again(task)
        assert (task.status, task.error, task.items.get().error) == (Status.SUCCESS, "", "")

    def test_other_items_do_not_wait(self, db: None) -> None:
        first, second = Attempt.objects.create(), Attempt.objects.create()

        def script(attempt: Attempt) -> None:
            if attempt == first:
                raise ValueError("broken")

        Attempt.script = script
        with transaction.atomic():
            task = first.wait_and_see.enqueue()
            assert second.wait_and_see.enqueue().key == task.key
        deliver()
        task.refresh_from_db()
        assert task.status == Status.PENDING
        assert list(task.items.order_by("pk").values_list("status", flat=True)) == ["todo", "done"]
        Attempt.script = None
        try_again(task)
        assert task.status == Status.SUCCESS
        assert sorted(Attempt.objects.values_list("tried", flat=True)) == [1, 1]

    def test_it_can_be_cancelled_meanwhile(self, attempt: Attempt) -> None:
        Attempt.script = broken
        task = attempt.wait_and_see.enqueue()
        deliver()
        task.cancel()
        assert (task.status, task.items.get().status) == (Status.CANCELLED, "skipped")

    def test_a_cancel_during_the_try_is_not_forgotten_for_a_pause(self, attempt: Attempt) -> None:
        def script(_: Attempt) -> None:
            AsyncTask.objects.get().cancel()
            raise ValueError("broken")

        Attempt.script = script
        task = attempt.linger.enqueue()
        deliver()
        task.refresh_from_db()
        assert (task.status, task.items.get().status) == (Status.CANCELLED, "skipped")
        assert not ObjectLock.objects.exists()

    def test_nobody_waits_where_there_is_no_worker(self, attempt: Attempt, immediate: None) -> None:
        Attempt.script = broken
        task = attempt.wait_and_see.enqueue()
        assert (task.status, task.items.get().tries) == (Status.FAILED, 2)

    def test_it_grows_to_an_hour_or_to_the_first_pause(self) -> None:
        growing = WorkOptions(on=None, retry_backoff=10)
        assert [growing.backoff(tries) for tries in (1, 2, 3, 1000)] == [10, 20, 40, 3600]
        assert WorkOptions(on=None, retry_backoff=7200).backoff(5) == 7200
        assert WorkOptions(on=None).backoff(5) == 0


@pytest.mark.parametrize("error", [LookupError, KeyError])
def test_what_no_try_would_mend_is_not_tried_again(
    attempt: Attempt, error: type[Exception]
) -> None:
    calls: list[Attempt] = []

    def script(attempt: Attempt) -> None:
        calls.append(attempt)
        raise error("hopeless")

    Attempt.script = script
    task = attempt.persist_but.enqueue()
    deliver()
    task.refresh_from_db()
    assert (task.status, len(calls)) == (Status.FAILED, 1)


def test_tries_are_counted_over_the_death_of_a_worker(attempt: Attempt) -> None:
    calls: list[int] = []

    def script(attempt: Attempt) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        raise ValueError("broken")

    Attempt.script = script
    task = attempt.persist.enqueue()
    with pytest.raises(KeyboardInterrupt):
        deliver()
    deliver()
    task.refresh_from_db()
    assert (task.status, len(calls)) == (Status.FAILED, 4)  # three tries, and one was cut off


class TestDeaths:
    def test_their_number_is_an_option(self, attempt: Attempt) -> None:
        task = attempt.once_only.enqueue()
        die(task)
        assert sweep()["failed"] == 1
        task.refresh_from_db()
        assert task.error.endswith("1 of them.")

    def test_of_several_works_the_most_careful_decides(self, attempt: Attempt) -> None:
        with transaction.atomic():
            task = attempt.persist.enqueue()
            attempt.once_only.enqueue()
        die(task)
        assert sweep()["failed"] == 1

    def test_one_that_is_done_has_no_say(self, attempt: Attempt) -> None:
        with transaction.atomic():
            task = attempt.persist.enqueue()
            attempt.once_only.enqueue()
        task.items.filter(work="once_only").update(status="done")
        die(task)
        assert sweep() == {"sent": 1, "failed": 0, "released": 0, "deleted": 0}

    def test_whoever_ends_an_item_is_counted_no_more(self, db: None) -> None:
        """A long task may outlive any number of workers, if each of them gets on with it."""
        projects = Project.objects.bulk_create([Project(name=name) for name in "abcdefgh"])

        def work(project: Project) -> None:
            if project.name != "a" and AsyncTask.objects.get().attempts < ord(project.name) - 96:
                raise KeyboardInterrupt

        Project.script = work
        with transaction.atomic():
            for project in projects:
                project.save()
        task = task_of(projects[0])
        lose_messages()
        for _ in projects[1:]:
            with pytest.raises(KeyboardInterrupt):
                run_task(task.key)
        run_task(task.key)
        task.refresh_from_db()
        assert (task.status, task.attempts) == (Status.SUCCESS, len(projects))
        assert set(Project.objects.values_list("effects", flat=True)) == {1}


class Stopped(BaseException):
    """What the time limit of a queue looks like, or Ctrl-C."""


class TestWhatStopsTheProcess:
    def test_gives_the_task_to_another_at_once(self, attempt: Attempt) -> None:
        self.raised_by_work(attempt, Stopped)
        task = AsyncTask.objects.get()
        assert (task.status, task.recoveries, messages()) == (Status.PENDING, 1, [task.key])
        assert Attempt.objects.get().tried == 0
        assert held_by(task.key)
        Attempt.script = None
        deliver()
        task.refresh_from_db()
        assert (task.status, Attempt.objects.get().tried) == (Status.SUCCESS, 1)

    def test_fails_the_task_when_it_always_does(self, attempt: Attempt) -> None:
        self.raised_by_work(attempt, Stopped)
        for _ in range(3):
            with suppress(Stopped):
                deliver()
        task = AsyncTask.objects.get()
        assert (task.status, task.recoveries, messages()) == (Status.FAILED, 3, [])
        assert "Stopped: by the work" in task.error
        assert not ObjectLock.objects.exists()

    def test_but_for_sys_exit_which_fails_the_item(self, attempt: Attempt) -> None:
        Attempt.script = lambda _: sys.exit(3)
        task = attempt.wind_up.enqueue()
        deliver()
        task.refresh_from_db()
        assert task.status == Status.FAILED
        assert "called sys.exit(3)" in task.error

    def raised_by_work(self, attempt: Attempt, error: type[BaseException]) -> None:
        def script(_: Attempt) -> None:
            raise error("by the work")

        Attempt.script = script
        attempt.wind_up.enqueue()
        with pytest.raises(error):
            deliver()


def test_ctrl_c_does_not_begin_the_work_again_in_this_process(
    attempt: Attempt, immediate: None
) -> None:
    calls: list[int] = []

    def script(_: Attempt) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    Attempt.script = script
    with pytest.raises(KeyboardInterrupt):
        attempt.wind_up.enqueue()
    task = AsyncTask.objects.get()
    assert (len(calls), task.status, task.recoveries) == (1, Status.PENDING, 1)


def test_work_that_closes_its_connection_and_fails_has_failed(attempt: Attempt) -> None:
    def script(_: Attempt) -> None:
        connection.close()
        raise ValueError("broken")

    Attempt.script = script
    task = attempt.linger_once.enqueue()
    deliver()
    task.refresh_from_db()
    assert task.status == Status.FAILED
    assert "ValueError: broken" in task.error


@pytest.mark.parametrize("work", ["persist", "wind_up"])
def test_memory_that_is_used_up_is_an_error_like_others(attempt: Attempt, work: str) -> None:
    def script(_: Attempt) -> None:
        raise MemoryError

    Attempt.script = script
    enqueue: Callable[[], AsyncTask] = getattr(attempt, work).enqueue
    task = enqueue()
    deliver()
    task.refresh_from_db()
    assert task.status == Status.FAILED
    assert "MemoryError" in task.error
