"""A real process that kills itself in front of a statement: SIGKILL, on a database that commits."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from typing import IO, Any, NoReturn, TypeVar

from django.db import connections

from powercrud_models.exceptions import PowerCRUDError
from powercrud_models.testing.dying import Countdown, End
from powercrud_models.testing.running import run_queued

T = TypeVar("T")

POLL_SECONDS = 0.002
SESSIONS = {
    "postgresql": "SELECT 1 FROM pg_stat_activity WHERE pid = %s",
    "mysql": "SELECT 1 FROM information_schema.processlist WHERE id = %s",
}
SAID_BY = 'assert_survives_crashes(by="sigkill")'


class BySigkill:
    """A child process, as multiprocessing forks it, with a connection of its own."""

    def __init__(self, alias: str, seconds: float) -> None:
        self._alias = alias
        self._seconds = seconds

    def refuse_unfit(self) -> None:
        connection: Any = connections[self._alias]
        if not hasattr(os, "fork"):
            raise PowerCRUDError(f"{SAID_BY} needs fork(), which this system does not have.")
        if connection.vendor == "sqlite" and connection.is_in_memory_db():
            raise PowerCRUDError(
                f"{SAID_BY}: another process cannot see a database in memory. Give the tests a "
                "file: DATABASES['default']['TEST'] = {'NAME': ...}."
            )
        if connection.in_atomic_block:
            raise PowerCRUDError(
                f"{SAID_BY} is called inside a transaction, that of the test or another: the other "
                "process would see nothing of it. Use TransactionTestCase, or pytest-django's "
                "transactional_db, and call it outside of atomic()."
            )

    def trial(self) -> AbstractContextManager[None]:
        """Nothing: what it leaves behind is removed at the end of the test, like all its rows."""
        return nullcontext()

    def run(self, number: int, act: Callable[[T], object], made: T) -> End:
        connections.close_all()  # two processes cannot share one
        with tempfile.TemporaryFile() as file:
            pid = _fork()
            if pid == 0:
                _be_the_child(Diary(file), self._alias, number, act, made)
            status = _status_at_end(pid, self._seconds)
            said = Diary(file).read()
        if os.WIFSIGNALED(status) and "statement" in said:
            self._wait_until_session_is_gone(said.get("session"))
        elif os.WIFSIGNALED(status):
            raise AssertionError(f"Another sent signal {os.WTERMSIG(status)} to the process.")
        elif status:
            raise AssertionError(f"The process has failed:\n{said.get('traceback', status)}")
        return End(statement=said.get("statement", ""), has_acted=said.get("has_acted", False))

    def _wait_until_session_is_gone(self, session: int | None) -> None:
        """A server frees the rows of a dead client when it finds that the connection broke."""
        asked = SESSIONS.get(connections[self._alias].vendor, "")
        deadline = time.monotonic() + self._seconds
        while session is not None:
            with connections[self._alias].cursor() as cursor:
                cursor.execute(asked, [session])
                if not cursor.fetchone():
                    return
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"The server keeps the session of a process that is dead: {session}."
                )
            time.sleep(POLL_SECONDS)


class Diary:
    """What the child writes down for its parent, which outlives it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file.fileno()

    def write(self, **said: object) -> None:
        os.write(self._file, json.dumps(said).encode() + b"\n")

    def read(self) -> dict[str, Any]:
        os.lseek(self._file, 0, os.SEEK_SET)
        with open(self._file, closefd=False, encoding="utf-8") as lines:
            return {name: value for line in lines for name, value in json.loads(line).items()}


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns when there are threads, such as pytest's watchdog: the child waits for none
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _be_the_child(
    diary: Diary, alias: str, number: int, act: Callable[[T], object], made: T
) -> NoReturn:
    """Act and run what is queued; never return into the code of the parent."""
    status = 1
    try:
        connection = connections[alias]
        connection.ensure_connection()
        if connection.vendor == "postgresql":
            diary.write(session=connection.connection.info.backend_pid)
        elif connection.vendor == "mysql":
            diary.write(session=connection.connection.thread_id())
        countdown = Countdown(connection, number)

        def kill_in_time(execute: Any, sql: str, *rest: Any) -> Any:
            if countdown.is_up(str(sql)):
                diary.write(statement=str(sql))
                os.kill(os.getpid(), signal.SIGKILL)
            return execute(sql, *rest)

        with connection.execute_wrapper(kill_in_time):
            copy_context().run(act, made)
            diary.write(has_acted=True)
            run_queued(raise_errors=False)
        connections.close_all()
        status = 0
    except BaseException:  # noqa: BLE001  the parent shows whatever it is
        diary.write(traceback=traceback.format_exc())
    finally:
        os._exit(status)


def _status_at_end(pid: int, seconds: float) -> int:
    """How the process ended; when this function ends, it has, by itself or by force."""
    deadline = time.monotonic() + seconds
    ended = 0
    try:
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return status
            if time.monotonic() > deadline:
                raise AssertionError(f"The process has not ended within {seconds} s; it is killed.")
            time.sleep(POLL_SECONDS)
    finally:
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
