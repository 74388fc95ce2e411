"""Whether this worker process is to stop: the item in hand ends, the rest is left to others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopping:
    """What one process knows about its end."""

    def __init__(self) -> None:
        self.is_busy = False
        """Whether a task of this package is in hand."""
        self.was_told = False
        """Whether this very process has been told to stop, and not only its cluster."""
        self._cluster_stops: Callable[[], bool] = lambda: False

    def follow(self, cluster_stops: Callable[[], bool]) -> None:
        """Stop when the cluster of this worker does."""
        self._cluster_stops = cluster_stops

    @property
    def is_due(self) -> bool:
        """Whether to begin nothing more."""
        return self.was_told or self._cluster_stops()

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """A task is in hand: whoever tells this process to stop must wait for its item."""
        self.is_busy = True
        try:
            yield
        finally:
            self.is_busy = False


stopping = Stopping()
