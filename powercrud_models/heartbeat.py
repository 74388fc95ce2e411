"""A running task's signs of life, given by a thread with a connection of its own."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from types import TracebackType

from django.db import Error, OperationalError, connections

from powercrud_models.conf import get_conf
from powercrud_models.context import LiveProgress, Steps
from powercrud_models.lifecycle import Claim, has_one_writer, is_cancelled, renew
from powercrud_models.sessions import keep_awake
from powercrud_models.signals import announce, task_progressed

logger = logging.getLogger("powercrud_models")

PROGRESS_SECONDS = 0.2
"""How often live progress is written at most."""
TURN_SECONDS = 0.3
"""How long work on SQLite keeps others from writing, as far as its transactions are shorter."""
PAUSE_SECONDS = 0.1
"""How long it then pauses: SQLite looks for its turn every 0.1 s after a short while."""


class Heartbeat:
    """Renews the lease every HEARTBEAT_SECONDS, and sooner when there is progress to show.

    The connection is opened with the first beat: short tasks never pay for it.
    """

    def __init__(self, claim: Claim, live: LiveProgress) -> None:
        self._claim = claim
        self._live = live
        self._session = connections[claim.alias]  # the work's, not that of the thread
        self._turn = time.monotonic()
        self._moved_to, self._moved_at = live.steps, self._turn
        self._hung = False
        self._has_begun = False
        """To beat: before that the thread leaves nothing behind, and may end when it likes."""
        self._telling = threading.Lock()  # or the thread, when its turn comes, tells old news
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, name=f"heartbeat {claim.task.key}", daemon=True
        )

    def __enter__(self) -> None:
        if has_one_writer(self._claim.alias):
            self._live.on_step = self._take_turns
        if not connections[self._claim.alias].in_atomic_block:  # a test's: nobody sees the pulse
            self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._has_begun and self._thread.is_alive():
            self._thread.join(timeout=1.0)  # it may wait for SQLite's one writer, who waits for us

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

    def _beat(self) -> None:
        shown = self._live.steps
        beaten = time.monotonic()
        try:
            while not self._stop.wait(PROGRESS_SECONDS):
                overdue = time.monotonic() - beaten >= get_conf().HEARTBEAT_SECONDS
                if (self._live.steps == shown and not overdue) or self._hangs():
                    continue
                self._has_begun = True
                try:
                    keep_awake(self._session)
                    # before the pulse, which may wait for SQLite's one writer
                    self._live.is_cancelled = is_cancelled(self._claim)
                    with self._telling:
                        shown = self._live.steps
                        renew(self._claim, shown)
                    announce(task_progressed, self._claim.task.key, self._claim.alias)
                except Error as error:  # SQLite's one writer is busy, or the connection was lost
                    logger.info("No sign of life of %s: %s", self._claim.task.key, error)
                    connections[self._claim.alias].close()  # the next beat opens another
                    shown = Steps()
                else:
                    beaten = time.monotonic()
        finally:
            if self._has_begun:
                connections[self._claim.alias].close()
