"""The thread of each worker that sweeps by itself, and when it thinks that something is due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections

from powercrud_models import hold
from powercrud_models.clock import clock_plus
from powercrud_models.lifecycle import claim, seconds_until_due
from powercrud_models.models import AsyncTask, TaskPulse
from powercrud_models.stopping import stopping
from powercrud_models.sweeper import Sweeper
from tests.deliveries import die, lose_messages, make_overdue, messages
from tests.gates import until
from tests.kinds.models import Project

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

LEASE_SECONDS = 60


@pytest.fixture
def asked() -> list[str]:
    """The tasks that the main thread was asked to run."""
    return []


@pytest.fixture
def sweeper(asked: list[str]) -> Iterator[Sweeper]:
    sweeper = Sweeper(asked.append)
    yield sweeper
    if sweeper.is_alive():
        sweeper.stop()


def due() -> float | None:
    return seconds_until_due(connection.alias)


class TestWhatIsDueNext:
    def test_nothing(self, db: None) -> None:
        assert due() is None

    def test_a_pending_task_that_nobody_claims(self, task: AsyncTask) -> None:
        assert due() == pytest.approx(LEASE_SECONDS, abs=20)

    def test_a_running_task_when_its_lease_is_over(self, task: AsyncTask) -> None:
        claim(task.key)
        assert due() == pytest.approx(LEASE_SECONDS, abs=20)
        TaskPulse.objects.update(lease_until=clock_plus(500))
        assert due() == pytest.approx(500, abs=20)

    def test_a_dead_workers_task_that_was_sent_again_when_that_is_overdue(
        self, task: AsyncTask
    ) -> None:
        die(task)
        assert -20 < due() < 0  # type: ignore[operator]
        AsyncTask.objects.update(resend_at=clock_plus(500))
        assert due() == pytest.approx(500, abs=20)

    def test_the_first_of_several(self, task: AsyncTask) -> None:
        claim(task.key)
        other = Project.objects.create(name="tunnel").async_task
        AsyncTask.objects.filter(pk=other.key).update(resend_at=clock_plus(500))
        assert due() == pytest.approx(LEASE_SECONDS, abs=20)
        AsyncTask.objects.filter(pk=other.key).update(resend_at=clock_plus(-500))
        assert due() == pytest.approx(-500, abs=20)

    def test_a_hold_whose_process_may_die(self, project: Project) -> None:
        AsyncTask.objects.all().delete()
        with hold(Project.objects.create(name="tunnel").parts.all()):
            pass
        assert due() == pytest.approx(LEASE_SECONDS, abs=20)


def test_it_sends_what_is_due(task: AsyncTask, sweeper: Sweeper) -> None:
    make_overdue(task.key)
    sweeper.start()
    until(lambda: messages() == [task.key], "it was sent")


def test_it_sends_what_becomes_due(task: AsyncTask, sweeper: Sweeper, settings: Any) -> None:
    claim(task.key)
    TaskPulse.objects.update(lease_until=clock_plus(1))
    sweeper.start()
    until(lambda: messages() == [task.key], "it was sent", LEASE_SECONDS / 4)


def test_it_looks_again_after_an_error_of_the_database(
    task: AsyncTask, sweeper: Sweeper, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.POWERCRUD_SETTINGS = {
        "ASYNC_ENABLED": True,
        "QUEUE": "django-q2",
        "LEASE_SECONDS": 2,
        "HEARTBEAT_SECONDS": 1,
    }
    caplog.set_level("INFO", logger="powercrud_models")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE powercrud_models_taskpulse RENAME TO away")
    try:
        sweeper.start()
        until(lambda: "Nothing could be swept" in caplog.text, "it has failed")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO powercrud_models_taskpulse")
    lose_messages()
    make_overdue(task.key)
    until(lambda: messages() == [task.key], "it was sent")


def test_it_keeps_no_connection(task: AsyncTask, asked: list[str]) -> None:
    looked: list[object] = []

    class Watched(Sweeper):
        def _sweep(self) -> float:
            pause = super()._sweep()
            looked.append(connections["default"].connection)
            return pause

    watched = Watched(asked.append)
    watched.start()
    until(lambda: looked, "it has looked")
    watched.stop()
    assert set(looked) == {None}


def was_sent_in_vain(task: AsyncTask) -> None:
    """As if its worker had died, and the queue did not bring what was sent since."""
    die(task)
    AsyncTask.objects.update(started_at=clock_plus(-500), resend_at=clock_plus(-250))
    lose_messages()


class TestADeadWorkersTaskThatTheQueueDoesNotBring:
    def test_this_process_is_to_run_it_and_it_is_sent_again(
        self, task: AsyncTask, sweeper: Sweeper, asked: list[str]
    ) -> None:
        was_sent_in_vain(task)
        sweeper.start()
        until(lambda: messages() == [task.key], "it was sent")
        assert asked == [task.key]

    def test_one_that_is_sent_for_the_first_time_is_left_to_the_queue(
        self, task: AsyncTask, sweeper: Sweeper, asked: list[str]
    ) -> None:
        die(task)
        sweeper.start()
        until(lambda: messages() == [task.key], "it was sent")
        assert asked == []

    def test_a_busy_process_leaves_it_to_others(
        self, task: AsyncTask, sweeper: Sweeper, asked: list[str]
    ) -> None:
        was_sent_in_vain(task)
        with stopping.put_off():
            sweeper.start()
            until(lambda: messages() == [task.key], "it was sent")
        assert asked == []
