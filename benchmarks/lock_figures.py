"""What ``benchmarks.locks`` measures, and how much of it will do; there may be no Django here."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

FEW, MANY = 20, 5000
FASTER_WITH_MANY = {"sqlite": (60, 150), "postgresql": (25, 50), "redis": (15, 30)}
"""How many times as fast as the reference: the lowest that will do, and what to aim at."""
FASTER_WITH_FEW = (1, 3)


@dataclass(frozen=True)
class Figures:
    """Of one number of objects; a list has the seconds of each round."""

    objects: int
    reference: list[float]
    ours: list[float]
    floor: list[float]

    @property
    def seconds(self) -> tuple[float, float, float]:
        """The medians."""
        return median(self.reference), median(self.ours), median(self.floor)

    @property
    def faster(self) -> float:
        """How many times as fast as the reference."""
        return _ratio(self.reference, self.ours)

    @property
    def over_floor(self) -> float:
        """How many times the time of the floor."""
        return _ratio(self.ours, self.floor)


@dataclass(frozen=True)
class Noise:
    """Seconds in an empty store, and in one that is full of the locks of others."""

    empty: float
    fastest: float
    slowest: float
    full: float

    @property
    def is_within(self) -> bool:
        return self.full <= self.slowest


def faster_than_reference(server: str, objects: int) -> tuple[float, float] | None:
    """The limits for so many objects, where there are any."""
    if objects == FEW:
        return FASTER_WITH_FEW
    return FASTER_WITH_MANY.get(server) if objects == MANY else None


def _ratio(one: list[float], other: list[float]) -> float:
    """The median of the rounds' ratios: what slows a whole round down is not in it."""
    return median(a / b for a, b in zip(one, other, strict=True))
