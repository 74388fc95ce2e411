"""Where locks are kept."""

from __future__ import annotations

from powercrud_models.stores.base import Store, refuse_others
from powercrud_models.stores.database import DatabaseStore

__all__ = ["Store", "get_store", "refuse_others"]


def get_store() -> Store:
    """The store in force."""
    return DatabaseStore()
