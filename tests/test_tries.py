"""``retries`` and ``timeout``: work that raises is tried again, work that hangs is stopped."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from django.db import connection, transaction

from powercrud_models.models import AsyncTask
from powercrud_models.timeouts import WorkTimeout, call_limited
from tests.deliveries import deliver, held_by
from tests.kinds.declared import Attempt

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

LONG = 30
"""Seconds: a work that takes this long hangs."""


@pytest.fixture
def attempt(db: None) -> Attempt:
    return Attempt.objects.create()


def ended(task: AsyncTask) -> AsyncTask:
    deliver()
    task.refresh_from_db()
    assert task.is_finished
    assert not held_by(task.key)
    return task


class Raising:
    """A script that raises the first so many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls = 0

    def __call__(self, attempt: Attempt) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise ValueError(f"no {self.calls}")
        return f"yes after {self.calls}"


def test_work_that_raises_is_tried_again(attempt: Attempt) -> None:
    Attempt.script = Raising(times=2)
    task = ended(attempt.persist.enqueue())
    assert task.result() == "yes after 3"
    attempt.refresh_from_db()
    assert attempt.tried == 1  # what a try wrote that failed is undone


def test_when_the_tries_are_used_up_the_task_fails(attempt: Attempt) -> None:
    Attempt.script = Raising(times=9)
    task = ended(attempt.persist.enqueue())
    assert task.status == AsyncTask.Status.FAILED
    assert "no 3" in task.error
    attempt.refresh_from_db()
    assert attempt.tried == 0


def test_a_cancel_during_a_try_leaves_no_further_one(attempt: Attempt) -> None:
    calls: list[int] = []

    def script(attempt: Attempt) -> None:
        calls.append(1)
        AsyncTask.objects.get().cancel()
        raise ValueError("broken")

    Attempt.script = script
    task = ended(attempt.insist.enqueue())
    assert (len(calls), task.status) == (1, AsyncTask.Status.CANCELLED)
    assert task.items.get().status == "skipped"


def hang(attempt: Attempt) -> None:
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        time.sleep(0.01)


def test_work_that_takes_too_long_is_stopped_and_undone(attempt: Attempt) -> None:
    Attempt.script = hang
    task = ended(attempt.hurry.enqueue())
    assert task.status == AsyncTask.Status.FAILED
    assert "took longer than its timeout of 0.05 s" in task.error
    attempt.refresh_from_db()
    assert attempt.tried == 0


def test_what_it_wrote_in_autocommit_stays_and_each_try_has_the_whole_time(
    attempt: Attempt,
) -> None:
    Attempt.script = hang
    task = ended(attempt.hurry_twice.enqueue())
    assert task.status == AsyncTask.Status.FAILED
    attempt.refresh_from_db()
    assert attempt.tried == 2


def test_work_in_time_is_let_be(attempt: Attempt) -> None:
    task = ended(attempt.hurry.enqueue())
    assert task.status == AsyncTask.Status.SUCCESS
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_work_that_swallows_every_exception_is_stopped_all_the_same(attempt: Attempt) -> None:
    def careless(attempt: Attempt) -> None:
        deadline = time.monotonic() + LONG
        while time.monotonic() < deadline:
            with suppress(Exception):
                time.sleep(0.01)

    Attempt.script = careless
    assert ended(attempt.hurry.enqueue()).status == AsyncTask.Status.FAILED


@pytest.mark.parametrize("work", ["hurry", "hurry_twice"])
def test_a_query_that_runs_is_cancelled(attempt: Attempt, work: str) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite runs its queries in C, in this very thread")
    query = f"SELECT pg_sleep({LONG})"
    if connection.vendor == "mysql":  # its SLEEP() ends when the client is gone
        query = "SELECT BENCHMARK(4000000000, 1 + 1)"

    def script(attempt: Attempt) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(query)

    Attempt.script = script
    started = time.monotonic()
    task = ended(getattr(attempt, work).enqueue())
    assert (task.status, time.monotonic() - started < LONG) == (AsyncTask.Status.FAILED, True)
    assert "took longer than its timeout" in task.error
    Attempt.script = None
    assert ended(attempt.persist.enqueue()).status == AsyncTask.Status.SUCCESS


def open_transactions() -> None:
    while True:
        with transaction.atomic():
            pass


def test_no_transaction_is_left_open_wherever_the_alarm_goes_off(db: None) -> None:
    for round_ in range(100):
        with suppress(WorkTimeout), transaction.atomic():
            call_limited(0.0005 + round_ / 1e6, "it", open_transactions)
        assert not connection.in_atomic_block


class TestTheProcessHasOneAlarmClock:
    @pytest.fixture(autouse=True)
    def _restored(self) -> object:
        handler = signal.getsignal(signal.SIGALRM)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)

    def others_alarm(self, seconds: float) -> list[float]:
        rung: list[float] = []
        signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
        signal.setitimer(signal.ITIMER_REAL, seconds)
        return rung

    def test_another_alarm_that_comes_first_keeps_its_place(self) -> None:
        rung = self.others_alarm(0.02)

        def wait() -> str:
            while not rung:
                time.sleep(0.005)
            return "done"

        assert call_limited(LONG, "it", wait) == "done"
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0

    def test_another_alarm_that_comes_later_is_set_again(self) -> None:
        rung = self.others_alarm(0.3)
        with pytest.raises(WorkTimeout):
            call_limited(0.02, "it", partial(time.sleep, LONG))
        assert not rung
        deadline = time.monotonic() + LONG
        while not rung and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(rung) == 1

    @pytest.mark.parametrize("seconds", [1e-7, 1e-6, 1e-5, 1e-4])
    def test_the_handler_is_restored_however_early_it_goes_off(self, seconds: float) -> None:
        handler = signal.getsignal(signal.SIGALRM)
        for _ in range(100):
            with suppress(WorkTimeout):
                call_limited(seconds, "it", int)
            assert signal.getsignal(signal.SIGALRM) is handler
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    def test_only_the_main_thread_has_one(self) -> None:
        with ThreadPoolExecutor(max_workers=1) as pool:
            work = pool.submit(call_limited, 0.001, "it", partial(time.sleep, 0.05))
            assert work.result(LONG) is None
