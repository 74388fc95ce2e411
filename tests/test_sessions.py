"""Sessions that hold a task's fence: ended when their process stops, kept awake when it lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.db.models.signals import post_save

from powercrud_models import hold
from powercrud_models.lifecycle import claim, hold_fence
from powercrud_models.models import AsyncTask
from powercrud_models.sessions import end_if_lost, kept_awake
from powercrud_models.tasks import run_task
from tests.gates import until
from tests.kinds.models import Crew, Member, Project
from tests.promises.made import make_crew
from tests.stage import DEADLINE, Stage, backend

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("queued"),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no sessions"),
]
on_postgresql = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="elsewhere only the whole server can be told so"
)


@pytest.fixture
def short_lease(queued: None, settings: Any) -> None:
    settings.POWERCRUD_SETTINGS = {
        "ASYNC_ENABLED": True,
        "QUEUE": "django-q2",
        "LEASE_SECONDS": 2,
        "HEARTBEAT_SECONDS": 1,
    }


def patience() -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SELECT CONCAT(@@idle_transaction_timeout, 's')")
        else:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
        [answer] = cursor.fetchone()
        return str(answer)


def test_the_transaction_of_an_item_has_a_limit_and_no_other(
    task: AsyncTask, short_lease: None
) -> None:
    before = patience()
    seen: list[str] = []
    Project.script = lambda _: seen.append(patience())
    run_task(task.key)
    assert (seen, patience()) == (["2s"], before)


def test_the_transaction_of_a_test_has_none(task: AsyncTask, short_lease: None) -> None:
    taken = claim(task.key)
    assert taken is not None
    block = transaction.atomic()
    block._from_testcase = True  # type: ignore[attr-defined]  # as Django's TestCase marks it
    with block:
        before = patience()
        hold_fence(taken)
        assert patience() == before


@pytest.fixture
def patience_of_saves(short_lease: None) -> Iterator[list[str]]:
    """How long each transaction that saves a member may be idle."""
    seen: list[str] = []

    def look(**_: object) -> None:
        seen.append(patience())

    post_save.connect(look, sender=Member)
    yield seen
    post_save.disconnect(look, sender=Member)


def test_the_transaction_of_a_save_has_one_in_the_thread_of_the_work_alone(
    patience_of_saves: list[str],
) -> None:
    """The heartbeat keeps the session of that thread awake, and not those of others."""
    crew, member = make_crew()

    def save_in_thread() -> None:
        try:
            member.save()
        finally:
            connections.close_all()

    def work(_: Crew) -> None:
        member.save()
        thread = threading.Thread(target=copy_context().run, args=(save_in_thread,))
        thread.start()
        thread.join(DEADLINE)
        member.save()

    before = patience()
    Crew.script = work
    task = crew.post.enqueue()
    run_task(task.key)
    task.refresh_from_db()
    assert (task.status, task.error) == (AsyncTask.Status.SUCCESS, "")
    assert patience_of_saves == ["2s", before, "2s"]
    with hold(member):  # the task is over, and nobody keeps this session awake any more
        member.save()
    assert patience_of_saves[3:] == [before]


def test_the_transactions_in_a_hold_are_its_users(patience_of_saves: list[str]) -> None:
    """What the block computes in a transaction of its own may take long."""
    _, member = make_crew()
    before = patience()
    with hold(member):
        member.save()
    assert patience_of_saves == [before]


def test_atomic_work_that_computes_for_longer_than_a_lease_is_let_be(
    task: AsyncTask, short_lease: None
) -> None:
    Project.script = lambda _: threading.Event().wait(5)  # without a word to the database
    run_task(task.key)
    task.refresh_from_db()
    assert (task.status, task.attempts, task.error) == (AsyncTask.Status.SUCCESS, 1, "")


def test_a_session_that_is_idle_for_a_lease_is_ended_and_the_task_taken_over(
    task: AsyncTask, short_lease: None, stage: Stage
) -> None:
    taken = claim(task.key)
    assert taken is not None
    fenced = stage.stop()

    def stopped_process() -> None:
        """It began with a heartbeat, which has stopped with it."""
        with kept_awake(connections["default"]), transaction.atomic():
            hold_fence(taken)
            fenced.wait_here()
            Project.objects.update(name="written too late")

    worker = stage.act(stopped_process, "stopped worker")
    fenced.wait_until_reached()

    def is_done() -> bool:
        run_task(task.key)
        task.refresh_from_db()
        return task.is_finished

    until(is_done, "the task was taken over", DEADLINE)
    fenced.let_go()
    assert isinstance(worker.error(), DatabaseError)
    assert (task.status, task.attempts) == (AsyncTask.Status.SUCCESS, 2)
    assert Project.objects.get().name == "bridge"


KILL = "SELECT pg_terminate_backend(%s, 5000)"


def kill_session() -> None:
    """As a restart of the server does."""
    killer = connection.copy("killer")
    try:
        with killer.cursor() as cursor:
            kill = "KILL %s" if connection.vendor == "mysql" else KILL
            cursor.execute(kill, [backend()])
    finally:
        killer.close()


@pytest.mark.parametrize("works", ["atomic", "autocommit"])
def test_work_that_loses_its_session_is_left_to_its_lease_and_then_done(
    works: str, short_lease: None, caplog: pytest.LogCaptureFixture
) -> None:
    deaths: list[int] = []

    def script(obj: object) -> str:
        if not deaths:
            deaths.append(1)
            kill_session()
        return str(Project.objects.count() + Crew.objects.count())

    if works == "atomic":
        Project.script = script
        [project] = Project.objects.bulk_create([Project(name="bridge")])
        task = project.rebuild.enqueue()
    else:
        Crew.script = script
        task = make_crew()[0].post.enqueue()

    run_task(task.key)
    task.refresh_from_db()
    assert (task.status, task.items.get().status) == (AsyncTask.Status.IN_PROGRESS, "todo")
    assert "is left until its lease runs out" in caplog.text

    def is_done() -> bool:
        run_task(task.key)
        task.refresh_from_db()
        return task.is_finished

    until(is_done, "the task was taken over", DEADLINE)
    assert (task.status, task.recoveries, task.result()) == (AsyncTask.Status.SUCCESS, 1, "1")


def test_a_session_is_lost_only_when_it_is() -> None:
    connection.ensure_connection()
    assert not end_if_lost(connection)
    with (
        pytest.raises(Exception, match=r"does not exist|Unknown column"),
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT nothing")
    assert not end_if_lost(connection)
    kill_session()
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert end_if_lost(connection)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def synchronous_commit() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        [answer] = cursor.fetchone()
        return str(answer)


@on_postgresql
def test_the_callers_own_commit_is_waited_for(settings: Any) -> None:
    """With async off, a task that is enqueued is claimed in the caller's transaction."""
    [project] = Project.objects.bulk_create([Project(name="bridge")])
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": False}
    with transaction.atomic():
        before = synchronous_commit()
        project.rebuild.enqueue()
        assert synchronous_commit() == before == "on"


@on_postgresql
def test_only_the_claim_of_atomic_work_is_not(task: AsyncTask) -> None:
    seen: list[str] = []
    Project.script = lambda _: seen.append(synchronous_commit())
    run_task(task.key)
    assert seen == ["on"]
