"""Who locks, in turn; ``benchmarks.locks`` calls it where there is a database."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from statistics import median

from benchmarks.lock_figures import MANY, Figures, Noise
from benchmarks.lockers import Floor, Locker, Ours, Reference, clear, floor_on, vacuum
from powercrud_models.types import ObjectKey

WARM_UP_ROUNDS = 2
MOST_OBJECTS = 100_000
"""How many each contender locks in all rounds of a size together, as far as that allows one."""
AT_ONCE = 50_000


def run(
    server: str, sizes: Sequence[int], rounds: int, foreign: int
) -> tuple[list[Figures], Noise]:
    """The figures of each number of objects, and of a store that is full."""
    logging.disable(logging.WARNING)  # the reference prints all that it finds
    ours = Ours()
    lockers = (Reference(), ours, floor_on(server))
    try:
        figures = [_measure(lockers, size, min(rounds, _most(size))) for size in sizes]
        noise = _noise(ours, rounds, foreign)
    finally:
        clear(server)
    return figures, noise


def _most(size: int) -> int:
    return max(MOST_OBJECTS // size, 1)


def _measure(lockers: tuple[Reference, Ours, Floor], size: int, rounds: int) -> Figures:
    keys = [ObjectKey("shop.page", str(number)) for number in range(size)]
    seconds: dict[Locker, list[float]] = {locker: [] for locker in lockers}
    warm_up = WARM_UP_ROUNDS if rounds > 1 else 0
    for turn in range(warm_up + rounds):
        for locker in lockers if turn % 2 else lockers[::-1]:
            vacuum()
            took = _time(locker, keys)
            if turn >= warm_up:
                seconds[locker].append(took)
    reference, ours, floor = (seconds[locker] for locker in lockers)
    return Figures(size, reference, ours, floor)


def _time(locker: Locker, keys: Sequence[ObjectKey]) -> float:
    prepared = locker.prepare(keys)
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        locker.acquire(prepared)
        holders = locker.holders(prepared)
        locker.release()
        seconds = time.perf_counter() - start
    finally:
        gc.enable()
    assert holders == len(keys), f"{locker}: {holders} of {len(keys)} were locked"
    assert locker.holders(prepared) == 0, f"{locker}: some were not released"
    return seconds


def _noise(ours: Ours, rounds: int, foreign: int) -> Noise:
    """How long it takes in an empty store, and then beside so many locks of others."""
    keys = [ObjectKey("shop.page", str(number)) for number in range(MANY)]

    def measure() -> list[float]:
        seconds = []
        for _ in range(WARM_UP_ROUNDS + rounds):
            vacuum()
            seconds.append(_time(ours, keys))
        return seconds[WARM_UP_ROUNDS:]

    empty = measure()
    for first in range(0, foreign, AT_ONCE):
        some = range(first, min(first + AT_ONCE, foreign))
        ours.acquire_for_others([ObjectKey("shop.catalogue", str(number)) for number in some])
    full = median(measure())
    return Noise(median(empty), min(empty), max(empty), full)
