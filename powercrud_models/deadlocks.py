"""A deadlock that the database has broken is no error of the caller's: try again."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from django.db import OperationalError, connections

MOST_ATTEMPTS = 5
DEADLOCK_DETECTED = "40P01"
"""PostgreSQL's name for it. SQLite, with its one writer, knows none."""


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
        self.is_to_be_repeated = not self._is_last and _is_deadlock(error)
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


def _is_deadlock(error: BaseException | None) -> bool:
    if not isinstance(error, OperationalError):
        return False
    return getattr(error.__cause__, "sqlstate", None) == DEADLOCK_DETECTED
