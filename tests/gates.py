"""How a test steers work in another process: by files, which both see at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from django.db.models import Model

T = TypeVar("T")

FOLDER = "TEST_GATES"
"""The environment variable that tells a worker where the gates are."""
ALL_OPEN = "all.open"
PATIENCE = 60
"""Seconds after which something that should have happened long ago is a failure."""


def until(condition: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
    """Ask again until the answer is true, and return it.

    Raises TimeoutError, which says what did not happen.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Within {seconds} s this did not happen: {what}.")
        time.sleep(0.02)
    return answer


class Gate:
    """A point in the work on one object, where it waits until the test opens the gate."""

    def __init__(self, folder: Path, obj: Model, point: object = "") -> None:
        self._name = f"{obj._meta.label_lower}-{obj.pk}-{point}"
        self._arrivals = folder / f"{self._name}.arrivals"
        self._opened = folder / f"{self._name}.open"
        self._all_opened = folder / ALL_OPEN

    @property
    def arrivals(self) -> int:
        """How often work has come here."""
        return len(self.visitors)

    @property
    def visitors(self) -> list[int]:
        """The ids of the processes that have come here, in their order."""
        if not self._arrivals.exists():
            return []
        whole_lines = self._arrivals.read_text().rpartition("\n")[0]
        return [int(pid) for pid in whole_lines.split()]

    def arrive(self) -> int:
        """Leave a mark, and go on; how often work has come here by now."""
        with self._arrivals.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return self.arrivals

    def pass_through(self) -> None:
        """Wait here until the test lets go: called by the work."""
        self.arrive()
        until(lambda: self._opened.exists() or self._all_opened.exists(), f"{self._name} opened")

    def wait_for_arrival(self, times: int = 1) -> None:
        until(lambda: self.arrivals >= times, f"work came to {self._name}, {times} times")

    def wait_for_visitor(self) -> int:
        """The id of the process that comes here first; no other may have come yet."""
        self.wait_for_arrival()
        [visitor] = self.visitors
        return visitor

    def open(self) -> None:
        self._opened.touch()


def gate(obj: Model, point: object = "") -> Gate:
    """The gate, as seen by the work."""
    return Gate(Path(os.environ[FOLDER]), obj, point)


def meet(place: str, number: int) -> None:
    """Wait until so many have come to this place: called by each of them."""
    with Path(place).open("a") as file:
        file.write("|")
    until(lambda: have_met(Path(place), number), "all of them came", seconds=20)


def have_met(place: Path, number: int) -> bool:
    return place.exists() and place.stat().st_size >= number
