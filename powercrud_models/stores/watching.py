"""Whether a task still holds what it held: Redis may lose locks, and nobody else would notice."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from powercrud_models.exceptions import ConflictError, LeaseLost
from powercrud_models.stores.locks import Answer, RedisLocks
from powercrud_models.stores.pending import Acquired, acquired_here, is_given_up, released_here

logger = logging.getLogger("powercrud_models")

Acquire = Callable[[str, Sequence[str], str], Answer]


@dataclass(eq=False)
class Watched:
    """A task that runs in this process, and what it should hold."""

    objects: set[str]
    seen: tuple[str, str]
    """The epoch and the server in which it holds them."""
    open: weakref.WeakSet[Acquired] = field(default_factory=weakref.WeakSet)
    """What transactions that are still open have acquired for it."""
    is_lost: bool = False
    turn: threading.RLock = field(default_factory=threading.RLock)
    """Of whoever compares, or changes what there is to compare."""


class Watcher:
    """Knows what the tasks of this process should hold, and acquires again what they have lost."""

    def __init__(self, locks: RedisLocks, acquire: Acquire) -> None:
        self._locks = locks
        self._acquire = acquire
        self._watched: dict[str, Watched] = {}

    def watched(self, task_key: str) -> Watched | None:
        return self._watched.get(task_key)

    @contextmanager
    def watching(self, task_key: str, least: Collection[str], alias: str) -> Iterator[None]:
        """This process runs the task in the block; ``least`` is what it must hold, among others."""
        state = self._locks.state(task_key)
        objects = self._locks.held(task_key)
        watched = Watched(objects.union(least), (state.epoch, state.server))
        self._watched[task_key] = watched
        try:
            if not objects.issuperset(least):  # lost between the launch and now
                self._acquire_again(task_key, watched, alias)
            yield
        finally:
            if self._watched.get(task_key) is watched:
                del self._watched[task_key]

    def confirm(self, task_key: str, alias: str) -> None:
        """Compare, and acquire again what was lost.

        Raises LeaseLost when others hold some of it.
        """
        watched = self._watched[task_key]
        with watched.turn:
            if watched.is_lost:
                raise lost(task_key)
            state = self._locks.state(task_key)
            is_there = state.held >= len(watched.objects)
            if (state.epoch, state.server) != watched.seen or not is_there:
                self._acquire_again(task_key, watched, alias)

    def confirm_here(self, task_key: str, alias: str) -> None:
        """The same for what the open transaction has acquired for a task that is not watched."""
        pending = released_here(alias)
        acquired = [each for each in acquired_here(alias, task_key) if each.objects]
        objects = {
            each
            for part in acquired
            for each in part.objects
            if not is_given_up(each, task_key, pending)
        }
        if not objects:
            return
        state = self._locks.state(task_key)
        if state.epoch != acquired[-1].epoch or state.held < len(objects):
            answer = self._again(task_key, objects, alias)
            acquired[-1].new += answer.new

    def keep(self, acquired: Acquired) -> bool:
        """What was acquired is committed; returns whether the task is watched."""
        watched = self._watched.get(acquired.task_key)
        if watched is None:
            return False
        with watched.turn:
            watched.objects |= acquired.objects
            watched.open.discard(acquired)
        return True

    @contextmanager
    def giving_up(
        self, task_key: str, objects: Collection[str] | None, kept: Collection[str]
    ) -> Iterator[None]:
        """A block that releases these objects, or all, but for those that are kept."""
        watched = self._watched.get(task_key)
        if watched is None:
            yield
            return
        with watched.turn:  # or they would be missed, and acquired again
            given = watched.objects if objects is None else watched.objects.intersection(objects)
            watched.objects -= given.difference(kept)
            yield

    def _acquire_again(self, task_key: str, watched: Watched, alias: str) -> None:
        wanted = watched.objects.union(*(acquired.objects for acquired in watched.open))
        try:
            self._again(task_key, wanted, alias)
        except LeaseLost:
            watched.is_lost = True
            raise
        state = self._locks.state(task_key)
        watched.seen = state.epoch, state.server

    def _again(self, task_key: str, objects: Collection[str], alias: str) -> Answer:
        if not objects:
            return Answer()
        try:
            answer = self._acquire(task_key, sorted(objects), alias)
        except ConflictError as conflict:
            raise lost(task_key) from conflict
        if answer.new:
            logger.warning(
                "Redis had lost %s locks of the task %s, which holds them again.",
                len(answer.new),
                task_key,
            )
        return answer


def lost(task_key: str) -> LeaseLost:
    """What to raise when others hold what the task has held."""
    return LeaseLost(
        f"A failure of Redis has lost locks of the task {task_key}, and others hold its objects."
    )
