"""Sessions that hold rows: ended when their process is stopped, kept when it lives.

Nobody can take a task over while a transaction holds its fence, and a stopped process would hold it
for ever. So the transaction of an item lets the server end its session once it has been idle for
the length of a lease; and the heartbeat of a process that is alive, but asks the database nothing
for long, keeps its session from being idle. SQLite has no sessions that could be ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any
from weakref import WeakKeyDictionary

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, Func, TextField, Value

from powercrud_models.mariadb_sessions import SharedSession

QUERIES = {2: b"SELECT 1", 3: b""}
"""What to ask in a transaction that is idle, or has failed: libpq's PQTRANS_INTRANS, _INERROR."""


_kept_awake: WeakKeyDictionary[BaseDatabaseWrapper, SharedSession | None] = WeakKeyDictionary()
"""Connections that a heartbeat looks after; the values are for MariaDB."""


@contextmanager
def kept_awake(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Say that a heartbeat calls ``keep_awake`` for this connection while the block lasts."""
    if connection in _kept_awake:  # a task that runs here has another one run
        yield
        return
    is_mariadb = connection.vendor == "mysql"
    session = _kept_awake[connection] = SharedSession(connection) if is_mariadb else None
    try:
        with session.shared() if session else nullcontext():
            yield
    finally:
        _kept_awake.pop(connection, None)


def limit_of_idleness(alias: str, seconds: int) -> int | None:
    """What to give to ``limit_idleness``: None where the session is limited by now, or cannot be.

    A living process's session on this thread's connection is kept awake; that of a thread which
    the work has started is not.
    """
    connection = connections[alias]
    if connection not in _kept_awake:
        return None
    session = _kept_awake[connection]
    if session is not None:
        session.limit_idleness(seconds)
    return seconds if uses_psycopg3(connection) else None


def limit_idleness(values: Any, seconds: int) -> Any:
    """Let a query limit the idleness of its transaction, as well: returns ``values`` with that."""
    limit = _setting("idle_in_transaction_session_timeout", f"{seconds}s")
    return values.annotate(idleness=limit)


def commit_without_waiting(values: Any) -> Any:
    """Let a query's transaction commit before PostgreSQL's disk has it, as well.

    If the server then crashes, it is as if it had never been: for what is begun anew in that case.
    """
    if connections[values.db].vendor != "postgresql":
        return values
    return values.annotate(commit=_setting("synchronous_commit", "off"))


def wait_for_commit(alias: str) -> None:
    """Undo ``commit_without_waiting`` in the open transaction."""
    if connections[alias].vendor == "postgresql":
        with connections[alias].cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit TO DEFAULT")


def _setting(name: str, value: str) -> Func:
    """Sets this to the end of the transaction."""
    local = Value(value=True, output_field=BooleanField())
    names = Value(name), Value(value)
    return Func(*names, local, function="set_config", output_field=TextField())


def keep_awake(connection: BaseDatabaseWrapper) -> None:
    """Ask the server something if the session is idle in a transaction; call it from any thread.

    Where another thread is just using the session, it is not idle.
    """
    shared = _kept_awake.get(connection)
    if shared is not None:
        shared.keep_awake()
    session: Any = connection.connection
    if session is None or not uses_psycopg3(connection):
        return
    from psycopg import Error as PsycopgError

    if session.lock.acquire(blocking=False):
        try:
            query = QUERIES.get(session.pgconn.transaction_status)
            if query is not None and not session.pgconn.pipeline_status:
                with suppress(PsycopgError):  # whoever uses the session next will hear of it
                    session.pgconn.exec_(query)
        finally:
            session.lock.release()


def session_of(connection: BaseDatabaseWrapper) -> Any:
    """The session that a transaction is about to begin on."""
    connection.ensure_connection()
    return connection.connection


def end_if_lost(connection: BaseDatabaseWrapper, session: Any = None) -> bool:
    """Whether the session has been lost; the next use of the connection opens another.

    ``session``: that of a transaction which has ended by now. Django may have opened another one
    since, when it was lost.
    """
    if session is not None and connection.connection is not session:
        return True
    is_open = connection.connection is not None
    if is_open and not connection.in_atomic_block and not connection.is_usable():
        connection.close()
    return connection.connection is None


def end_interrupted(connection: BaseDatabaseWrapper, session: Any) -> bool:
    """Let the server end this session, if its driver has closed it in the middle of a query.

    psycopg cancels the query. PyMySQL closes the session, and MariaDB goes on with the query, and
    keeps its rows locked. Returns whether it was so.
    """
    if connection.vendor != "mysql" or connection.connection is session:
        return False
    with suppress(Error), connection.cursor() as cursor:  # it may have ended by now
        cursor.execute("KILL %s", [session.thread_id()])
    return True


def uses_psycopg3(connection: BaseDatabaseWrapper) -> bool:
    """Whether it is one to PostgreSQL, by that driver."""
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3  # imports the driver

    return bool(is_psycopg3)
