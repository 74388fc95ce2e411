"""What the processes of a cluster write down at once: it outlives whoever wrote it."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from django_q.signals import post_execute

from benchmarks.files import append, folder
from powercrud_models.models import AsyncTask
from powercrud_models.signals import task_started

CLAIMS = "claims"
"""A line for each claim of a task by a worker: key, fence, process."""
RECORDS = "records"
"""A byte for each task whose outcome django-q2's monitor has recorded."""


class Claimed(NamedTuple):
    task_key: str
    fence: int


class Journal:
    """What the workers have written so far."""

    def __init__(self) -> None:
        self._file = folder() / CLAIMS
        self._file.touch()
        self._read = 0
        self._pids: dict[Claimed, int] = {}

    def claimer(self, claimed: Claimed) -> int | None:
        """The process that has made the claim; None when it did not live to write that."""
        with self._file.open() as file:
            file.seek(self._read)
            for line in file.readlines():
                key, fence, pid = line.split()
                self._pids[Claimed(key, int(fence))] = int(pid)
            self._read = file.tell()
        return self._pids.get(claimed)

    def __len__(self) -> int:
        return len(self._pids)


def write(name: str) -> None:
    """Have the processes of the cluster that this process becomes keep this journal."""
    file = folder() / name

    def write_claim(task: AsyncTask, **_: Any) -> None:
        append(file, f"{task.key} {task.fence} {os.getpid()}\n")

    def write_record(**_: Any) -> None:
        append(file, "|")

    if name == CLAIMS:
        task_started.connect(write_claim, weak=False)
    else:
        post_execute.connect(write_record, weak=False)
