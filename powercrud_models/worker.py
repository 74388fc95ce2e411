"""What a queue's worker process does besides its tasks: it sweeps, and ends in order."""

from __future__ import annotations

import os
import signal
from functools import partial
from types import FrameType

from powercrud_models.queues import async_enabled, get_queue
from powercrud_models.queues.base import WorkerProcess
from powercrud_models.queues.django_q2 import DjangoQ2Queue
from powercrud_models.stopping import stopping
from powercrud_models.sweeper import Sweeper
from powercrud_models.tasks import run_task


def begin(process: WorkerProcess) -> None:
    """Call this in the main thread of a process that has just begun to work for a queue.

    SIGTERM then ends it when the item in hand is done; a second one, or one that comes when the
    queue's time limit has passed, ends it at once.
    """
    if not async_enabled() or not isinstance(get_queue(), DjangoQ2Queue):
        return
    stopping.follow(process.cluster_stops)
    this_process = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        is_child = os.getpid() != this_process  # which the work has forked
        # an idle process has no alarm: to die with the queue's lock in hand would stop all others
        hangs = stopping.is_busy and process.is_out_of_time()
        if is_child or stopping.was_told or hangs:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        stopping.was_told = True
        if not stopping.is_busy:
            raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    Sweeper(lambda task_key: process.while_waiting(partial(run_task, task_key))).start()
