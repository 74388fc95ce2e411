"""Promise 6: a save that commits has recorded its task; what the queue loses is sent again."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from django.db import transaction
from django_q.brokers import Broker
from django_q.conf import Conf as DjangoQConf

from powercrud_models.lifecycle import sweep
from powercrud_models.models import AsyncTask
from powercrud_models.types import ObjectKey
from tests.deliveries import (
    deliver,
    held_by,
    lose_messages,
    make_overdue,
    messages,
    task_of,
)
from tests.kinds.models import Project
from tests.promises.made import effects, make_project, name_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


UseBroker = Callable[[type[Broker] | None], None]


class ClosedPort(Broker):  # type: ignore[misc]
    """A broker whose server is down."""

    def enqueue(self, task: str) -> None:
        with socket.socket() as taken:  # a port that nobody listens at
            taken.bind(("127.0.0.1", 0))
            socket.create_connection(taken.getsockname(), timeout=5)


class Killed(Broker):  # type: ignore[misc]
    """The process ends while it sends."""

    def enqueue(self, task: str) -> None:
        raise SystemExit("killed")


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> UseBroker:
    """Set django-q2's ``broker_class``, which it reads from the settings only once."""

    def use(kind: type[Broker] | None) -> None:
        path = kind and f"{kind.__module__}.{kind.__qualname__}"
        monkeypatch.setattr(DjangoQConf, "BROKER_CLASS", path)

    return use


def test_a_save_that_commits_has_recorded_its_task() -> None:
    project = make_project()
    with transaction.atomic():
        project.save()
        (task,) = AsyncTask.objects.all()
        assert held_by(task.key) == {ObjectKey.of(project)}
    assert project.async_task == task
    assert messages() == [task.key]


def test_a_broker_that_cannot_be_reached_is_noted_and_the_sweep_sends_again(
    broker: UseBroker, caplog: pytest.LogCaptureFixture
) -> None:
    project = make_project()
    broker(ClosedPort)
    project.name = "saved"
    project.save()

    task = project.async_task
    assert (name_of(project), task.status) == ("saved", Status.PENDING)
    assert task.queue_error.startswith("ConnectionRefusedError: ")
    assert f"Task {task.key} is saved but could not be sent" in caplog.text
    assert held_by(task.key) == {ObjectKey.of(project)}

    broker(None)
    make_overdue(task.key)
    assert sweep()["sent"] == 1
    assert messages() == [task.key]
    deliver()
    assert (AsyncTask.objects.get().status, effects(project)) == (Status.SUCCESS, 1)


def test_a_broker_that_is_still_down_leaves_the_task_to_the_next_sweep(
    broker: UseBroker,
) -> None:
    project = make_project()
    broker(ClosedPort)
    project.save()
    task = project.async_task
    for _ in range(2):
        make_overdue(task.key)
        sweep()
    broker(None)
    make_overdue(task.key)
    sweep()
    deliver()
    assert effects(project) == 1


@pytest.mark.parametrize("times", [1, 2], ids=["by the save", "and by a sweep"])
def test_what_could_not_be_sent_is_sent_at_its_time_though_others_wait_in_the_queue(
    broker: UseBroker, times: int
) -> None:
    """A task that was sent may be one of those in the queue, and is given its time; this is not."""
    unsent, waiting = make_project(), make_project()
    broker(ClosedPort)
    unsent.save()
    for _ in range(times - 1):
        make_overdue(task_of(unsent).key)
        assert sweep()["sent"] == 0
    broker(None)
    waiting.save()
    for project in (waiting, unsent):
        make_overdue(task_of(project).key)

    assert sweep()["sent"] == 1
    assert messages() == [task_of(waiting).key, task_of(unsent).key]


def test_other_callbacks_of_the_transaction_are_called_all_the_same(
    broker: UseBroker,
) -> None:
    project = make_project()
    broker(ClosedPort)
    called: list[str] = []
    with transaction.atomic():
        project.save()
        transaction.on_commit(lambda: called.append("the next"))
    assert called == ["the next"]


def test_a_process_that_ends_before_it_could_send_leaves_the_task_to_the_sweep(
    broker: UseBroker,
) -> None:
    project = make_project()
    broker(Killed)
    with pytest.raises(SystemExit):
        project.save()

    broker(None)
    task = AsyncTask.objects.get()
    assert (task.status, task.queue_error) == (Status.PENDING, "")
    make_overdue(task.key)
    sweep()
    deliver()
    assert effects(project) == 1


def test_a_message_that_the_queue_lost_is_sent_again_once_it_is_overdue() -> None:
    project = make_project()
    project.save()
    task = project.async_task
    lose_messages()

    assert sweep()["sent"] == 0
    assert messages() == []
    make_overdue(task.key)
    assert sweep()["sent"] == 1
    assert messages() == [task.key]
    deliver()
    assert effects(project) == 1


def test_the_immediate_queue_runs_what_was_committed_and_keeps_errors_on_the_task(
    immediate: None,
) -> None:
    project = make_project()
    Project.script = lambda project: 1 / 0
    with transaction.atomic():
        project.save()
        assert project.async_task.status == Status.PENDING
    assert project.async_task.status == Status.FAILED
