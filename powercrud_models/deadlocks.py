"""A deadlock that the database has broken is no error of the caller's: try again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any

from django.db import OperationalError, connections

MOST_ATTEMPTS = 5
DEADLOCK_DETECTED = ("40P01", 1213)
"""PostgreSQL's name for it, and MariaDB's. SQLite, with its one writer, knows none."""
LOCK_WAIT_TIMEOUT = 1205
"""MariaDB's name for a row that was waited for in vain, or was not to be waited for."""


class Attempt:
    """One attempt: where a deadlock ends it and another follows, its block ends quietly."""

    def __init__(self, *, is_last: bool) -> None:
        self._is_last = is_last
        self.is_to_be_repeated = False

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.is_to_be_repeated = not self._is_last and is_deadlock(error)
        return self.is_to_be_repeated


def attempts(alias: str, *, repeatable: bool = True) -> Iterator[Attempt]:
    """Attempts at one transaction, until one ends otherwise than in a deadlock.

    Inside a larger transaction there is one attempt, as for what is not ``repeatable``: what came
    before is lost with a deadlock, and only its author can repeat it.

    >>> for attempt in attempts("default"):
    ...     with attempt, transaction.atomic():
    ...         ...
    """
    most = MOST_ATTEMPTS if repeatable and not connections[alias].in_atomic_block else 1
    for number in range(1, most + 1):
        attempt = Attempt(is_last=number == most)
        yield attempt
        if not attempt.is_to_be_repeated:
            return


def is_deadlock(error: BaseException | None) -> bool:
    """Whether the database has ended a transaction because two waited for each other."""
    return isinstance(error, OperationalError) and _code(error) in DEADLOCK_DETECTED


def waited_too_long(error: OperationalError) -> bool:
    """Whether it says, on MariaDB, that another transaction has kept a row locked."""
    return _code(error) == LOCK_WAIT_TIMEOUT


def _code(error: OperationalError) -> str | int | None:
    """How the driver names it: PostgreSQL's by a state, MariaDB's by their first argument."""
    cause: Any = error.__cause__
    codes = getattr(cause, "sqlstate", None), *getattr(cause, "args", ())[:1]
    known = (code for code in codes if code in (*DEADLOCK_DETECTED, LOCK_WAIT_TIMEOUT))
    return next(known, None)


def noticed(alias: str) -> AbstractContextManager[Any]:
    """Code in this block cannot go on after a deadlock, not even if it catches the error.

    MariaDB undoes the whole transaction, and the session goes on as if nothing had been: what is
    written then would be committed without what came before. PostgreSQL refuses it by itself.
    """
    connection = connections[alias]
    if connection.vendor != "mysql":
        return nullcontext()

    def notice(execute: Any, *statement: Any) -> Any:
        try:
            return execute(*statement)
        except OperationalError as error:
            if is_deadlock(error):
                connection.needs_rollback = connection.in_atomic_block
            raise

    return connection.execute_wrapper(notice)
