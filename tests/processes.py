"""Which processes live, and what they do: read from the system."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def processes_of_group(group: int) -> list[int]:
    """The living processes of a process group; those that only wait to be reaped do not count."""
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):  # the latter: only dead ones are left
            return []
        return [group]
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            state, _, process_group = _state(stat)
            if process_group == group and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def parent_of(pid: int) -> int:
    return _state(Path(f"/proc/{pid}/stat"))[1]


def is_stopped(pid: int) -> bool:
    """Whether a SIGSTOP has reached it."""
    return _state(Path(f"/proc/{pid}/stat"))[0] == "T"


def _state(stat: Path) -> tuple[str, int, int]:
    """The letter of its state, its parent, its process group."""
    state, parent, group = stat.read_text().rpartition(")")[2].split()[:3]
    return state, int(parent), int(group)
