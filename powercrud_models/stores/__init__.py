"""Where locks are kept."""

from __future__ import annotations

from powercrud_models.stores.base import Store
from powercrud_models.stores.database import DatabaseStore


def get_store() -> Store:
    """The store in force."""
    return DatabaseStore()
