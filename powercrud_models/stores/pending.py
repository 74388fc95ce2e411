"""What an open transaction has acquired and released in a store that is outside of its database.

Django tells of a commit, by its callbacks, and not of a rollback. But a rollback, of the
transaction or of an ``atomic()`` block in it, drops the callbacks that were registered in it. So
what was acquired is undone when its callback goes without having been called. What was released is
given up when it is called, and until then hidden from this transaction only.

A savepoint that is rolled back by hand drops no callback: the locks then stay to the end of the
transaction, and go as those of a task without a row, after LEASE_SECONDS.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any

from django.db import connections, transaction

logger = logging.getLogger("powercrud_models")


class Acquired:
    """Objects that an open transaction has acquired for a task."""

    def __init__(
        self,
        task_key: str,
        alias: str,
        undo: Callable[[list[str], dict[str, list[str]]], None],
        then: Callable[[Acquired], None],
    ) -> None:
        self.task_key = task_key
        self.alias = alias
        self.__qualname__ = "Acquired"  # Django 5.2 logs it when the callback raises
        self.objects: frozenset[str] = frozenset()
        self.new: list[str] = []
        """Those that were free."""
        self.taken: dict[str, list[str]] = {}
        """Those that this transaction had released for other tasks, by task."""
        self.epoch = ""
        self.began = time.monotonic()
        self._undo, self._then = undo, then
        self._process = os.getpid()
        self._is_open = True

    def fill(
        self, objects: Collection[str], new: list[str], taken: dict[str, list[str]], epoch: str
    ) -> None:
        """They have been acquired."""
        self.objects, self.epoch = frozenset(objects), epoch
        self.new, self.taken = new, taken

    def __call__(self) -> None:
        # a test may call it in the transaction that it rolls back
        self._is_open = connections[self.alias].in_atomic_block
        self._then(self)

    def undo(self) -> None:
        """Let go of them, unless the transaction has committed."""
        # a process that was forked in the transaction has a copy of this, and must not end it
        if self._is_open and (self.new or self.taken) and os.getpid() == self._process:
            self._is_open = False
            self._undo(self.new, self.taken)

    def __del__(self) -> None:
        try:
            self.undo()
        except Exception:  # it may be called anywhere, and nobody could catch it
            logger.exception("The locks of %s are undone later, by a sweep", self.task_key)


class Released:
    """Objects that a task gives up when the open transaction commits."""

    def __init__(
        self,
        task_key: str,
        objects: Collection[str] | None,
        give_up: Callable[[Collection[str] | None, Collection[str]], None],
    ) -> None:
        self.task_key = task_key
        self.__qualname__ = "Released"
        self._objects = None if objects is None else frozenset(objects)
        """None for all."""
        self._again: list[weakref.ref[Acquired]] = []
        self._give_up = give_up

    def __call__(self) -> None:
        self._give_up(self._objects, frozenset().union(*self._kept()))

    def covers(self, held: str) -> bool:
        """Whether the task has given up this object in this transaction, and not taken it again."""
        is_among_them = self._objects is None or held in self._objects
        return is_among_them and not any(held in kept for kept in self._kept())

    def but_for(self, acquired: Acquired) -> None:
        """The task has acquired these after it."""
        self._again.append(weakref.ref(acquired))

    def _kept(self) -> list[frozenset[str]]:
        again = [acquired() for acquired in self._again]  # those that were rolled back are gone
        return [each.objects for each in again if each is not None]


def register(record: Acquired | Released, alias: str) -> bool:
    """Call it when the open transaction commits; False where none is open.

    With autocommit off only the caller knows when it commits.
    """
    connection = connections[alias]
    if not connection.in_atomic_block:
        return False
    transaction.on_commit(record, using=alias, robust=True)
    if isinstance(record, Released):
        # before other callbacks: one that saves what it releases shall not run into the lock; and
        # before those of what was acquired, which it asks
        connection.run_on_commit.insert(0, connection.run_on_commit.pop())
    return True


def is_given_up(name: str, holder: str, pending: Sequence[Released]) -> bool:
    """Whether one of these releases covers the object."""
    return any(each.task_key == holder and each.covers(name) for each in pending)


def acquired_here(alias: str, task_key: str) -> list[Acquired]:
    """What the transaction that is open on this connection has acquired for the task."""
    return [each for each in _of(alias, Acquired) if each.task_key == task_key]


def released_here(alias: str) -> list[Released]:
    """What the transaction that is open on this connection has released."""
    return _of(alias, Released)


def _of(alias: str, kind: type[Any]) -> list[Any]:
    callbacks = [registered[1] for registered in connections[alias].run_on_commit]
    return [callback for callback in callbacks if isinstance(callback, kind)]
