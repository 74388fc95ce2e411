"""The contract of a queue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

RUN_TASK = "powercrud_models.tasks.run_task"
"""What a worker calls with the key of a task."""


class Queue(ABC):
    """Wakes a worker. It may lose the call or make it twice: the task's row is the truth."""

    @abstractmethod
    def send(self, task_key: str) -> None:
        """Have ``RUN_TASK`` called with the key, here or in another process."""

    def has_messages(self) -> bool:
        """Whether calls wait for their turn: then a task that is late may be one of them."""
        return False

    waits = True
    """Whether a sweep runs a task that is due later; else whoever runs it goes on at once."""

    def commits_with(self, alias: str) -> bool:
        """Whether ``send`` inside a transaction on this alias commits and rolls back with it."""
        return False


@dataclass(frozen=True)
class WorkerProcess:
    """What a queue can tell about one of its worker processes, when asked in it."""

    cluster_stops: Callable[[], bool]
    """Whether the cluster that it belongs to has been told to stop."""
    is_out_of_time: Callable[[], bool]
    """Whether the queue's time limit for the call in hand has passed."""
    while_waiting: Callable[[Callable[[], None]], None]
    """Have something called in the main thread, as the queue calls a task.

    Nothing is called unless that thread waits for its turn to get a message.
    """
