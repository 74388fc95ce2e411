"""Sessions of PostgreSQL that hold rows: ended when their process is stopped, kept when it lives.

Nobody can take a task over while a transaction holds its fence, and a stopped process would hold it
for ever. So the transaction of an item lets the server end its session once it has been idle for
the length of a lease; and the heartbeat of a process that is alive, but asks the database nothing
for long, keeps its session from being idle.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, Func, TextField, Value

from powercrud_models.conf import get_conf
from powercrud_models.launches import never_commits

IDLE_IN_TRANSACTION = 2
"""What libpq calls the state of such a session (PQTRANS_INTRANS)."""


def limit_idleness(values: Any) -> Any:
    """Let a query limit the idleness of its transaction, as well: returns ``values`` with that.

    Only where a heartbeat can keep a living process's session awake: with psycopg 3, and not in
    the transaction of a test.
    """
    connection = connections[values.db]
    if not _can_be_kept_awake(connection) or never_commits(values.db):
        return values
    milliseconds = str(get_conf().LEASE_SECONDS * 1000)
    return values.annotate(
        idleness=Func(
            Value("idle_in_transaction_session_timeout"),
            Value(milliseconds),
            Value(value=True, output_field=BooleanField()),  # to the end of the transaction
            function="set_config",
            output_field=TextField(),
        )
    )


def keep_awake(connection: BaseDatabaseWrapper) -> None:
    """Ask the server something if the session is idle in a transaction; call it from any thread.

    Where another thread is just using the session, it is not idle.
    """
    session: Any = connection.connection
    if session is None or not _can_be_kept_awake(connection):
        return
    if session.lock.acquire(blocking=False):
        try:
            if session.pgconn.transaction_status == IDLE_IN_TRANSACTION:
                session.pgconn.exec_(b"SELECT 1")
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


def _can_be_kept_awake(connection: BaseDatabaseWrapper) -> bool:
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3  # imports the driver

    return bool(is_psycopg3)
