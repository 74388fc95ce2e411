"""Work that is repeated after a deadlock begins where it began: nothing is left of the attempt.

The database raises its error here without a deadlock; ``test_deadlocks.py`` has real ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from powercrud_models.models import AsyncTask
from powercrud_models.tasks import run_task
from tests.deliveries import held_by, rows
from tests.kinds.models import Clock, Part, Project

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("queued"),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite knows no deadlock"),
]
RAISES = {
    "postgresql": "DO $$ BEGIN RAISE deadlock_detected; END $$",
    "mysql": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'as in a deadlock'",
}


def break_down() -> None:
    with connection.cursor() as cursor:
        cursor.execute(RAISES[connection.vendor])


def test_it_finds_its_object_as_it_was(project: Project, task: AsyncTask) -> None:
    found = []

    def work(project: Project) -> None:
        found.append(project.effects)
        project.effects += 10
        project.save(update_fields=["effects"])
        if len(found) == 1:
            break_down()

    Project.script = work
    run_task(task.key)

    task.refresh_from_db()
    assert (task.status, found) == (AsyncTask.Status.SUCCESS, [0, 0]), task.error
    assert Project.objects.get().effects == 11


def test_works_that_it_set_in_motion_run_again() -> None:
    (clock,) = Clock.objects.bulk_create([Clock()])
    attempts: list[int] = []

    def work(clock: Clock) -> None:
        attempts.append(clock.pk)
        clock.save()
        if len(attempts) == 1:
            break_down()

    Clock.script = work
    task = clock.wind.enqueue()
    run_task(task.key)

    task.refresh_from_db()
    assert (task.status, len(attempts)) == (AsyncTask.Status.SUCCESS, 2), task.error
    assert Clock.objects.get().strikes == 1


def test_its_locks_are_taken_again(project: Project, task: AsyncTask) -> None:
    (new,) = Part.objects.bulk_create([Part(name="new", project=Project.objects.create())])
    held: list[int] = []

    def work(project: Project) -> None:
        Part.objects.get(pk=new.pk).save()
        held.append(len(held_by(task.key)))
        if len(held) == 1:
            break_down()

    Project.script = work
    run_task(task.key)

    assert held == [3, 3]
    assert Part.objects.get(pk=new.pk).effects == 1
    assert task.key not in str(rows()["ObjectLock"])


@contextmanager
def a_deadlock_at(part_of_sql: str) -> Iterator[None]:
    """In front of the first such statement."""
    seen: list[str] = []

    def wrapper(execute: Any, sql: str, *rest: Any) -> Any:
        if part_of_sql in sql and not seen:
            seen.append(sql)
            break_down()
        return execute(sql, *rest)

    with connection.execute_wrapper(wrapper):
        yield
    assert seen


def test_a_claim_is_tried_again(task: AsyncTask) -> None:
    with a_deadlock_at("powercrud_models_taskpulse"):
        run_task(task.key)
    task.refresh_from_db()
    assert (task.status, task.attempts, task.fence) == (AsyncTask.Status.SUCCESS, 1, 1)


def test_so_are_cancel_and_retry(task: AsyncTask) -> None:
    with a_deadlock_at("powercrud_models_taskitem"):
        task.cancel()
    assert (task.status, held_by(task.key)) == (AsyncTask.Status.CANCELLED, set())
    with a_deadlock_at("powercrud_models_objectlock"):
        task.retry()
    assert (task.status, len(held_by(task.key))) == (AsyncTask.Status.PENDING, 2)
    run_task(task.key)
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.SUCCESS
