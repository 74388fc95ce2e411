"""Locks in Redis: one round trip for each call, whatever the number of objects.

Who holds what is one hash; beside it each task has the set of its objects. Entries do not expire.

*All or nothing.* Up to CHUNK objects are acquired by one script, which looks at all of them before
it writes the first. More of them would block the server: they are acquired chunk by chunk, in the
order of their names. Nobody is told that they are held before the last chunk is, and a chunk that
is refused keeps those behind it from writing, and has those before it given back. While that is
going on, others may run into a lock that then comes to nothing: that is a conflict too much, never
one too few. Two calls that overlap cannot refuse each other, because both take what they have in
common in the same order. A process that is killed in between leaves locks of a task without a row.

*Transactions.* Locks are seen by others at once, and undone when the transaction is rolled back;
they are released when it has committed: see ``pending``. A call that fails, or is killed with its
process, may leave locks that nobody undoes. Their task has no row, or has ended. So a holder that
has acquired nothing for LEASE_SECONDS and is no unfinished task in the database is void: whoever
runs into it releases it, and so does the sweep. A transaction that is open for longer looks after
its own: see below.

*Failures.* Redis can lose locks: emptied, restarted from an old snapshot, replaced by a replica
that lags behind. Two things tell: the epoch, which is written with the first lock and goes with
the last, and the server's name for its own run. The number of objects held is the third. The
process that runs a task watches them: with each heartbeat, and in the transaction that ends an
item. What was lost is acquired again; what others have acquired meanwhile is lost for good, so the
task stops with LeaseLost, its open transaction is rolled back, and a worker takes it up again.
Between the failure and that moment others are not kept out. So promises 3, 5 and 10 hold between
failures of Redis only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from django.db.models import QuerySet

from powercrud_models.conf import get_conf
from powercrud_models.exceptions import LeaseLost
from powercrud_models.stores.base import Store, conflict_error
from powercrud_models.stores.dangers import Danger, dangers_of, left_behind
from powercrud_models.stores.locks import Answer, RedisLocks
from powercrud_models.stores.pending import (
    Acquired,
    Released,
    acquired_here,
    is_given_up,
    register,
    released_here,
)
from powercrud_models.stores.server import Server
from powercrud_models.stores.void import unfinished, void_among
from powercrud_models.stores.watching import Watcher, lost
from powercrud_models.types import ObjectKey

logger = logging.getLogger("powercrud_models")


class RedisStore(Store):
    """Locks in the Redis server that CACHE_NAME names."""

    name = "redis"
    keeps_rows = False

    def __init__(self, cache_name: str) -> None:
        self._server = Server(cache_name)
        self._locks = RedisLocks(self._server)
        self._watcher = Watcher(self._locks, self._acquire)
        self._is_known = False

    def acquire(self, task_key: str, keys: Collection[ObjectKey], alias: str) -> None:
        if not keys:
            return
        self._look_around(alias)
        objects = sorted(map(_name, keys))
        watched = self._watcher.watched(task_key)
        if watched is not None and watched.is_lost:
            raise lost(task_key)
        acquired = Acquired(task_key, alias, partial(self._locks.undo, task_key), self._committed)
        is_open = register(acquired, alias)  # before there is anything to undo
        answer = self._acquire(task_key, objects, alias)
        acquired.fill(objects, answer.new, answer.taken, answer.epoch)
        for released in released_here(alias):
            if released.task_key == task_key:
                released.but_for(acquired)
        if watched is not None:
            watched.open.add(acquired)
            if answer.epoch != watched.seen[0]:
                self._confirm(acquired)
        if not is_open:
            acquired()

    def _acquire(self, task_key: str, objects: Sequence[str], alias: str) -> Answer:
        answer = self._locks.acquire(task_key, objects)
        if answer.others:
            yields = {
                holder
                for holder, held in answer.others.items()
                if not _without_given_up({holder: held}, alias)
            }
            void = self._release_void(answer, alias)
            if void or yields:
                answer = self._locks.acquire(task_key, objects, yields=yields)
        if answer.others:
            raise conflict_error(_without_given_up(answer.others, alias), alias)
        return answer

    def release(self, task_key: str, alias: str, keys: Collection[ObjectKey] | None = None) -> None:
        objects = None if keys is None else sorted(map(_name, keys))
        if objects == []:
            return
        self.confirm(task_key, alias)
        released = Released(task_key, objects, partial(self._give_up, task_key))
        if not register(released, alias):
            released()

    def holders(self, keys: Collection[ObjectKey], alias: str) -> dict[ObjectKey, str]:
        if not keys:
            return {}
        answer = self._locks.holders(sorted(map(_name, keys)))
        for holder in self._release_void(answer, alias):
            del answer.others[holder]
        return _without_given_up(answer.others, alias)

    def free_rows(self, rows: QuerySet[Any], key: ObjectKey, owner: str) -> QuerySet[Any]:
        """The look is a round trip of its own: the caller looks again after the write."""
        holder = self.holders({key}, rows.db).get(key, owner)
        return rows if holder == owner else rows.none()

    def held(self, task_key: str, alias: str) -> set[ObjectKey]:
        held = {task_key: list(self._locks.held(task_key))}
        return set(_without_given_up(held, alias))

    def release_strays(self, alias: str) -> int:
        """Between two looks at the server, those of tasks that are alive are skipped."""
        released, skipped = 0, 0
        while idle := self._locks.idle_tasks(get_conf().LEASE_SECONDS, skip=skipped):
            alive = unfinished(idle, alias).union(filter(self._watcher.watched, idle))
            skipped += len(alive)
            for task_key in set(idle) - alive:
                released += self._locks.state(task_key).held
                self._locks.release_all(task_key)
        return released

    def dangers(self, alias: str) -> Iterator[Danger]:
        yield from dangers_of(self._server)
        yield from left_behind(self, alias)

    def watching(
        self, task_key: str, keys: Collection[ObjectKey], alias: str
    ) -> AbstractContextManager[None]:
        return self._watcher.watching(task_key, set(map(_name, keys)), alias)

    def confirm(self, task_key: str, alias: str) -> None:
        if self._watcher.watched(task_key) is not None:
            self._watcher.confirm(task_key, alias)
        else:
            self._watcher.confirm_here(task_key, alias)

    def _confirm(self, acquired: Acquired) -> None:
        try:
            self._watcher.confirm(acquired.task_key, acquired.alias)
        except LeaseLost:
            acquired.undo()  # the error may keep it alive for longer than the transaction
            raise

    def _committed(self, acquired: Acquired) -> None:
        is_watched = self._watcher.keep(acquired)
        if not is_watched and time.monotonic() - acquired.began > get_conf().LEASE_SECONDS / 2:
            # while nobody saw the row of its task, it may have been taken for void
            self._acquire(acquired.task_key, sorted(acquired.objects), acquired.alias)

    def _give_up(
        self, task_key: str, objects: Collection[str] | None, kept: Collection[str]
    ) -> None:
        with self._watcher.giving_up(task_key, objects, kept):
            if objects is None and not kept:
                self._locks.release_all(task_key)
                return
            given = self._locks.held(task_key) if objects is None else set(objects)
            self._locks.release(task_key, sorted(given.difference(kept)))

    def _release_void(self, answer: Answer, alias: str) -> set[str]:
        """Release what belongs to no task any more; returns whose it was.

        What this transaction has done to a task is no reason: it may be rolled back.
        """
        ours = {each.task_key for each in released_here(alias)}
        ages = {
            holder: age
            for holder, age in answer.ages.items()
            if holder not in ours
            and self._watcher.watched(holder) is None
            and not acquired_here(alias, holder)
        }
        void = void_among(ages, alias)
        for task_key in void:
            self._locks.release_all(task_key)
        return void

    def _look_around(self, alias: str) -> None:
        """Say, once in each process, what the locks are in danger of."""
        if self._is_known:
            return
        self._is_known = True
        for danger in self.dangers(alias):
            logger.warning("%s", danger)


def _name(key: ObjectKey) -> str:
    return f"{key.model}:{key.pk}"


def _key(name: str) -> ObjectKey:
    model, _, pk = name.partition(":")
    return ObjectKey(model, pk)


def _without_given_up(others: dict[str, list[str]], alias: str) -> dict[ObjectKey, str]:
    """Who holds what, but for what this transaction has released."""
    pending = released_here(alias)
    return {
        _key(each): holder
        for holder, held in others.items()
        for each in held
        if not is_given_up(each, holder, pending)
    }
