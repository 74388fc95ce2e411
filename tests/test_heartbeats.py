"""Signs of life that something stands in the way of: a lost session, SQLite's one writer."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from django.db import connection, transaction

from powercrud_models import heartbeat, hold, progress
from powercrud_models.lifecycle import claim
from powercrud_models.models import AsyncTask, TaskPulse
from powercrud_models.tasks import run_task
from tests.gates import until
from tests.kinds.models import Crew
from tests.promises.made import make_crew
from tests.stage import DEADLINE, Stage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

RENEWS = 'UPDATE "powercrud_models_taskpulse" %'


def beat_at() -> datetime:
    return TaskPulse.objects.values_list("beat_at", flat=True).get()


def sessions_of_heartbeats() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE %s",
            [RENEWS],
        )
        return [pid for (pid,) in cursor.fetchall()]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL tells which it is")
def test_a_heartbeat_whose_session_is_ended_goes_on_with_another(stage: Stage) -> None:
    crew, _ = make_crew()
    over = threading.Event()

    def work(crew: Crew) -> str:
        for _ in progress(itertools.repeat(None)):
            if over.wait(0.01):
                return "done"
        raise AssertionError("the loop has no end")

    Crew.script = work
    task = crew.post.enqueue()
    worker = stage.act(lambda: run_task(task.key), "worker")
    try:
        [session] = until(sessions_of_heartbeats, "a beat", DEADLINE)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [session])
        until(lambda: session not in sessions_of_heartbeats(), "the session ends", DEADLINE)
        last = beat_at()
        until(lambda: beat_at() > last, "another beat", DEADLINE)
        [another] = sessions_of_heartbeats()
    finally:
        over.set()
    worker.result()

    assert another != session
    assert task.result(timeout=DEADLINE) == "done"


@pytest.mark.skipif(connection.vendor != "sqlite", reason="elsewhere several may write at once")
def test_progress_does_not_fail_when_another_writer_keeps_the_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "TURN_SECONDS", 0)  # a turn is over after each step
    monkeypatch.setattr(heartbeat, "PAUSE_SECONDS", 0)
    crew, _ = make_crew()
    writing = stage.stop()
    steps: list[int] = []

    def write() -> None:
        with transaction.atomic():
            writing.wait_here()

    def work(crew: Crew) -> str:
        writer = stage.act(write, "another writer")
        writing.wait_until_reached()
        with connection.cursor() as cursor:
            patience = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
            cursor.execute("PRAGMA busy_timeout = 1")
            try:
                steps.extend(progress(range(3)))
            finally:
                cursor.execute(f"PRAGMA busy_timeout = {patience}")
                writing.let_go()
        writer.result()
        return "done"

    Crew.script = work
    task = crew.post.enqueue()
    run_task(task.key)

    task.refresh_from_db()
    assert (task.status, task.error) == (AsyncTask.Status.SUCCESS, "")
    assert task.result() == "done"
    assert steps == [0, 1, 2]


class TestWorkThatHangs:
    @pytest.fixture(autouse=True)
    def _short(self, queued: None, settings: Any) -> None:
        settings.POWERCRUD_SETTINGS = {
            "ASYNC_ENABLED": True,
            "QUEUE": "django-q2",
            "LEASE_SECONDS": 2,
            "HEARTBEAT_SECONDS": 1,
            "MAX_TASK_DURATION": 1,
        }

    def is_taken_over(self, task: AsyncTask) -> bool:
        return claim(task.key) is not None

    def test_gives_no_more_sign_of_life(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        over = stage.stop()
        Crew.script = lambda _: over.wait_here()
        task = make_crew()[0].post.enqueue()
        worker = stage.act(lambda: run_task(task.key), "worker")
        over.wait_until_reached()
        until(lambda: self.is_taken_over(task), "the task was taken over", DEADLINE)
        assert caplog.text.count("made no progress for 1 s") == 1
        over.let_go()
        worker.result()
        task.refresh_from_db()
        assert (task.status, task.attempts) == (AsyncTask.Status.IN_PROGRESS, 2)

    @pytest.mark.parametrize("nested", [False, True])
    def test_work_that_gets_on_does_not(self, *, nested: bool) -> None:
        def steps() -> Iterator[int]:
            for step in range(40):
                threading.Event().wait(0.1)
                yield step

        def work(_: Crew) -> int:
            if not nested:
                return sum(1 for _ in progress(steps()))
            return sum(sum(1 for _ in progress(steps())) for _ in progress(range(1)))

        Crew.script = work
        task = make_crew()[0].post.enqueue()
        run_task(task.key)
        task.refresh_from_db()
        assert (task.status, task.attempts, task.result()) == (AsyncTask.Status.SUCCESS, 1, 40)

    def test_a_hold_may_take_its_time(self, stage: Stage) -> None:
        crew, _ = make_crew()
        over = stage.stop()

        def keep() -> None:
            with hold(crew):
                over.wait_here()

        keeper = stage.act(keep, "keeper")
        over.wait_until_reached()
        pulses = TaskPulse.objects.all()
        first = pulses.get().lease_until

        def is_renewed_after_the_limit() -> bool:
            return (pulses.get().lease_until - first).total_seconds() > 3

        until(is_renewed_after_the_limit, "the hold was renewed", DEADLINE)
        over.let_go()
        keeper.result()
