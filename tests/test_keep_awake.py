"""What a heartbeat asks the session of the work: enough to keep it, and nothing that disturbs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections, transaction

from powercrud_models.sessions import keep_awake
from tests.deliveries import undone

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="it asks as PostgreSQL is asked"),
]


class Watcher:
    """Another session, which sees when this one was last asked something."""

    def __init__(self) -> None:
        connection.ensure_connection()
        self._watched = connection.connection.info.backend_pid
        self._connection = connection.copy("watcher")

    def last_asked(self) -> datetime:
        with self._connection.cursor() as cursor:
            asked = "SELECT query_start FROM pg_stat_activity WHERE pid = %s"
            cursor.execute(asked, [self._watched])
            [answer] = cursor.fetchone()
            assert isinstance(answer, datetime)
            return answer

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def watcher(transactional_db: None) -> Iterator[Watcher]:
    watcher = Watcher()
    yield watcher
    watcher.close()


def ask(sql: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def test_one_that_is_idle_in_a_transaction_is_asked_something(watcher: Watcher) -> None:
    with transaction.atomic():
        assert ask("SELECT 1") == 1
        before = watcher.last_asked()
        keep_awake(connections["default"])
        assert watcher.last_asked() > before
        assert ask("SELECT 2") == 2


def test_one_that_is_in_no_transaction_is_left_alone(watcher: Watcher) -> None:
    assert ask("SELECT 1") == 1
    before = watcher.last_asked()
    keep_awake(connections["default"])
    assert watcher.last_asked() == before


def test_one_whose_transaction_has_failed_is_asked_nothing_that_fails(watcher: Watcher) -> None:
    with transaction.atomic():
        with undone():
            with pytest.raises(DatabaseError, match="nothing"):
                ask("SELECT nothing")
            before = watcher.last_asked()
            keep_awake(connections["default"])
            assert watcher.last_asked() > before
            assert not connection.connection.pgconn.error_message
        assert ask("SELECT 1") == 1


def test_a_pipeline_is_left_alone(watcher: Watcher) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        session = connection.connection
        with session.pipeline():
            keep_awake(connections["default"])
            assert not session.pgconn.error_message
            cursor.execute("SELECT 2")
            keep_awake(connections["default"])
            assert not session.pgconn.error_message
            assert cursor.fetchone() == (2,)
        assert ask("SELECT 3") == 3


def test_one_that_somebody_uses_is_left_alone(watcher: Watcher) -> None:
    with transaction.atomic():
        assert ask("SELECT 1") == 1
        before = watcher.last_asked()
        with connection.connection.lock:
            keep_awake(connections["default"])  # it would wait for ever, or disturb
        assert watcher.last_asked() == before


def test_one_that_is_closed_stays_so() -> None:
    connection.close()
    keep_awake(connections["default"])
    assert connection.connection is None
