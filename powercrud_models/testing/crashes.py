"""The crash kit: kill what a test does at each step in turn, and see that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from django.db.models import QuerySet

from powercrud_models import lifecycle
from powercrud_models.testing.aftermath import Aftermath
from powercrud_models.testing.dying import NEVER, ByException, End, Lane
from powercrud_models.testing.killing import BySigkill
from powercrud_models.testing.running import queue_tasks, run_queued

T = TypeVar("T")

LONGEST_STATEMENT = 100
"""How many characters of a statement a message shows."""


@dataclass(frozen=True, kw_only=True)
class CrashReport:
    """What ``assert_survives_crashes`` has tried."""

    statements: tuple[str, ...]
    """The statements, shortened, in front of which the process died: one for each trial."""

    @property
    def steps(self) -> int:
        """How many points there were at which it died."""
        return len(self.statements)


def assert_survives_crashes(
    *,
    arrange: Callable[[], T],
    act: Callable[[T], object],
    effects: Callable[[T], object],
    by: Literal["exception", "sigkill"] = "exception",
    run_first: bool = True,
    seconds: float = 60,
) -> CrashReport:
    """Kill the process at each step of what ``act`` launches, and assert that nothing suffers.

    All that a process can leave behind is in the database. So for each statement in turn, from
    the first of ``act`` to the last of the worker, a process dies in front of it, leases run out,
    the sweep sends what is due, and a worker runs it. In the end each task has ended as it does
    without a crash, nothing is locked, no success is false, and ``effects`` returns the same: a
    save that was committed has its work done, and once. If the death came before the launch was
    committed, all is as if ``act`` had never been called.

    ``arrange`` makes new objects for each trial; what it queues is run first, unless
    ``run_first=False``. ``act`` gets what it returned, and does what a request does in one
    transaction. ``effects`` gets the same and reads from the database what came of it: what the
    work writes, and what ``act`` itself writes, so that a save without its work is found; no
    primary keys, which differ from trial to trial.

    With ``by="exception"`` the death is an exception that the database's connection raises from
    then on. Everything is rolled back, and it works in a ``TestCase``. With ``by="sigkill"`` it is
    a forked process that kills itself. That needs a ``TransactionTestCase``, a database that other
    processes see, and POSIX; a process that takes longer than ``seconds`` is killed.

    Raises AssertionError, which names the step and what was found, also when the work fails
    without any crash, or the effects cannot tell whether it was done; PowerCRUDError where this
    way to die is not possible, and ValueError for another one.

    >>> assert_survives_crashes(
    ...     arrange=shelf_with_a_new_volume,
    ...     act=lambda shelf: shelf.save(),
    ...     effects=lambda shelf: Shelf.objects.get(pk=shelf.pk).pages,
    ... )
    CrashReport(statements=(...))
    """
    alias = lifecycle.tasks_alias()
    lane: Lane
    if by == "exception":
        lane = ByException(alias)
    elif by == "sigkill":
        lane = BySigkill(alias, seconds)
    else:
        raise ValueError(f"by={by!r}: it must be 'exception' or 'sigkill'.")
    lane.refuse_unfit()
    with queue_tasks():
        return _Crashes(
            alias=alias, lane=lane, arrange=arrange, act=act, effects=effects, run_first=run_first
        ).run()


class Outcome(NamedTuple):
    """What has come of it in the end."""

    effects: Any
    statuses: list[str]
    """Of the tasks, in the order of their launch."""

    def __str__(self) -> str:
        return f"{self.effects!r} ({', '.join(self.statuses) or 'no task'})"


@dataclass(frozen=True, kw_only=True)
class _Crashes(Generic[T]):
    """The trials of one call."""

    alias: str
    lane: Lane
    arrange: Callable[[], T]
    act: Callable[[T], object]
    effects: Callable[[T], object]
    run_first: bool

    def run(self) -> CrashReport:
        without = self._outcome_without_act()
        expected = self._outcome_without_crash(without)
        statements: list[str] = []
        while statement := self._trial(len(statements), expected, without):
            statements.append(statement)
        return CrashReport(statements=tuple(statements))

    def _outcome_without_act(self) -> Outcome:
        with self.lane.trial():
            made, aftermath = self._arranged()
            run_queued(raise_errors=False)
            return self._outcome(made, aftermath)

    def _outcome_without_crash(self, without: Outcome) -> Outcome:
        with self.lane.trial(), _explained("Without any crash"):
            made, aftermath = self._arranged()
            self.lane.run(NEVER, self.act, made)
            aftermath.assert_none_failed()
            aftermath.assert_all_ended()
            aftermath.assert_sound()
            expected = self._outcome(made, aftermath)
        if not expected.statuses:
            raise AssertionError("act has launched no task: there is nothing to crash.")
        if expected.effects == without.effects:
            raise AssertionError(
                f"The effects are {expected.effects!r} with act and without it: they cannot tell "
                "whether its work was done. Let arrange make something that the work changes."
            )
        return expected

    def _trial(self, number: int, expected: Outcome, without: Outcome) -> str:
        """Die at this step, and return the statement; empty when there are no more steps."""
        with self.lane.trial():
            with _explained(f"At step {number}"):
                made, aftermath = self._arranged()
                known = aftermath.keys()
                end = self.lane.run(number, self.act, made)
            with _explained(_said_of(number, end)):
                aftermath.assert_sound()
                if end.statement:
                    aftermath.recover()
                aftermath.assert_all_ended()
                aftermath.assert_sound()
                is_launched = end.has_acted or aftermath.keys() != known
                allowed = [expected] if is_launched else [expected, without]
                outcome = self._outcome(made, aftermath)
                if outcome not in allowed:
                    wanted = ", or, as without act, ".join(map(str, allowed))
                    why = "".join(f"\n{error}" for error in aftermath.errors())
                    raise AssertionError(f"the effects are {outcome} instead of {wanted}{why}")
        return _shortened(end.statement)

    def _arranged(self) -> tuple[T, Aftermath]:
        aftermath = Aftermath(self.alias)
        made = self.arrange()
        if self.run_first:
            run_queued()
        return made, aftermath

    def _outcome(self, made: T, aftermath: Aftermath) -> Outcome:
        found = self.effects(made)
        if isinstance(found, QuerySet):  # the rows as they are now
            found = list(found)
        return Outcome(found, aftermath.statuses())


@contextmanager
def _explained(said: str) -> Iterator[None]:
    """Say in which trial it happened."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{said}: {error}") from error
    except Exception as error:  # whatever it is, it is raised again
        error.add_note(said)
        raise


def _said_of(number: int, end: End) -> str:
    if not end.statement:
        return f"Without a crash, after {number} with one"
    where = "the worker" if end.has_acted else "act"
    return f"A crash of {where} at step {number}, in front of “{_shortened(end.statement)}”"


def _shortened(statement: str) -> str:
    statement = " ".join(statement.split())
    cut = len(statement) - LONGEST_STATEMENT
    return f"{statement[:LONGEST_STATEMENT]}…" if cut > 0 else statement
