"""What the tests of the stores ask them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from django.db import connections, transaction

from powercrud_models import ConflictError
from powercrud_models.stores import Store
from powercrud_models.types import ObjectKey

T = TypeVar("T")


def bolts(*pks: object) -> set[ObjectKey]:
    return {ObjectKey("kinds.bolt", str(pk)) for pk in pks}


def many(number: int) -> list[ObjectKey]:
    return [ObjectKey("kinds.bolt", str(pk)) for pk in range(number)]


def acquire(store: Store, task_key: str, keys: Collection[ObjectKey]) -> None:
    """As its callers do: in a savepoint, which undoes what a conflict has left half done."""
    with transaction.atomic():
        store.acquire(task_key, keys, "default")


def refused(store: Store, task_key: str, keys: Collection[ObjectKey]) -> dict[ObjectKey, str]:
    """What the conflict says: who holds which of them."""
    with pytest.raises(ConflictError) as conflict:
        acquire(store, task_key, keys)
    return {
        ObjectKey(each.model._meta.label_lower, str(each.pk)): str(each.held_by)
        for each in conflict.value.conflicts
    }


def release(store: Store, task_key: str, keys: Iterable[ObjectKey] | None = None) -> None:
    store.release(task_key, "default", None if keys is None else set(keys))


def held(store: Store, task_key: str) -> set[ObjectKey]:
    return store.held(task_key, "default")


def holders(store: Store, keys: Collection[ObjectKey]) -> dict[ObjectKey, str]:
    return store.holders(keys, "default")


def elsewhere(call: Callable[[], T]) -> T:
    """What it returns in another thread, which has connections of its own."""

    def run() -> T:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(timeout=60)
