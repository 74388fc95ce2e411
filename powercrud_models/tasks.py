"""What a queue calls in a worker."""

from __future__ import annotations

from powercrud_models import runner


def run_task(task_key: str) -> None:
    """Run the task with this key, if it is still to be run.

    >>> run_task("0f6c1b1e8d6f4c7f9a4b6f2f3b1c2d3e")
    """
    runner.run_task(task_key)
