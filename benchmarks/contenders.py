"""Who is compared in ``benchmarks.throughput``, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WORKERS = 2
PLAIN = "plain"
SAVES_NONE = "plain, saves none"
OURS = "ours"
CONTENDERS: dict[str, dict[str, Any]] = {
    # What is not named is django-q2's default: save_limit 250, for one.
    PLAIN: {"workers": WORKERS, "timeout": 60, "retry": 120},
    SAVES_NONE: {"workers": WORKERS, "timeout": 60, "retry": 120, "save_limit": -1},
    # As the documentation recommends.
    OURS: {
        "workers": WORKERS,
        "queue_limit": WORKERS,
        "bulk": 1,
        "timeout": 600,
        "retry": 1560,
        "save_limit": -1,
        "ack_failures": True,
        "catch_up": False,
    },
}
"""The settings of each one's cluster."""


@dataclass(frozen=True)
class Result:
    """One round of one contender."""

    rate: float
    """Tasks per second whose outcome was recorded: only then can anyone ask for it."""
    run: float
    """Tasks per second that were run."""
    fault: str = ""
    """What was not as it has to be at the end; empty when all was."""
