"""What a run of chaos hands to the process that prints it, in which there is no Django."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What was left when all had ended, or the time was over."""

    tasks: int
    once: int
    more: int
    never: int
    failed: int
    unfinished: int
    locks: int
    false_successes: int
    held_by_dead: float
    held_by_stopped: float
    waiting: float
    strikes: dict[str, int]
    restarts: dict[str, int]
    claims: int
    recoveries: int
    seconds: float
    stopped_by_force: bool
    errors: list[str]
