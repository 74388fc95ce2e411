"""A process that dies in front of a statement, as far as its database can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from django.db import connections, transaction

from powercrud_models.exceptions import PowerCRUDError
from powercrud_models.launches import in_transaction
from powercrud_models.testing.running import run_queued

T = TypeVar("T")

NEVER = -1
"""The number of the step that never comes; also how many are left when the step has come."""
MARK = "powercrud_committed"
ENDS = ("RELEASE SAVEPOINT", "ROLLBACK TO SAVEPOINT")
READS = ("SELECT", "PRAGMA")


@dataclass(kw_only=True)
class End:
    """How far a process has come that was to die."""

    statement: str = ""
    """In front of which it died; empty when it came to its end."""
    has_acted: bool = False
    """Whether the call that launches the work had returned."""


class Lane(Protocol):
    """A way to let a process die."""

    def refuse_unfit(self) -> None:
        """Raise PowerCRUDError where it cannot work."""

    def trial(self) -> Any:
        """A context manager around all that belongs to one death."""

    def run(self, number: int, act: Callable[[T], object], made: T) -> End:
        """Act, run what is queued, and die in front of the statement with this number."""


class Died(BaseException):
    """The process is dead: nothing that the dying code does reaches the database."""


class ByException:
    """A death that is raised: everything happens in one transaction, and is rolled back."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def refuse_unfit(self) -> None:
        if in_transaction(self._alias):
            raise PowerCRUDError(
                "assert_survives_crashes() is called inside a transaction: workers see its tasks "
                "when it has committed. Call it outside of atomic()."
            )

    @contextmanager
    def trial(self) -> Iterator[None]:
        """A transaction like that of a TestCase: what is opened in it counts as the outermost."""
        block: Any = transaction.atomic(using=self._alias)
        block._from_testcase = True
        with block:
            yield
            transaction.set_rollback(True, using=self._alias)

    def run(self, number: int, act: Callable[[T], object], made: T) -> End:
        end, death = End(), SimulatedDeath(self._alias, number)
        try:
            with connections[self._alias].execute_wrapper(death):
                # a copy: what dying code is kept from resetting is gone with it
                copy_context().run(act, made)
                end.has_acted = not death.statement
                run_queued(raise_errors=False)
        except KeyboardInterrupt:
            raise
        except BaseException:  # a dead process raises nothing
            if not death.statement:
                raise
        if death.statement:
            death.undo_open_transaction()
        end.statement = death.statement
        return end


class Countdown:
    """Counts the steps at which a process may die, down to the one at which it does.

    A step is a statement that may change something, or the first look at what a transaction has
    left behind: between the others the database is the same.
    """

    def __init__(self, connection: Any, number: int) -> None:
        self._connection = connection
        self._left = number
        self._depth = len(connection.atomic_blocks)
        self._has_changed = False

    def is_up(self, sql: str) -> bool:
        """Whether this is the step."""
        is_outside = len(self._connection.atomic_blocks) == self._depth
        is_read = sql.lstrip().startswith(READS)
        if is_read and not (is_outside and self._has_changed):
            return False
        self._has_changed = not is_read
        self._left -= 1
        return self._left == NEVER


class SimulatedDeath:
    """Raises Died in front of one statement, and of all that the dying code tries after it.

    In the transaction of a trial nothing commits. So a savepoint marks what would be committed by
    now, and moves along: the dead process's open transaction is what came after it.
    """

    def __init__(self, alias: str, number: int) -> None:
        self._connection = connections[alias]
        self._countdown = Countdown(self._connection, number)
        self._depth = len(self._connection.atomic_blocks)
        self._outermost: object = None
        self.statement = ""
        self._run(f"SAVEPOINT {MARK}")

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if self.statement:
            raise Died
        said = str(sql)  # drivers have classes of their own for it
        if self._has_committed(said):
            self._run(f"RELEASE SAVEPOINT {MARK}")
            self._run(f"SAVEPOINT {MARK}")
        if self._countdown.is_up(said):
            self.statement = said
            raise Died
        return execute(sql, params, many, context)

    def _has_committed(self, sql: str) -> bool:
        """Whether all that came before this statement would be committed by now."""
        blocks = self._connection.atomic_blocks[self._depth :]
        if not blocks:  # autocommit, or the statement that begins or ends a transaction
            self._outermost = None
            return not sql.startswith(ENDS)
        is_new, self._outermost = blocks[0] is not self._outermost, blocks[0]
        # atomic(savepoint=False) begins its transaction without a statement that could be seen
        return is_new and self._connection.savepoint_ids[-len(blocks)] is None

    def undo_open_transaction(self) -> None:
        """What a database does when the connection breaks."""
        self._connection.needs_rollback = False
        self._run(f"ROLLBACK TO SAVEPOINT {MARK}")

    def _run(self, sql: str) -> None:
        with closing(self._connection.create_cursor()) as cursor:  # it is no step of the trial
            cursor.execute(sql)
