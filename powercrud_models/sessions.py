"""Sessions of PostgreSQL that hold rows: ended when their process is stopped, kept when it lives.

Nobody can take a task over while a transaction holds its fence, and a stopped process would hold it
for ever. So the transaction of an item lets the server end its session once it has been idle for
the length of a lease; and the heartbeat of a process that is alive, but asks the database nothing
for long, keeps its session from being idle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakSet

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, Func, TextField, Value

QUERIES = {2: b"SELECT 1", 3: b""}
"""What to ask in a transaction that is idle, or has failed: libpq's PQTRANS_INTRANS, _INERROR."""


_kept_awake: WeakSet[BaseDatabaseWrapper] = WeakSet()


@contextmanager
def kept_awake(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Say that a heartbeat calls ``keep_awake`` for this connection while the block lasts."""
    _kept_awake.add(connection)
    try:
        yield
    finally:
        _kept_awake.discard(connection)


def may_limit_idleness(alias: str) -> bool:
    """Whether a living process's session on this thread's connection is kept awake.

    That of a thread which the work has started is not.
    """
    return uses_psycopg3(connections[alias]) and connections[alias] in _kept_awake


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
    session: Any = connection.connection
    if session is None or not uses_psycopg3(connection):
        return
    from psycopg import Error

    if session.lock.acquire(blocking=False):
        try:
            query = QUERIES.get(session.pgconn.transaction_status)
            if query is not None and not session.pgconn.pipeline_status:
                with suppress(Error):  # whoever uses the session next will hear of it
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


def uses_psycopg3(connection: BaseDatabaseWrapper) -> bool:
    """Whether it is one to PostgreSQL, by that driver."""
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3  # imports the driver

    return bool(is_psycopg3)
