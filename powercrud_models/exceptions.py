"""What can go wrong. Each docstring says what happened and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import OperationalError
from django.utils.translation import gettext, gettext_noop

from powercrud_models.messages import Message, joined

if TYPE_CHECKING:
    from django.db.models import Model

    from powercrud_models.models import AsyncTask


class PowerCRUDError(Exception):
    """The base of every error that this package raises by itself."""


@dataclass(frozen=True)
class Conflict:
    """One object that was wanted by one and is held by another."""

    model: type[Model]
    """The concrete model of the object."""
    pk: Any
    """Its primary key, as the model's own type."""
    holder: AsyncTask | None
    """The task that holds it; None when it ended in the meantime."""
    held_by: Message
    """What the holder does, for whom, since when and how far, at the time of the conflict."""

    def as_message(self) -> Message:
        """What people read."""
        return Message(
            gettext_noop("%(model)s %(pk)s is held by %(held_by)s"),
            model=Message.of(self.model._meta.verbose_name or ""),
            pk=str(self.pk),
            held_by=self.held_by,
        )

    def __str__(self) -> str:
        return str(self.as_message())


class ConflictError(PowerCRUDError):
    """Another task holds an object that this call wanted to change, so nothing was written.

    ``conflicts`` tells which objects, and who holds them. Try again when the holder has ended.
    """

    MOST_SHOWN = 5

    def __init__(self, conflicts: Sequence[Conflict], hint: Message | None = None) -> None:
        super().__init__(conflicts)
        self.conflicts = list(conflicts)
        self.hint = hint

    def as_message(self) -> Message:
        """What people read."""
        shown = [conflict.as_message() for conflict in self.conflicts[: self.MOST_SHOWN]]
        more = len(self.conflicts) - self.MOST_SHOWN
        if more > 0:
            shown.append(Message(gettext_noop("and %(more)s more"), more=more))
        if self.hint:
            shown.append(self.hint)
        return joined(shown)

    def __str__(self) -> str:
        return str(self.as_message())


class LeaseLost(PowerCRUDError):
    """Another worker has taken this task over, so this one may write nothing more.

    It happens to a process that was stopped for longer than LEASE_SECONDS. There is nothing to
    do: the other worker finishes the task. What ``hold`` reserved has been released: begin anew.
    With locks in Redis it also happens when Redis has lost them, and others have got them since.
    """


class StoreUnavailable(PowerCRUDError, OperationalError):
    """Redis, which keeps the locks, does not answer or refuses: nothing was written.

    Nobody knows then who holds what. Try again when it is back; work that it has stopped in a
    worker is taken up again by itself.
    """


class TaskCancelled(PowerCRUDError):
    """The task has been cancelled: its work stops here, or there is no result to wait for.

    Work need not catch it; what an atomic item has written is undone. ``task.retry()`` queues
    again what was not done.
    """

    def __init__(self, task: AsyncTask) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return gettext("The task “%(label)s” has been cancelled.") % {"label": self.task.label}


class TaskFailed(PowerCRUDError):
    """The task whose result was asked for has failed; ``task.error`` holds the traceback."""

    def __init__(self, task: AsyncTask) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        error = self.task.error.strip() or gettext("no reason given")
        return gettext("%(task)s has failed: %(error)s") % {
            "task": self.task.describe(),
            "error": error,
        }
