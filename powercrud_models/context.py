"""What is running here: the current run, what it may start, and who asked for it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connections

from powercrud_models.exceptions import LeaseLost, PowerCRUDError
from powercrud_models.queues import async_enabled
from powercrud_models.types import ObjectKey, Said, WorkDeclaration

if TYPE_CHECKING:
    from django.db.models import Model

    from powercrud_models.lifecycle.ending import Claim
    from powercrud_models.models import AsyncTask


class Steps(NamedTuple):
    """How far an item's ``progress()`` loop has come."""

    item: int | None = None
    """The primary key of the item; None outside of a task."""
    current: int = 0
    total: int | None = None


@dataclass(eq=False)
class LiveProgress:
    """How far the item that runs now has come; written by ``progress()``, read by the heartbeat."""

    steps: Steps = field(default_factory=Steps)
    """Replaced as a whole: the heartbeat's thread never reads half of a change."""
    depth: int = 0
    """How many loops are open: only the outermost one is shown."""
    on_step: Callable[[], None] | None = None
    """Called after each step of that loop."""
    is_cancelled: bool = False
    """Whether somebody has asked to cancel the task; set by the heartbeat."""
    lost: LeaseLost | None = None
    """Why the task has lost its objects to others; set by the heartbeat."""

    @property
    def current(self) -> int:
        return self.steps.current

    @property
    def total(self) -> int | None:
        return self.steps.total


@dataclass(eq=False, kw_only=True)
class Run:
    """One run of work: of a task in a worker, or inline outside of any task."""

    owner: str
    """The key under which it holds its locks."""
    claim: Claim | None = None
    """Its claim on a task; None for an inline run that has no task."""
    planned: set[tuple[ObjectKey, str]] = field(default_factory=set)
    """Works, each on its object, that this run does anyway: its items, and those of open saves."""
    active: list[tuple[ObjectKey, str]] = field(default_factory=list)
    """The works that are being called right now, the innermost last."""
    live: LiveProgress = field(default_factory=LiveProgress)
    connection: Any = None
    """Of a run without a task: whose transaction has its locks."""

    def is_joined_by(self, connection: Any) -> bool:
        """Whether what runs on this connection locks for this run, and is undone with it."""
        return self.claim is not None or self.connection is connection

    @property
    def task(self) -> AsyncTask | None:
        return self.claim.task if self.claim else None

    def is_calling(self, obj: Model, work: WorkDeclaration) -> bool:
        """Whether this work of this object is being called right now."""
        return bool(self.active) and (ObjectKey.of(obj), work.name) in self.active

    @contextmanager
    def planning(self, obj: Model, works: Sequence[WorkDeclaration]) -> Iterator[None]:
        """These works of the object are done in the block: a save of it starts them no more."""
        new = {(ObjectKey.of(obj), work.name) for work in works} - self.planned
        self.planned |= new
        try:
            yield
        finally:
            self.planned -= new

    def starts(self, key: ObjectKey, work: WorkDeclaration) -> bool:
        """Whether a save of the object sets this work in motion.

        Work that saves its own object starts neither itself again, nor what the run does anyway.
        """
        step = (key, work.name)
        return not self.is_at_work_on(key) or step not in self.planned.union(self.active)

    def is_at_work_on(self, key: ObjectKey) -> bool:
        """Whether a work of this object is being called right now."""
        return any(active == key for active, _ in self.active)


class Mode(enum.Enum):
    """Where work runs."""

    INLINE = "inline"
    QUEUED = "queued"


_run: ContextVar[Run | None] = ContextVar("powercrud_run", default=None)
_fenced: ContextVar[Any] = ContextVar("powercrud_fenced", default=None)
_here: set[str] = set()
_inline: ContextVar[bool] = ContextVar("powercrud_inline", default=False)
_user: ContextVar[Any] = ContextVar("powercrud_user", default=None)


def decide(skip_async: bool | None, *, said_by: Said) -> Mode:
    """Whether work runs inline or is queued: the one place that decides it.

    Raises TypeError for any other ``skip_async``, and PowerCRUDError when a task is to queue
    another one: a task ends when all that it set in motion has ended.
    """
    if skip_async is not None and not isinstance(skip_async, bool):
        raise TypeError(f"{said_by}: skip_async is {skip_async!r}; it must be True, False or None.")
    run = current_run()
    if skip_async is False and run is not None:
        where = f"task {run.task.key}" if run.task else "an inline run"
        raise PowerCRUDError(
            f"{said_by} asks for a task of its own inside {where}. A task ends when all that it "
            "set in motion has ended: leave out skip_async=False, and the work runs inline."
        )
    if run is not None or skip_async or not async_enabled():
        return Mode.INLINE
    if skip_async is None and _inline.get():
        return Mode.INLINE
    return Mode.QUEUED


def current_run() -> Run | None:
    """The run that this code is part of."""
    return _run.get()


def get_current_task() -> AsyncTask | None:
    """The task that this code runs in, or None."""
    run = _run.get()
    return run.task if run else None


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Make this the current run for the length of the block."""
    token = _run.set(run)
    _here.add(run.owner)
    try:
        yield run
    finally:
        _here.discard(run.owner)
        _run.reset(token)


def is_running_here(task_keys: Iterable[str]) -> bool:
    """Whether one of these tasks runs in this process, in whatever thread."""
    return not _here.isdisjoint(task_keys)


class Fence(enum.Enum):
    """Who holds the fence of the current task."""

    FREE = "nobody here"
    OURS = "the transaction that is open on this connection"
    ANOTHERS = "a transaction on the connection of another thread"


def fence_of(claim: Claim) -> Fence:
    """Who holds the fence of this task, as far as this code knows.

    A thread that was given the context of the work has a connection of its own.
    """
    holder = _fenced.get()
    if holder is None:
        return Fence.FREE
    return Fence.OURS if holder is connections[claim.alias] else Fence.ANOTHERS


@contextmanager
def fenced(claim: Claim) -> Iterator[None]:
    """Say that the transaction around the block holds the fence of this task."""
    token = _fenced.set(connections[claim.alias])
    try:
        yield
    finally:
        _fenced.reset(token)


@contextmanager
def inline() -> Iterator[None]:
    """Saves in this block run their work inline, as with ``skip_async=True``.

    For code that cannot pass the argument: ``get_or_create``, forms, serializers.

    >>> with inline():
    ...     Book.objects.get_or_create(title="Hamlet")
    """
    token = _inline.set(True)
    try:
        yield
    finally:
        _inline.reset(token)


@contextmanager
def acting_user(user: Any) -> Iterator[None]:
    """Tasks that are launched in this block are this user's.

    A function is called for each of them, and returns the user: nobody is loaded for nothing.

    >>> with acting_user(request.user):
    ...     book.save()
    """
    token = _user.set(user)
    try:
        yield
    finally:
        _user.reset(token)


def current_user() -> Any:
    """The user that tasks are launched for, or None."""
    user = _user.get()
    if callable(user):
        user = user()
    return user if getattr(user, "pk", None) is not None else None
