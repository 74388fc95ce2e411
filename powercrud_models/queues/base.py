"""The contract of a queue."""

from __future__ import annotations

from abc import ABC, abstractmethod

RUN_TASK = "powercrud_models.tasks.run_task"
"""What a worker calls with the key of a task."""


class Queue(ABC):
    """Wakes a worker. It may lose the call or make it twice: the task's row is the truth."""

    @abstractmethod
    def send(self, task_key: str) -> None:
        """Have ``RUN_TASK`` called with the key, here or in another process."""

    def commits_with(self, alias: str) -> bool:
        """Whether ``send`` inside a transaction on this alias commits and rolls back with it."""
        return False
