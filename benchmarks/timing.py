"""Compare two things that do the same, and print how they compare."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

WARM_UP_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Medians over all rounds, in seconds for one call."""

    floor: float
    ours: float
    ratio: float
    """The median of the rounds' ratios: what slows a whole round down is not in it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    database: str
    floor: float
    ours: float
    figure: float
    """What is compared with ``must`` and ``aim``."""
    must: float
    aim: float
    unit: str = "x"

    HEADINGS = ("what", "database", "floor", "ours", "ratio", "must", "aim", "met?")

    def cells(self) -> tuple[str, ...]:
        met = "aim" if self.figure <= self.aim else "must" if self.figure <= self.must else "NO"
        limits = [f"{limit:.4g}{self.unit}" for limit in (self.must, self.aim)]
        return (
            self.what,
            self.database,
            f"{self.floor * 1000:.3f} ms",
            f"{self.ours * 1000:.3f} ms",
            f"{self.figure:.2f}{self.unit}",
            *limits,
            met,
        )


def table(rows: Sequence[Row]) -> str:
    """The rows under their headings; all but the first two columns and the last to the right."""
    lines = [Row.HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(Row.HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 1, 7) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [lines[0], tuple("-" * width for width in widths), *lines[1:]]
    )


def in_turn(
    floor: Callable[[], object],
    ours: Callable[[], object],
    *,
    rounds: int,
    calls: int,
    before_batch: Callable[[], object] = lambda: None,
) -> Comparison:
    """Time a batch of calls of the one, then of the other, and so on.

    Who goes first changes with each round, so neither always finds what the other left behind.
    """
    times: dict[Callable[[], object], list[float]] = {floor: [], ours: []}
    with _no_garbage_collection():
        for turn in range(WARM_UP_ROUNDS + rounds):
            for contender in (floor, ours) if turn % 2 else (ours, floor):
                before_batch()
                seconds = _time(contender, calls)
                if turn >= WARM_UP_ROUNDS:
                    times[contender].append(seconds)
            gc.collect()
    ratios = [ours / floor for floor, ours in zip(times[floor], times[ours], strict=True)]
    return Comparison(floor=median(times[floor]), ours=median(times[ours]), ratio=median(ratios))


def _time(contender: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        contender()
    return (time.perf_counter() - start) / calls


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what is there already need not be looked at between the rounds
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
