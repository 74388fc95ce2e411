"""A limit to the time that one run of a work may take."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from types import FrameType
from typing import TypeVar

from django.db.transaction import Atomic

T = TypeVar("T")

LONGEST = threading.TIMEOUT_MAX
"""What the alarm clock of a process can count, in seconds."""
PAUSE = 0.001
"""Seconds after which an alarm that came at a bad moment goes off again."""
BOOKKEEPING = {Atomic.__enter__.__code__, Atomic.__exit__.__code__}


class WorkTimeout(TimeoutError):
    """Work took longer than its ``timeout`` and was stopped; nothing of it is written if atomic."""


class _Alarm(KeyboardInterrupt):
    """What stops the work: no broad ``except`` keeps it, and the driver cancels its query."""


def call_limited(seconds: float | None, said_by: str, call: Callable[[], T]) -> T:
    """Call the function, and raise WorkTimeout when it takes longer than this.

    It needs the alarm clock of the process, which belongs to the main thread: workers run tasks
    there. In any other thread there is no limit. An alarm that was set before, such as the queue's
    own, goes off at its time, if that comes first or the call has ended.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        return call()
    others_delay, others_interval = signal.getitimer(signal.ITIMER_REAL)
    if others_delay and others_delay <= seconds:
        return call()

    has_ended = False

    def stop(number: int, frame: FrameType | None) -> None:
        if _may_be_stopped(frame):
            raise _Alarm
        if not has_ended:
            signal.setitimer(signal.ITIMER_REAL, PAUSE)

    started = time.monotonic()
    others_handler = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        # a copy: context variables that it sets, and is kept from resetting, are gone with it
        return _stoppable(partial(copy_context().run, call))
    except _Alarm as alarm:
        raise WorkTimeout(f"{said_by} took longer than its timeout of {seconds:g} s.") from alarm
    finally:
        has_ended = True  # or the alarm could be set once more, with nobody left to hear it
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, others_handler)
        if others_delay:
            left = max(others_delay - (time.monotonic() - started), PAUSE)
            signal.setitimer(signal.ITIMER_REAL, left, others_interval)


def _stoppable(call: Callable[[], T]) -> T:
    """What the alarm may interrupt; whatever happens outside of it must come to its end."""
    return call()


def _may_be_stopped(frame: FrameType | None) -> bool:
    """Whether the interrupted code is part of the work, and not of Django's bookkeeping.

    To begin or end half a transaction would leave one open for ever.
    """
    while frame is not None and frame.f_code not in BOOKKEEPING:
        if frame.f_code is _stoppable.__code__:
            return True
        frame = frame.f_back
    return False
