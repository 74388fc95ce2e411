"""A running task's signs of life, given by a thread with a connection of its own."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager, ExitStack, suppress
from types import TracebackType

from django.db import Error, OperationalError, connections

from powercrud_models.conf import get_conf
from powercrud_models.context import LiveProgress
from powercrud_models.exceptions import LeaseLost, StoreUnavailable
from powercrud_models.lifecycle import Claim, has_one_writer, is_cancelled, renew
from powercrud_models.sessions import keep_awake, kept_awake
from powercrud_models.signals import announce, task_progressed
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey, model_label

logger = logging.getLogger("powercrud_models")

PROGRESS_SECONDS = 0.2
"""How often live progress is written at most."""
TURN_SECONDS = 0.3
"""How long work on SQLite keeps others from writing, as far as its transactions are shorter."""
PAUSE_SECONDS = 0.1
"""How long it then pauses: SQLite looks for its turn every 0.1 s after a short while."""
PAUSE_AFTER_ERROR = 0.5
"""Seconds to the next try of a beat that has failed."""
IDLE_SECONDS = 5
"""How long a thread that beats waits for the next task."""


class Heartbeat:
    """Renews the lease every HEARTBEAT_SECONDS, and sooner when there is progress to show."""

    def __init__(self, claim: Claim, live: LiveProgress) -> None:
        self._claim = claim
        self._live = live
        self._session = connections[claim.alias]  # the work's, not that of the thread that beats
        self._turn = self._beaten = self._moved_at = time.monotonic()
        self._shown = self._moved_to = live.steps
        self._hung = False
        self._not_before = 0.0
        self._confirmed = time.monotonic()
        self._telling = threading.Lock()  # or the thread, when its turn comes, tells old news

    def __enter__(self) -> None:
        if has_one_writer(self._claim.alias):
            self._live.on_step = self._take_turns
        self._pacemaker: Pacemaker | None = None
        self._around = ExitStack()
        self._around.enter_context(self._watched_locks())
        if not self._session.in_atomic_block:  # a test's: nobody sees the pulse
            self._pacemaker = Pacemaker.begin(self)
            if self._claim.items:  # a hold's transactions are its user's
                self._around.enter_context(kept_awake(self._session))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._around.close()
        if self._pacemaker is not None:
            self._pacemaker.end(self)

    def _watched_locks(self) -> AbstractContextManager[None]:
        targets = {
            ObjectKey(model_label(item.model_class), item.object_id)
            for item in self._claim.items
            if item.model_class
        }
        return get_store().watching(self._claim.task.key, targets, self._claim.alias)

    def _confirm_locks(self) -> None:
        """See to it that the task still holds its objects, once in HEARTBEAT_SECONDS.

        What keeps them may have lost them, and others may hold them since: then this is the end of
        it, and there are no more signs of life.
        """
        if time.monotonic() - self._confirmed < get_conf().HEARTBEAT_SECONDS:
            return
        try:
            get_store().confirm(self._claim.task.key, self._claim.alias)
        except LeaseLost as lost:
            logger.error("%s", lost)  # noqa: TRY400  the work's thread raises it
            self._live.lost = lost
        except StoreUnavailable as error:  # the worker is alive all the same
            logger.warning("The task %s may have lost its locks. %s", self._claim.task.key, error)
        self._confirmed = time.monotonic()

    def _take_turns(self) -> None:
        """Where one transaction at a time may write, let others write between two of ours.

        Neither the thread nor anyone else would get a turn between transactions that follow each
        other closely. This runs in the work's own thread, after a step of its loop.
        """
        if time.monotonic() - self._turn < TURN_SECONDS:
            return
        if connections[self._claim.alias].in_atomic_block:
            return
        # another writer may have the turn, and keep it for long
        with self._telling, suppress(OperationalError):
            renew(self._claim, self._live.steps)
        time.sleep(PAUSE_SECONDS)
        self._turn = time.monotonic()

    def _hangs(self) -> bool:
        """Whether the work has not got on for so long that another worker shall try it."""
        if self._live.steps is not self._moved_to:
            self._moved_to, self._moved_at = self._live.steps, time.monotonic()
        limit = get_conf().MAX_TASK_DURATION
        hangs = bool(self._claim.items) and time.monotonic() - self._moved_at > limit
        if hangs and not self._hung:
            logger.error("Task %s made no progress for %s s.", self._claim.task.key, limit)
        self._hung = hangs
        return hangs

    def is_due(self) -> bool:
        """Whether it is time for a sign of life, or there is progress to show."""
        if time.monotonic() < self._not_before or self._live.lost is not None:
            return False
        age = time.monotonic() - self._beaten
        moved = self._live.steps != self._shown and age >= PROGRESS_SECONDS
        return (moved or age >= get_conf().HEARTBEAT_SECONDS) and not self._hangs()

    def beat(self) -> None:
        """Give a sign of life, and hear whether the task is to be cancelled."""
        task_key, alias = self._claim.task.key, self._claim.alias
        try:
            if self._claim.items:
                keep_awake(self._session)
            # before the pulse, which may wait for SQLite's one writer
            self._live.is_cancelled = is_cancelled(self._claim)
            self._confirm_locks()
            if self._live.lost is not None:
                return
            with self._telling:
                self._shown = self._live.steps
                renew(self._claim, self._shown)
            announce(task_progressed, task_key, alias)
        except Error as error:  # SQLite's one writer is busy, or a connection was lost
            logger.info("No sign of life of %s: %s", task_key, error)
            connections[alias].close()  # the next beat opens another
            self._not_before = time.monotonic() + PAUSE_AFTER_ERROR
        else:
            self._beaten = time.monotonic()


class Pacemaker(threading.Thread):
    """Beats for what one thread has in hand, one task after the other.

    To start a thread for each would take longer than a short task. It has a connection of its
    own while a task lasts that it has beaten for, and ends when it has had none for a while.
    """

    _of_threads = threading.local()

    def __init__(self) -> None:
        super().__init__(name=f"heartbeat of {threading.current_thread().name}", daemon=True)
        self._changed = threading.Condition()
        self._heartbeats: list[Heartbeat] = []
        self._is_at_rest = True
        """Whether it neither beats nor has a connection."""
        self._has_ended = False

    @classmethod
    def begin(cls, heartbeat: Heartbeat) -> Pacemaker:
        """Beat from now on; returns who does so for the calling thread."""
        pacemaker: Pacemaker | None = getattr(cls._of_threads, "pacemaker", None)
        if pacemaker is None or not pacemaker._takes(heartbeat):
            pacemaker = cls._of_threads.pacemaker = cls()
            pacemaker._heartbeats.append(heartbeat)
            pacemaker.start()
        return pacemaker

    def _takes(self, heartbeat: Heartbeat) -> bool:
        if not self.is_alive():  # the process was forked, maybe with the lock in hand
            return False
        with self._changed:
            if self._has_ended:
                return False
            self._heartbeats.append(heartbeat)
            return True

    def end(self, heartbeat: Heartbeat) -> None:
        """Beat no more; a beat that is under way is waited for, though not for long."""
        with self._changed:
            self._heartbeats.remove(heartbeat)
            if not self._is_at_rest:
                self._changed.notify_all()
                # it may be waiting for SQLite's one writer, who waits here
                self._changed.wait_for(lambda: self._is_at_rest or self._heartbeats, timeout=1.0)

    def run(self) -> None:
        last_task = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait(PROGRESS_SECONDS)
                if self._heartbeats:
                    last_task = time.monotonic()
                due = [heartbeat for heartbeat in self._heartbeats if heartbeat.is_due()]
                if due:
                    self._is_at_rest = False
                elif time.monotonic() - last_task > IDLE_SECONDS:
                    self._has_ended = True
                    return
            for heartbeat in due:
                try:
                    heartbeat.beat()
                except Exception:  # the outermost frame of the thread: the next beat may be well
                    logger.exception("A sign of life has failed")
            with self._changed:
                if not self._heartbeats and not self._is_at_rest:
                    with suppress(Error):
                        connections.close_all()
                    self._is_at_rest = True
                    self._changed.notify_all()
