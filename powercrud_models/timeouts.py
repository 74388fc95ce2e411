"""A limit to the time that one run of a work may take."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class WorkTimeout(TimeoutError):
    """Work took longer than its ``timeout`` and was stopped; nothing of it is written if atomic."""


@contextmanager
def limited(seconds: float | None, said_by: str) -> Iterator[None]:
    """Raise WorkTimeout in the block when it takes longer than this.

    It needs the alarm clock of the process, which belongs to the main thread: workers run tasks
    there. In any other thread there is no limit. An alarm that was set before, such as the queue's
    own, goes off at its time, if that comes first or the block has ended.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise WorkTimeout(f"{said_by} took longer than its timeout of {seconds:g} s.")

    started = time.monotonic()
    others_delay, others_interval = signal.getitimer(signal.ITIMER_REAL)
    if others_delay and others_delay <= seconds:
        yield
        return
    others_handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, others_handler)
        if others_delay:
            left = max(others_delay - (time.monotonic() - started), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, others_interval)
