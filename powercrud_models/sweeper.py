"""A thread of each worker process that sweeps when something is due.

So a dead worker's task is taken up, and a lost message sent again, as long as any worker lives:
even when the queue brings nothing any more, for some deaths leave it locked for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from django.db import Error, connections

from powercrud_models import lifecycle
from powercrud_models.conf import get_conf
from powercrud_models.models import AsyncTask
from powercrud_models.stopping import stopping

logger = logging.getLogger("powercrud_models")

SHORTEST_PAUSE = 0.5
"""Seconds between two looks, at least."""
PAUSE_IN_VAIN = 2.0
"""Seconds to the next look when nothing could be done about what is due: it is in another's hand,
or waits in the queue, or SQLite's one writer was busy."""
A_MOMENT = timedelta(seconds=1)
"""A claim sets the time of the next sending to that of the claim itself, or nearly."""


class Sweeper(threading.Thread):
    """Sleeps until the next task is due, but for no longer than HEARTBEAT_SECONDS."""

    here: Sweeper | None = None
    """That of this process, while it runs."""

    def __init__(self, run_if_waiting: Callable[[str], None]) -> None:
        """``run_if_waiting``: has the main thread run this task, if it waits for its queue."""
        super().__init__(name="powercrud sweeper", daemon=True)
        self._run_if_waiting = run_if_waiting
        self._stop_asked = threading.Event()
        self._next_look = 0.0

    @classmethod
    def after_a_task(cls, take_up: Callable[[AsyncTask], bool]) -> None:
        """Sweep in a worker that has a task behind it; ``take_up`` as for ``lifecycle.sweep``.

        Where a thread sweeps anyway, a short look now and then is enough.
        """
        if cls.here is None:
            lifecycle.sweep(thorough=False, take_up=take_up)
        elif cls.here.looks_now():
            lifecycle.sweep(thorough=False, take_up=take_up, late=False)

    def looks_now(self) -> bool:
        """Whether the last time that this was true is long enough ago."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + SHORTEST_PAUSE
        return True

    def run(self) -> None:
        Sweeper.here = self
        try:
            pause = SHORTEST_PAUSE
            while not self._stop_asked.wait(pause):
                pause = self._sweep()
        finally:
            Sweeper.here = None

    def stop(self) -> None:
        """End it, once it is through with what it does."""
        self._stop_asked.set()
        self.join()

    def _sweep(self) -> float:
        """Sweep, and return the seconds to pause."""
        longest = PAUSE_IN_VAIN
        try:
            longest = float(get_conf().HEARTBEAT_SECONDS)
            swept = lifecycle.sweep(thorough=False, take_up=self._take_up)
            due = lifecycle.seconds_until_due(lifecycle.tasks_alias())
        except Error as error:  # the database is away, or SQLite's one writer is busy
            logger.info("Nothing could be swept: %s", error)
            return longest
        except Exception:  # the outermost frame of the thread: it shall look again all the same
            logger.exception("The sweep has failed")
            return longest
        finally:
            with suppress(Error):
                connections.close_all()  # a worker has its own; these are seldom needed
        if due is None:
            return longest
        in_vain = due <= 0 and not any(swept.values())
        return min(max(due, PAUSE_IN_VAIN if in_vain else SHORTEST_PAUSE), longest)

    def _take_up(self, orphan: AsyncTask) -> bool:
        """Have the task run here if it was sent in vain, and this process has nothing to do.

        It is sent again all the same.
        """
        was_sent = orphan.started_at and orphan.resend_at - orphan.started_at > A_MOMENT
        if was_sent and not stopping.is_busy and not stopping.is_due:
            self._run_if_waiting(orphan.key)
        return False
