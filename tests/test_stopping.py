"""A process that is told to stop: the try in hand ends, the rest is left to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from django_q.exceptions import TimeoutException

from powercrud_models.models import AsyncTask, TaskItem
from powercrud_models.stopping import stopping
from tests.deliveries import deliver, held_by, messages
from tests.kinds.declared import Attempt

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status
Tell = Callable[[], None]


class Interrupted(BaseException):
    """What Ctrl-C looks like; that one would end the test run, should it get so far."""


def tell_process() -> None:
    """What SIGTERM does to a worker that has a task in hand."""
    stopping.was_told = True


def tell_cluster() -> None:
    """The cluster of this worker is told, and not the worker itself."""
    stopping.follow(lambda: True)


each_of_them = pytest.mark.parametrize("tell", [tell_process, tell_cluster])


@pytest.fixture(autouse=True)
def _goes_on() -> Iterator[None]:
    """The process of the tests is told nothing any more when a test ends."""
    yield
    stopping.was_told = False
    stopping.follow(lambda: False)


@pytest.fixture
def attempt(db: None) -> Attempt:
    return Attempt.objects.create()


@each_of_them
def test_no_further_try_is_begun(attempt: Attempt, tell: Tell) -> None:
    calls: list[int] = []

    def script(_: Attempt) -> None:
        calls.append(1)
        tell()
        raise ValueError("broken")

    Attempt.script = script
    task = attempt.persist.enqueue()
    held = held_by(task.key)
    with suppress(SystemExit):
        deliver()
    task.refresh_from_db()
    assert (len(calls), task.status, messages()) == (1, Status.PENDING, [task.key])
    assert (task.attempts, task.recoveries) == (0, 0)
    item = task.items.get()
    assert (item.status, item.tries) == (TaskItem.Status.TODO, 1)
    assert held_by(task.key) == held


@each_of_them
def test_a_task_that_comes_afterwards_is_sent_again(attempt: Attempt, tell: Tell) -> None:
    """A worker has fetched its message, which nobody else will get."""
    task = attempt.persist.enqueue()
    tell()
    with suppress(SystemExit):
        deliver()
    task.refresh_from_db()
    assert (task.status, task.fence, messages()) == (Status.PENDING, 0, [task.key])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, Status.SUCCESS),
        (ValueError, Status.FAILED),
        (Interrupted, Status.PENDING),
        (TimeoutException, Status.PENDING),
    ],
)
def test_the_process_ends_with_the_task_however_that_ends(
    attempt: Attempt, error: type[BaseException] | None, status: str
) -> None:
    def script(_: Attempt) -> None:
        tell_process()
        if error is not None:
            raise error("by the work")

    Attempt.script = script
    task = attempt.wind_up.enqueue()
    with pytest.raises(SystemExit) as ended:
        deliver()
    assert (type(ended.value), ended.value.code) == (SystemExit, 0)
    assert not stopping.is_busy
    task.refresh_from_db()
    assert task.status == status


def test_it_ends_with_a_task_that_comes_afterwards(attempt: Attempt) -> None:
    attempt.wind_up.enqueue()
    tell_process()
    with pytest.raises(SystemExit):
        deliver()


def test_a_worker_whose_cluster_stops_is_ended_by_that(attempt: Attempt) -> None:
    Attempt.script = lambda _: tell_cluster()
    task = attempt.wind_up.enqueue()
    deliver()
    task.refresh_from_db()
    assert task.status == Status.SUCCESS
