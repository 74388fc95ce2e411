"""Signs of life that something stands in the way of: a lost session, SQLite's one writer."""

from __future__ import annotations

import itertools
import threading
from datetime import datetime

import pytest
from django.db import connection, transaction

from powercrud_models import heartbeat, progress
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


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no sessions to end")
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
