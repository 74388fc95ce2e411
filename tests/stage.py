"""Threads with database connections of their own, which stop at exact points: to test races.

Nothing here sleeps and hopes: a thread stops in front of a statement or behind it, another goes
on when it has seen that, and each wait has a deadline.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, Literal, TypeVar

from django.db import OperationalError, connection, connections

T = TypeVar("T")

DEADLINE = 30
"""Seconds after which something that should have happened long ago is a failure."""


def in_standard_quotes(sql: str) -> str:
    """The statement, with names quoted as all databases but MariaDB have it."""
    return sql.replace("`", '"')


class Stop:
    """A point where a thread waits until it is let go."""

    def __init__(self, actors: Sequence[Actor[Any]]) -> None:
        self._actors = actors
        self._reached = threading.Event()
        self._let_go = threading.Event()

    def wait_here(self) -> None:
        """Wait until the test lets go: called by the thread."""
        self._reached.set()
        if not self._let_go.wait(DEADLINE):
            raise TimeoutError("The test did not let go.")

    def wait_until_reached(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while not self._reached.wait(0.02):
            if time.monotonic() > deadline:
                raise TimeoutError("Nobody has come to this point.")
            if all(actor.has_ended for actor in self._actors) and not self.was_reached:
                errors = [actor.error() for actor in self._actors]
                raise AssertionError(f"Nobody came to this point; how they ended: {errors}")

    @property
    def was_reached(self) -> bool:
        return self._reached.is_set()

    def let_go(self) -> None:
        self._let_go.set()

    @contextmanager
    def at(self, when: Literal["before", "after"], *parts: str) -> Iterator[None]:
        """Wait here at the first statement of this thread's connection with these parts in it."""

        def stop(execute: Any, sql: str, *rest: Any) -> Any:
            said = in_standard_quotes(sql)
            here = not self.was_reached and all(part in said for part in parts)
            if here and when == "before":
                self.wait_here()
            result = execute(sql, *rest)
            if here and when == "after":
                self.wait_here()
            return result

        with connection.execute_wrapper(stop):
            yield


class Actor(Generic[T]):
    """One call in a thread with a connection of its own."""

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call = call
        self._begins = threading.Event()
        self._backend: int | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            connection.ensure_connection()
            self._backend = backend()
            with connection.execute_wrapper(self._watch):
                self._result = self._call()
        except BaseException as error:  # noqa: BLE001  `result` raises it where it is asked for
            self._error = error
        finally:
            connections.close_all()

    def _watch(self, execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith(("BEGIN", "UPDATE")):
            self._begins.set()
        return execute(sql, *rest)

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> T:
        """What the call returned; what it raised is raised here."""
        self._thread.join(DEADLINE)
        if self._thread.is_alive():
            raise TimeoutError(f"{self._thread.name} hangs.")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def error(self) -> BaseException | None:
        """What the call raised, or None."""
        with suppress(BaseException):
            self.result()
        if not self.has_ended:
            raise TimeoutError(f"{self._thread.name} hangs.")
        return self._error

    def wait_until_blocked(self) -> None:
        """Wait until it waits in the database for somebody else's transaction.

        PostgreSQL and MariaDB tell. On SQLite it stands at the BEGIN or the UPDATE that asks for
        the one write lock that there is, and that belongs to somebody who has stopped.
        """
        deadline = time.monotonic() + DEADLINE
        while not self._is_blocked():
            assert not self.has_ended, f"{self._thread.name} was not blocked: {self._error!r}"
            assert time.monotonic() < deadline, f"{self._thread.name} was not blocked in time"
            time.sleep(0.005)

    def _is_blocked(self) -> bool:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT cardinality(pg_blocking_pids(%s))", [self._backend])
                return bool(cursor.fetchone()[0])
        if connection.vendor == "mysql":
            return self._backend in waiting_in_mariadb()
        return self._begins.is_set() and not write_lock_is_free()


def backend() -> int | None:
    """What the server calls the session of this thread's connection."""
    session: Any = connection.connection
    match connection.vendor:
        case "postgresql":
            return int(session.info.backend_pid)
        case "mysql":
            return int(session.thread_id())
    return None


def waiting_in_mariadb() -> set[int]:
    """The sessions that wait for a row; the tables that tell of locks may be 0.1 s old."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW ENGINE INNODB STATUS")
        said: str = cursor.fetchone()[2]
    return {
        int(told.group(1))
        for each in said.split("---TRANSACTION ")[1:]
        if "LOCK WAIT" in each and (told := re.search(r"thread id (\d+)", each))
    }


def write_lock_is_free() -> bool:
    """Whether a writer would get SQLite's write lock at once."""
    with connection.cursor() as cursor:
        before = cursor.execute("PRAGMA busy_timeout").fetchone()[0]
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            cursor.execute("BEGIN IMMEDIATE")
            cursor.execute("ROLLBACK")
        except OperationalError:
            return False
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {before}")
    return True


class Stage:
    """The actors and stops of one test; at its end all are let go, and have ended."""

    def __init__(self) -> None:
        self._actors: list[Actor[Any]] = []
        self._stops: list[Stop] = []

    def stop(self) -> Stop:
        self._stops.append(Stop(self._actors))
        return self._stops[-1]

    def act(self, call: Callable[[], T], name: str = "actor") -> Actor[T]:
        """Start the call in a thread of its own."""
        actor = Actor(call, name)
        self._actors.append(actor)
        return actor

    def close(self) -> None:
        for stop in self._stops:
            stop.let_go()
        for actor in self._actors:
            actor.error()
