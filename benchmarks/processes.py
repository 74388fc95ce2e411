"""Processes that a benchmark starts, watches through /proc, and leaves none of behind.

``python -m benchmarks.processes MODULE`` runs the module as a program in a process group of its
own, beside a keeper that ends the group when the process that started it is gone.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 60
"""Seconds after which something that should have happened long ago is an error."""


@dataclass(frozen=True)
class Process:
    """A living process, as /proc shows it."""

    pid: int
    parent: int
    is_stopped: bool


class Group:
    """The keeper of a program, the program, and all that this starts."""

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as output:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.processes", module],
                cwd=ROOT,
                env={**environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(lambda: self.program, f"{module} was started, see {log}")

    @property
    def members(self) -> dict[int, Process]:
        """All living processes of the group but its keeper."""
        living = processes_of_group(self._keeper.pid)
        living.pop(self._keeper.pid, None)
        return living

    @property
    def program(self) -> int | None:
        """The process id of the program; None when it has ended."""
        children = (each for each in self.members.values() if each.parent == self._keeper.pid)
        return next((child.pid for child in children), None)

    def kill(self) -> None:
        """End what is left of it by force."""
        with suppress(ProcessLookupError):
            os.killpg(self._keeper.pid, signal.SIGKILL)
        self._keeper.wait()
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        until(lambda: not processes_of_group(self._keeper.pid), "the processes of a group ended")


def processes_of_group(group: int) -> dict[int, Process]:
    """The living processes of a group; those that only wait to be reaped do not count."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended just now
            state, parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                pid = int(stat.parent.name)
                found[pid] = Process(pid, int(parent), is_stopped=state in "Tt")
    return found


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for it.

    Raises TimeoutError, which says what did not happen.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Within {seconds} s this did not happen: {what}.")
        time.sleep(0.02)


def _keep(module: str) -> None:
    if not os.fork():
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the pipe is the keeper's
        sys.argv = [module]
        runpy.run_module(module, run_name="__main__")
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how the program ended
    os.read(0, 1)  # until the other end of the pipe is closed, even by a SIGKILL
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _keep(sys.argv[1])
