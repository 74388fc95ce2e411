"""Compare two things that do the same, and print how they compare."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from benchmarks.columns import in_columns

WARM_UP_ROUNDS = 3
HEADINGS = ("what", "database", "floor", "ours", "ratio", "must", "aim", "met?")


class Compared(NamedTuple):
    """Medians over all rounds: seconds for one call, and the ratio."""

    floor: float
    ours: float
    ratio: float
    """The median of the rounds' ratios: what slows a whole round down is not in it."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    database: str
    compared: Compared
    must: float | None = None
    """The highest ratio, or time, that will do; None: the line is only there to be read."""
    aim: float | None = None
    in_ms: bool = False
    """Whether ``must`` and ``aim`` are milliseconds of ours, not a ratio."""

    def cells(self) -> tuple[str, ...]:
        floor, ours, ratio = self.compared
        figure = ours * 1000 if self.in_ms else ratio
        if self.must is None or self.aim is None:
            limits = ("", "", "")
        else:
            met = "aim" if figure <= self.aim else "must" if figure <= self.must else "NO"
            limits = (self._said(self.must), self._said(self.aim), met)
        return (
            self.what,
            self.database,
            f"{floor * 1000:.3f} ms",
            f"{ours * 1000:.3f} ms",
            f"{ratio:.2f}x",
            *limits,
        )

    def _said(self, limit: float) -> str:
        return f"{limit:g} ms" if self.in_ms else f"{limit:g}x"


def table(rows: Sequence[Row]) -> str:
    """The rows under their headings, numbers to the right."""
    return in_columns(HEADINGS, [row.cells() for row in rows], numbers=range(2, 7))


def in_turn(
    floor: Callable[[], object],
    ours: Callable[[], object],
    *,
    rounds: int,
    calls: int,
    before_batch: Callable[[], object] = lambda: None,
) -> Compared:
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
    return Compared(median(times[floor]), median(times[ours]), median(ratios))


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
