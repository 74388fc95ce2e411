"""``progress()``: tell how far a loop has come; it finds the current task by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Generic, TypeVar

from django.db.models import QuerySet

from powercrud_models.context import Run, current_run
from powercrud_models.exceptions import TaskCancelled

T = TypeVar("T")


class progress(Generic[T]):  # noqa: N801  reads like tqdm
    """Iterate, and show how far the current task's item has come.

    ``total`` is the number of steps; it is found by itself for a queryset, and for anything with
    a length. A total that turns out too small becomes unknown: progress never shows more than
    there is. Outside of a task it does nothing. Of nested loops the outermost is shown. When the
    task is cancelled, the next step raises TaskCancelled; LeaseLost when Redis has lost its locks.

    Raises TypeError for something that cannot be iterated or a total that is no whole number,
    ValueError for a negative one.

    >>> for scene in progress(book.scenes.all()):
    ...     scene.save()
    """

    def __init__(self, iterable: Iterable[T], *, total: int | None = None) -> None:
        if not isinstance(iterable, Iterable):
            raise TypeError(f"progress() goes over an iterable, not {iterable!r}.")
        if total is not None and not isinstance(total, int):
            raise TypeError(f"progress(total={total!r}): a number of steps is a whole number.")
        if total is not None and total < 0:
            raise ValueError(f"progress(total={total}): a number of steps is not negative.")
        self._iterable = iterable
        self._total = total

    def __len__(self) -> int:
        total = self._known_total()
        if total is None:
            raise TypeError("progress() over an iterable without a length has none either.")
        return total

    def __iter__(self) -> Iterator[T]:
        run = current_run()
        if run is None:
            yield from self._iterable
            return
        if run.live.depth:
            for step in self._iterable:
                _stop_if_told(run)
                run.live.steps = run.live.steps._replace()  # it shows nothing new, but it gets on
                yield step
            return
        live, total = run.live, self._known_total()
        live.steps = live.steps._replace(current=0, total=total)
        live.depth = 1
        current = 0
        try:
            for current, step in enumerate(self._iterable, start=1):
                _stop_if_told(run)
                yield step
                if total is not None and current > total:
                    total = None
                live.steps = live.steps._replace(current=current, total=total)
                if live.on_step is not None:
                    live.on_step()
            live.steps = live.steps._replace(total=current)
        finally:
            live.depth = 0

    def _known_total(self) -> int | None:
        if self._total is not None:
            return self._total
        if isinstance(self._iterable, QuerySet):
            return len(self._iterable)  # iterating loads it anyway, and keeps the rows
        return len(self._iterable) if isinstance(self._iterable, Sized) else None


def _stop_if_told(run: Run) -> None:
    if run.live.lost is not None:
        raise run.live.lost
    if run.live.is_cancelled and run.task is not None:
        raise TaskCancelled(run.task)
