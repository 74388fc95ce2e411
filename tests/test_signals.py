"""The signals of a task's life: after the commit, and never able to break a task."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from powercrud_models import progress, signals
from powercrud_models.lifecycle import claim
from powercrud_models.models import AsyncTask
from tests.deliveries import deliver, expire_lease, lose_messages, task_of, undone
from tests.kinds.models import Crew, Project
from tests.stage import DEADLINE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

NAMES = ("task_created", "task_started", "task_progressed", "task_finished", "task_recovered")


@pytest.fixture
def heard() -> Iterator[list[tuple[str, str]]]:
    """Each signal that was sent, with the status of its task in the database."""
    heard: list[tuple[str, str]] = []

    def listener(name: str) -> Any:
        def listen(sender: type, task: AsyncTask, **_: Any) -> None:
            heard.append((name.removeprefix("task_"), task.status))

        return listen

    listeners = {name: listener(name) for name in NAMES}
    for name, listen in listeners.items():
        getattr(signals, name).connect(listen)
    yield heard
    for name, listen in listeners.items():
        getattr(signals, name).disconnect(listen)


@pytest.fixture
def project(db: None) -> Project:
    [project] = Project.objects.bulk_create([Project(name="bridge")])
    return project


def test_the_life_of_a_task(project: Project, heard: list[tuple[str, str]]) -> None:
    project.save()
    assert heard == [("created", "pending")]
    deliver()
    assert heard[1:] == [("started", "in_progress"), ("finished", "success")]


def test_one_transaction_is_one_task(project: Project, heard: list[tuple[str, str]]) -> None:
    with transaction.atomic():
        project.save()
        project.save()
        assert heard == []
    assert heard == [("created", "pending")]


def test_a_rollback_is_silent(project: Project, heard: list[tuple[str, str]]) -> None:
    with undone():
        project.save()
    assert heard == []


def test_a_failure_and_a_cancel(project: Project, heard: list[tuple[str, str]]) -> None:
    def fail(_: Project) -> None:
        raise ValueError("no")

    Project.script = fail
    project.save()
    deliver()
    assert heard[-1] == ("finished", "failed")
    task_of(project).retry()
    task_of(project).cancel()
    assert heard[-1] == ("finished", "cancelled")


def test_a_task_that_is_taken_from_a_dead_worker(
    project: Project, heard: list[tuple[str, str]]
) -> None:
    project.save()
    lose_messages()
    key = task_of(project).key
    assert claim(key)
    expire_lease(key)
    heard.clear()
    assert claim(key)
    assert heard == [("recovered", "in_progress"), ("started", "in_progress")]


def test_progress(heard: list[tuple[str, str]]) -> None:
    [crew] = Crew.objects.bulk_create([Crew(name="night")])

    def work(_: Crew) -> None:
        pause = threading.Event()
        for _step in progress(range(DEADLINE * 100)):
            if ("progressed", "in_progress") in heard:
                return
            pause.wait(0.01)

    Crew.script = work
    crew.post.enqueue()
    deliver()
    assert ("progressed", "in_progress") in heard


def test_a_receiver_that_raises_breaks_nothing(project: Project) -> None:
    def broken(**_: Any) -> None:
        raise ValueError("a receiver")

    for name in NAMES:
        getattr(signals, name).connect(broken)
    try:
        project.save()
        deliver()
    finally:
        for name in NAMES:
            getattr(signals, name).disconnect(broken)
    task = task_of(project)
    assert task.status == AsyncTask.Status.SUCCESS, task.error
