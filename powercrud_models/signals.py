"""Signals of a task's life, sent after the commit: at most once, and never able to break a task.

Receivers get ``task``, an AsyncTask as it is in the database by then. What they raise is logged.

>>> @receiver(task_finished)
... def tell(task, **kwargs): ...
"""

from __future__ import annotations

from django.db import transaction
from django.dispatch import Signal

from powercrud_models.models import AsyncTask

task_created = Signal()
"""A task has been launched."""
task_started = Signal()
"""A worker has taken it; again for each attempt."""
task_progressed = Signal()
"""Its progress has been written; from the thread that gives its signs of life."""
task_finished = Signal()
"""It has ended: ``task.status`` is success, failed or cancelled."""
task_recovered = Signal()
"""A worker has taken it from one that has died."""


def announce(signal: Signal, task_key: str, alias: str) -> None:
    """Send the signal when the open transaction commits, at once when there is none."""
    if not signal.has_listeners(AsyncTask):
        return

    def send() -> None:
        task = AsyncTask.objects.using(alias).filter(pk=task_key).first()
        if task is not None:
            signal.send_robust(AsyncTask, task=task)

    transaction.on_commit(send, using=alias, robust=True)
