"""The contract of a store: who holds which objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext_noop

from powercrud_models.compiled import Bound
from powercrud_models.exceptions import Conflict, ConflictError
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.stores.dangers import Danger, left_behind
from powercrud_models.types import ObjectKey

MOST_DESCRIBED = 5
"""How many holders are described in full: each costs a few queries."""


class Store(ABC):
    """Keeps locks. Each call is a constant number of round trips, whatever the number of keys.

    The calls belong to the transaction that is open on ``alias``: a lock is gone when it is rolled
    back, and what is released is free for others when it commits. Locks that are rows are seen by
    others when it commits, and waited for until then; elsewhere they are seen at once.
    """

    name = "database"
    """Its name in the setting STORE."""
    keeps_rows = True
    """Whether locks are rows of the database, which a statement can look at while it writes."""

    @abstractmethod
    def acquire(self, task_key: str, keys: Collection[ObjectKey], alias: str) -> None:
        """Lock all the objects for the task. What it holds already is no conflict.

        Raises ConflictError, with every holder, when another task holds one of them. Some locks
        may be written by then: the caller undoes them with its savepoint.
        """

    @abstractmethod
    def release(self, task_key: str, alias: str, keys: Collection[ObjectKey] | None = None) -> None:
        """Give up these locks of the task, or all; what others hold stays."""

    def release_as_statement(self, task_key: str) -> Bound | None:
        """SQL that gives up all locks of the task, to be run together with other statements.

        None where locks are no rows of that database.
        """
        return None

    @abstractmethod
    def holders(self, keys: Collection[ObjectKey], alias: str) -> dict[ObjectKey, str]:
        """The keys of the tasks that hold these objects; objects that are free are left out."""

    @abstractmethod
    def free_rows(self, rows: QuerySet[Any], key: ObjectKey, owner: str) -> QuerySet[Any]:
        """The rows, if nobody but the owner holds this object; else none.

        The statement that they become part of is a look and a write in one, where locks are rows.
        """

    @abstractmethod
    def held(self, task_key: str, alias: str) -> set[ObjectKey]:
        """The objects that the task holds."""

    def release_strays(self, alias: str) -> int:
        """Release the locks of what is no unfinished task; returns how many there were."""
        holders = AsyncTask.objects.using(alias).filter(
            pk=OuterRef("task_id"), status__in=AsyncTask.UNFINISHED
        )
        return ObjectLock.objects.using(alias).filter(~Exists(holders)).delete()[0]

    def dangers(self, alias: str) -> Iterator[Danger]:
        """What its locks are in danger of, at this moment."""
        return left_behind(self, alias)

    def watching(
        self, task_key: str, keys: Collection[ObjectKey], alias: str
    ) -> AbstractContextManager[None]:
        """A block in which this process runs the task, which holds at least these objects."""
        return nullcontext()

    def confirm(self, task_key: str, alias: str) -> None:  # noqa: B027  nothing to do for rows
        """See to it that a task that runs here holds what it held, though its locks got lost.

        Raises LeaseLost when others hold some of it by now.
        """


def refuse_others(
    held: Mapping[ObjectKey, str],
    owners: Collection[str | None],
    alias: str,
    hint: Message | None = None,
) -> None:
    """Raise ConflictError when anyone but these owners is among the holders."""
    others = {key: holder for key, holder in held.items() if holder not in owners}
    if others:
        raise conflict_error(others, alias, hint)


def conflict_error(
    held: Mapping[ObjectKey, str], alias: str, hint: Message | None = None
) -> ConflictError:
    """The error that names who holds what."""
    tasks = AsyncTask.objects.using(alias).select_related("user").in_bulk(set(held.values()))
    described = {task.key: task.describe() for task in list(tasks.values())[:MOST_DESCRIBED]}
    return ConflictError(
        [
            Conflict(
                model=key.model_class,
                pk=key.python_pk,
                holder=tasks.get(task_key),
                held_by=described.get(task_key)
                or Message(gettext_noop("task %(key)s"), key=task_key),
            )
            for key, task_key in sorted(held.items())
        ],
        hint,
    )
