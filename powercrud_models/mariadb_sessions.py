"""A session of MariaDB that holds rows, kept from being idle by a heartbeat's thread.

Its limit of idleness is one of the session, not of a transaction, and its drivers let no other
thread use a session: a lock has to see to that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

TALKS = ("_commit", "_rollback", "_set_autocommit", "_close")
"""What a connection of Django's says to the server otherwise than by a cursor."""


class SharedSession:
    """The session of a thread's connection, for as long as another thread may use it, too."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection: Any = connection
        self._in_use = threading.RLock()
        self._limited: Any = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Let ``keep_awake`` be called in this block, from any thread."""
        talks: dict[str, Any] = {name: getattr(self._connection, name) for name in TALKS}
        with self._connection.execute_wrapper(self._execute):
            for name, talk in talks.items():
                setattr(self._connection, name, self._one_at_a_time(talk))
            try:
                yield
            finally:
                for name in TALKS:
                    delattr(self._connection, name)
        self._lift_limit()

    def _execute(self, execute: Callable[..., Any], *statement: Any) -> Any:
        with self._in_use:
            return execute(*statement)

    def _one_at_a_time(self, talk: Callable[..., Any]) -> Callable[..., Any]:
        def talk_alone(*args: Any) -> Any:
            with self._in_use:
                return talk(*args)

        return talk_alone

    def limit_idleness(self, seconds: int) -> None:
        """Let the server end the session when a transaction of this block is idle for so long."""
        if self._limited is self._connection.connection is not None:
            return
        with self._connection.cursor() as cursor:
            cursor.execute("SET SESSION idle_transaction_timeout = %s", [seconds])
        self._limited = self._connection.connection

    def _lift_limit(self) -> None:
        if self._limited is not None and self._limited is self._connection.connection:
            with suppress(Error), self._connection.cursor() as cursor:
                cursor.execute("SET SESSION idle_transaction_timeout = DEFAULT")

    def keep_awake(self) -> None:
        """Ask the server something if the session is idle in a transaction."""
        if not self._in_use.acquire(blocking=False):
            return
        try:
            session = self._connection.connection
            if session is not None and self._connection.in_atomic_block:
                # whoever uses the session next will hear of it; ping() of some drivers would open
                # another one, without the transaction
                with suppress(self._connection.Database.Error), session.cursor() as cursor:
                    cursor.execute("DO 0")
        finally:
            self._in_use.release()
