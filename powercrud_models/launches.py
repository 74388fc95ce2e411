"""The task that an open transaction has launched: one transaction, one task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.db import connections, transaction


@dataclass(eq=False)
class Launch:
    """Waits among the transaction's on-commit callbacks, and sends the task to the queue.

    Django drops it there when the ``atomic()`` block that registered it is rolled back.
    """

    task_key: str
    send: Callable[[str], None]
    committed: bool = False

    def __call__(self) -> None:
        self.committed = True
        self.send(self.task_key)


def register(launch: Launch, alias: str) -> None:
    """Send the task when the transaction commits."""
    transaction.on_commit(launch, using=alias, robust=True)


def open_launch(alias: str) -> Launch | None:
    """The launch of the transaction that is open on this connection."""
    for registered in connections[alias].run_on_commit:
        callback = registered[1]
        if isinstance(callback, Launch) and not callback.committed:
            return callback
    return None
