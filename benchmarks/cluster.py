"""A real qcluster on the database of this process: ``python -m benchmarks.cluster`` is its main."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.processes import Group, Process, until
from benchmarks.settings import configure_as_child, environment_of_child

SAID_BY = {
    "worker": re.compile(r"ready for work at (\d+)"),
    "monitor": re.compile(r"monitoring at (\d+)"),
    "pusher": re.compile(r"pushing tasks at (\d+)"),
}
JOURNAL = "POWERCRUD_BENCHMARK_JOURNAL"
"""The environment variable that asks for a journal: its name."""
STOP_SECONDS = 20
"""How long a cluster may take to end in order."""


class Cluster:
    """One start of it; each process is known by what it logs when it begins.

    ``journal``: one of those in ``benchmarks.journal``.
    """

    def __init__(
        self, log: Path, q_cluster: Mapping[str, Any] | None = None, *, journal: str = ""
    ) -> None:
        self._log = log
        self._read = 0
        self._roles: dict[int, str] = {}
        # The level at which its processes say who they are.
        environment = environment_of_child({"log_level": "INFO", **(q_cluster or {})})
        if journal:
            environment[JOURNAL] = journal
        self.group = Group("benchmarks.cluster", environment, log)

    def processes(self) -> dict[str, list[Process]]:
        """Its living processes by role: main, sentinel, worker, monitor, pusher."""
        self._read_log()
        main = self.group.program
        by_role: dict[str, list[Process]] = {}
        for process in self.group.members.values():
            if process.pid == main:
                role = "main"
            elif process.pid in self._roles:
                role = self._roles[process.pid]
            elif process.parent == main:
                role = "sentinel"
            else:  # it has not said yet who it is
                continue
            by_role.setdefault(role, []).append(process)
        return by_role

    @property
    def is_complete(self) -> bool:
        """Whether there is at least one of each."""
        return self.processes().keys() >= {"main", "sentinel", *SAID_BY}

    def wait_until_complete(self, workers: int) -> None:
        until(
            lambda: self.is_complete and len(self.processes()["worker"]) == workers,
            f"the cluster was complete; see what it says:\n{self.tail()}",
        )

    def tail(self) -> str:
        """The last that it has printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])

    def _read_log(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._read += len(complete)
        for role, said in SAID_BY.items():
            for pid in said.findall(complete.decode(errors="replace")):
                self._roles[int(pid)] = role


def _main() -> None:
    configure_as_child()

    from django.core.management import execute_from_command_line

    if JOURNAL in os.environ:
        import django

        django.setup()

        from benchmarks.journal import write

        write(os.environ[JOURNAL])
    execute_from_command_line(["manage.py", "qcluster"])


if __name__ == "__main__":
    _main()
