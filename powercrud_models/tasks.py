"""What a queue calls in a worker."""

from __future__ import annotations

from powercrud_models import lifecycle, runner
from powercrud_models.stopping import stopping


def run_task(task_key: str) -> None:
    """Run the task with this key, if it is still to be run.

    Raises SystemExit when the process has been told to stop meanwhile.

    >>> run_task("0f6c1b1e8d6f4c7f9a4b6f2f3b1c2d3e")
    """
    if stopping.is_due:  # the message was fetched before; let the next worker have it
        lifecycle.send(task_key)
        if stopping.was_told:
            raise SystemExit(0)
        return
    try:
        with stopping.put_off():
            runner.run_task(task_key)
    finally:
        if stopping.was_told:
            raise SystemExit(0)
