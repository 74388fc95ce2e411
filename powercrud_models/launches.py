"""The task that an open transaction has launched: one transaction, one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

Opened = tuple[Any, ...]
"""What tells an open transaction from others: see ``_opened``."""


@dataclass(eq=False)
class Launch:
    """Waits among the transaction's on-commit callbacks, and sends the task to the queue.

    Django drops it there when the ``atomic()`` block that registered it is rolled back.
    """

    task_key: str
    send: Callable[[str], object]
    opened_in: Opened = ()
    committed: bool = False

    def __post_init__(self) -> None:
        self.__qualname__ = "Launch"  # Django 5.2 logs it when `send` raises

    def __call__(self) -> None:
        self.committed = True
        self.send(self.task_key)

    def is_open_in(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether its transaction is the one that is open now."""
        return not self.committed and self.opened_in == _opened(connection)


def register(launch: Launch, alias: str) -> None:
    """Send the task when the transaction commits."""
    launch.opened_in = _opened(connections[alias]) or ()
    transaction.on_commit(launch, using=alias, robust=True)


def open_launch(alias: str) -> Launch | None:
    """The launch of the transaction that is open on this connection."""
    connection = connections[alias]
    for registered in connection.run_on_commit:
        callback = registered[1]
        if isinstance(callback, Launch) and callback.is_open_in(connection):
            return callback
    return None


def in_transaction(alias: str) -> bool:
    """Whether a transaction is open that is to commit: that of a TestCase is not."""
    connection = connections[alias]
    return connection.in_atomic_block and _opened(connection) is not None


def never_commits(alias: str) -> bool:
    """Whether the code runs in the transaction that a TestCase opens, and rolls back."""
    return _blocks_of_test(connections[alias]) > 0


def _opened(connection: BaseDatabaseWrapper) -> Opened | None:
    """What tells the open transaction from others; None when none is open.

    On-commit callbacks go with the transaction, so there is nothing to tell: an empty tuple. But
    in a TestCase, where nothing commits, callbacks pile up, and what would be a transaction is the
    outermost block behind the test's own: the block and its savepoint, because a decorator enters
    the same block again, and a block may have no savepoint.
    """
    of_test = _blocks_of_test(connection)
    if not of_test:
        return ()
    behind = len(connection.atomic_blocks) - of_test
    if not behind:
        return None
    return connection.atomic_blocks[-behind], connection.savepoint_ids[-behind]


def _blocks_of_test(connection: BaseDatabaseWrapper) -> int:
    """How many of the open ``atomic()`` blocks a TestCase has opened, or came before; mostly 0.

    Django marks them, so that ``durable=True`` can be tested. The mark is private, but there is no
    other; should a Django have it no more, a test is one transaction, as it is for the database.
    """
    of_test = 0
    for number, block in enumerate(getattr(connection, "atomic_blocks", ()), start=1):
        if getattr(block, "_from_testcase", False):
            of_test = number
    return of_test
