"""What MariaDB does otherwise than the others: it bounds waits, and forgets transactions."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction

from powercrud_models import ConflictError
from powercrud_models.checks import check_settings
from powercrud_models.clock import DatabaseClock
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.stores import get_store
from powercrud_models.stores.database import LONGEST_WAIT, MOST_BYTES
from powercrud_models.tasks import run_task
from powercrud_models.types import ObjectKey
from tests.deliveries import rows
from tests.kinds.models import Project, Tag
from tests.stage import DEADLINE, Stage

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("queued"),
    pytest.mark.skipif(connection.vendor != "mysql", reason="it is about MariaDB"),
]

KEYS = [ObjectKey("kinds.project", str(number)) for number in range(3)]


def hold(task_key: str, *keys: ObjectKey) -> None:
    get_store().acquire(task_key, keys, "default")


def test_a_lock_that_is_not_committed_is_waited_for_but_not_for_ever(stage: Stage) -> None:
    open_ = stage.stop()

    def launch() -> None:
        with transaction.atomic():
            hold("launched", KEYS[1])
            open_.wait_here()

    stage.act(launch, "launcher")
    open_.wait_until_reached()
    begun = time.monotonic()
    with transaction.atomic():
        with pytest.raises(ConflictError) as caught, transaction.atomic():
            hold("other", *KEYS)
        Tag.objects.create(name="the transaction goes on")

    assert LONGEST_WAIT - 1 < time.monotonic() - begun < LONGEST_WAIT * 2
    assert [conflict.pk for conflict in caught.value.conflicts] == [1]
    assert "has not ended yet" in str(caught.value)
    assert Tag.objects.exists()
    assert not ObjectLock.objects.exists()


def test_a_release_that_is_not_committed_too(stage: Stage) -> None:
    hold("ending", KEYS[0])
    open_ = stage.stop()

    def end() -> None:
        with transaction.atomic():
            get_store().release("ending", "default")
            open_.wait_here()

    stage.act(end, "worker")
    open_.wait_until_reached()
    with pytest.raises(ConflictError), transaction.atomic():
        hold("other", *KEYS)


def test_whoever_waits_gets_the_lock_that_is_rolled_back(stage: Stage) -> None:
    open_ = stage.stop()

    def launch() -> None:
        with transaction.atomic():
            hold("launched", KEYS[1])
            open_.wait_here()
            transaction.set_rollback(True)

    stage.act(launch, "launcher")
    open_.wait_until_reached()
    other = stage.act(lambda: hold("other", *KEYS), "other")
    other.wait_until_blocked()
    open_.let_go()
    other.result()
    assert set(get_store().held("other", "default")) == set(KEYS)


def test_more_keys_than_one_packet_carries() -> None:
    keys = [ObjectKey("kinds.branch", f"{number}{'x' * 200}") for number in range(25_000)]
    assert sum(len(key.pk) for key in keys) > MOST_BYTES
    hold("task", *keys)
    hold("task", *keys)
    with transaction.atomic(), pytest.raises(ConflictError) as caught, transaction.atomic():
        hold("other", *keys[::2])
    assert len(caught.value.conflicts) == len(keys) / 2
    assert len(get_store().holders(keys, "default")) == len(keys)
    get_store().release("task", "default", keys)
    assert not ObjectLock.objects.exists()


def test_work_cannot_go_on_after_a_deadlock_that_it_has_caught(
    project: Project, task: AsyncTask, stage: Stage
) -> None:
    """What it wrote before is undone: what it would write after it is none of its task's."""
    first, second = Tag.objects.bulk_create([Tag(name="first"), Tag(name="second")])
    met = threading.Barrier(2)

    def write(tag: Tag) -> None:
        Tag.objects.filter(pk=tag.pk).update(name="written")

    def other() -> None:
        with transaction.atomic():
            write(second)
            Tag.objects.bulk_create([Tag(name="much") for _ in range(50)])  # the other is undone
            met.wait(DEADLINE)
            write(first)

    def work(_: Project) -> None:
        write(first)
        met.wait(DEADLINE)
        try:
            list(Tag.objects.select_for_update().filter(pk=second.pk))
        except OperationalError:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE kinds_project SET name = 'on my own'")

    Project.script = work
    stage.act(other, "other")
    run_task(task.key)

    task.refresh_from_db()
    assert (task.status, Project.objects.get().name) == (AsyncTask.Status.FAILED, "bridge")
    assert not rows()["ObjectLock"]


@pytest.mark.parametrize("zone", ["+00:00", "+05:00", "-11:30"])
def test_the_clock_does_not_go_by_the_time_zone_of_the_session(db: None, zone: str) -> None:
    task = AsyncTask.objects.create(label="a label")
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION time_zone = %s", [zone])
        try:
            [now] = AsyncTask.objects.annotate(now=DatabaseClock()).values_list("now", flat=True)
            later = AsyncTask.objects.create(label="another")
        finally:
            cursor.execute("SET SESSION time_zone = DEFAULT")
    later.refresh_from_db()
    task.refresh_from_db()
    assert abs((now - task.created_at).total_seconds()) < DEADLINE
    assert abs((later.created_at - task.created_at).total_seconds()) < DEADLINE


def test_the_clock_is_not_that_of_the_statement(db: None) -> None:
    AsyncTask.objects.create(label="a label")
    sql, parameters = (
        AsyncTask.objects.annotate(now=DatabaseClock()).values("now").query.sql_with_params()
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT SLEEP(0.2), ({sql}), UTC_TIMESTAMP(6)", parameters)
        _, now, begun = cursor.fetchone()
    assert (now - begun).total_seconds() >= 0.2


def test_an_error_of_the_server_is_no_conflict() -> None:
    with pytest.raises(DatabaseError), transaction.atomic():
        hold("x" * 1000, *KEYS)
    assert not ObjectLock.objects.exists()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "serializable", None])
def test_e014_an_isolation_at_which_the_guard_is_blind(
    monkeypatch: pytest.MonkeyPatch, level: str | None
) -> None:
    """None is what the server likes: REPEATABLE READ, if nobody has told it."""
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {"isolation_level": level})
    assert "powercrud_models.E014" in [message.id for message in check_settings(None)]


@pytest.mark.parametrize("options", [{}, {"isolation_level": "Read Committed"}])
def test_no_e014_at_read_committed(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    assert "powercrud_models.E014" not in [message.id for message in check_settings(None)]


def test_e015_mysql_is_another_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"], "mysql_is_mariadb", False)
    [message] = [each for each in check_settings(None) if each.id == "powercrud_models.E015"]
    assert "it is of the kind 'mysql'" in message.msg


def limits() -> Any:
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@idle_transaction_timeout, @@innodb_lock_wait_timeout")
        return cursor.fetchone()


def test_the_session_is_left_as_it_was_found(project: Project, task: AsyncTask) -> None:
    before, hooks = limits(), set(vars(connection))
    run_task(task.key)
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.SUCCESS
    assert (limits(), set(vars(connection))) == (before, hooks)
