"""Files by which the processes of a benchmark tell each other what has happened."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.settings import chosen


def folder() -> Path:
    """Where they are: it goes when the benchmark ends."""
    return Path(chosen["folder"])


def append(file: Path, text: str) -> None:
    """Add it at the end, in one piece, whoever else does so at the same time."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def tell(event: str) -> None:
    """Write down when it happened, for whoever wants to know later."""
    append(folder() / "events.log", f"{time.strftime('%H:%M:%S')} {event}\n")


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
