"""Sends nowhere: tasks wait until a test runs them."""

from __future__ import annotations

from powercrud_models.queues.base import Queue


class SilentQueue(Queue):
    """For ``powercrud_models.testing``, which runs what is queued when a test says so."""

    def send(self, task_key: str) -> None:
        """The task's row is all that ``run_queued()`` needs."""
