"""Runs the task in this process, right after the commit."""

from __future__ import annotations

from django.utils.module_loading import import_string

from powercrud_models.queues.base import RUN_TASK, Queue


class ImmediateQueue(Queue):
    """For tests, scripts, and projects that want tasks and locks without a worker."""

    waits = False

    def send(self, task_key: str) -> None:
        import_string(RUN_TASK)(task_key)
