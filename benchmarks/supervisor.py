"""What a supervisor such as systemd does for a cluster: it starts it again."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING

from benchmarks.cluster import STOP_SECONDS, Cluster
from benchmarks.files import folder, tell
from benchmarks.journal import CLAIMS

if TYPE_CHECKING:
    from pathlib import Path

START_SECONDS = 60
QUIET_SECONDS = 2.0
"""After so long without a claim it asks whether the cluster still takes messages."""
ANSWER_SECONDS = 5.0


class Supervisor:
    """Keeps one cluster running."""

    def __init__(self) -> None:
        self.restarts: Counter[str] = Counter()
        self._numbers = count(1)
        self._questions: list[Path] = []
        self._quiet_since = 0.0
        self._start()

    def _start(self) -> None:
        self.cluster = Cluster(folder() / f"cluster-{next(self._numbers)}.log", journal=CLAIMS)
        self._started = self.last_lively = time.monotonic()
        self._was_complete = False
        self._stopping_since: float | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether its workers are to begin nothing more."""
        return self._stopping_since is not None

    def stopping(self) -> None:
        """Somebody has told the cluster to end in order."""
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()

    def lively(self) -> None:
        """The cluster has taken a message."""
        self.last_lively = time.monotonic()
        self._questions.clear()

    def look(self, *, may_hang: bool) -> str | None:
        """Why the cluster had to be started again just now, if it had to.

        ``may_hang``: its processes run, and have nothing to do that would keep them from
        answering.
        """
        reason = self._reason(may_hang=may_hang)
        if reason:
            self.restarts[reason] += 1
            tell(f"restart: {reason}")
            self.cluster.group.kill()
            self._start()
        return reason

    def end(self) -> bool:
        """End the cluster in order; whether force was needed."""
        main = self.cluster.group.program
        if main is not None:
            os.kill(main, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self.cluster.group.members and time.monotonic() < deadline:
            time.sleep(0.05)
        forced = bool(self.cluster.group.members)
        self.cluster.group.kill()
        return forced

    def _reason(self, *, may_hang: bool) -> str | None:
        now = time.monotonic()
        roles = self.cluster.processes().keys()
        self._was_complete |= self.cluster.is_complete
        if "main" not in roles:
            return "it had ended"
        if self._stopping_since is not None:
            return "it did not stop" if now - self._stopping_since > STOP_SECONDS else None
        if not self._was_complete:
            self.last_lively = self._quiet_since = now
            return "it did not start" if now - self._started > START_SECONDS else None
        if "sentinel" not in roles:
            return "its sentinel had died"
        if not may_hang or now - self.last_lively < QUIET_SECONDS:
            self._quiet_since = now
            self._questions.clear()
            return None
        return self._ask(now)

    def _ask(self, now: float) -> str | None:
        """Send messages that are answered by a file, until one is or the patience ends."""
        if any(question.exists() for question in self._questions):
            self.lively()
            return None
        asked = now - self._quiet_since
        if asked > ANSWER_SECONDS:
            return "it took no messages"
        if asked >= len(self._questions):  # one each second: the first may have been lost
            from django_q.tasks import async_task

            question = folder() / f"question-{now}"
            self._questions.append(question)
            async_task("pathlib.Path.touch", question, q_options={"save": False})
        return None
