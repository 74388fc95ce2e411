"""What a worker sweeps after a task: all that is due, or what the thread beside it leaves to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from powercrud_models import sweeper
from powercrud_models.models import AsyncTask
from powercrud_models.sweeper import Sweeper
from powercrud_models.tasks import run_task
from tests.deliveries import die, lose_messages, make_overdue, messages, task_of
from tests.kinds.models import Project
from tests.stage import DEADLINE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


class BusySweeper(Sweeper):
    """It has begun to look, and its first question waits until the test lets it go."""

    def __init__(self) -> None:
        super().__init__(run_task)
        self.looks = threading.Event()
        self.may_go_on = threading.Event()

    def run(self) -> None:
        with connection.execute_wrapper(self._wait):
            super().run()

    def _wait(self, execute: Any, *query: Any) -> Any:
        self.looks.set()
        assert self.may_go_on.wait(DEADLINE)
        return execute(*query)


@pytest.fixture
def thread(transactional_db: None) -> Iterator[BusySweeper]:
    """A thread that sweeps in this process; it does not get on before the test ends."""
    thread = BusySweeper()
    thread.start()
    assert thread.looks.wait(DEADLINE)
    yield thread
    thread.may_go_on.set()
    thread.stop()


@pytest.fixture
def late(project: Project) -> AsyncTask:
    """A task that waits for too long; its message is lost."""
    task = task_of(project)
    make_overdue(task.key)
    return task


@pytest.fixture
def orphan(queued: None) -> AsyncTask:
    """The task of a worker that has died."""
    task = task_of(Project.objects.create(name="tower"))
    die(task)
    return task


def run_another() -> None:
    """What a worker does: a task, and what comes after it."""
    task = task_of(Project.objects.create(name="tunnel"))
    lose_messages()
    run_task(task.key)


def test_a_worker_looks_after_pending_tasks(late: AsyncTask) -> None:
    run_another()
    assert messages() == [late.key]


def test_beside_a_thread_that_sweeps_it_leaves_them_to_that(
    late: AsyncTask, orphan: AsyncTask, thread: BusySweeper
) -> None:
    run_another()
    orphan.refresh_from_db()
    assert (orphan.status, orphan.recoveries) == (Status.SUCCESS, 1)
    assert messages() == []
    late.refresh_from_db()
    assert late.sends == 1


def test_beside_a_thread_it_looks_now_and_then_only(
    orphan: AsyncTask, thread: BusySweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SHORTEST_PAUSE", DEADLINE)
    assert thread.looks_now()
    run_another()
    orphan.refresh_from_db()
    assert orphan.status == Status.IN_PROGRESS
