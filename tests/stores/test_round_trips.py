"""A call takes the same number of round trips for one object and for ten thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from redis.connection import AbstractConnection

from powercrud_models.stores import Store, get_store
from tests.stores.asking import acquire, held, holders, many, release


@contextmanager
def counted(trips: list[int]) -> Iterator[None]:
    """Count the queries, and how often something is sent to Redis."""
    sent = 0
    send = AbstractConnection.send_packed_command

    def count(*args: Any, **kwargs: Any) -> Any:
        nonlocal sent
        sent += 1
        return send(*args, **kwargs)

    with (
        patch.object(AbstractConnection, "send_packed_command", count),
        CaptureQueriesContext(connection) as queries,
    ):
        yield
    trips += [len(queries), sent]


CALLS: dict[str, Callable[[Store, int], object]] = {
    "acquire": lambda store, number: acquire(store, "a", many(number)),
    "acquire again": lambda store, number: acquire(store, "b", many(number)),
    "holders": lambda store, number: holders(store, many(number)),
    "held": lambda store, number: held(store, "b"),
    "release": lambda store, number: release(store, "b", many(number)),
    "release all": lambda store, number: release(store, "b"),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_for_one_and_for_ten_thousand(store: Store, name: str) -> None:
    call = CALLS[name]
    trips: dict[int, list[int]] = {}
    for number in (1, 10_000, 1, 10_000):  # the first round loads scripts, and opens connections
        acquire(store, "b", many(number) if name != "acquire" else [])
        trips[number] = []
        with counted(trips[number]):
            call(store, number)
        release(store, "a")
        release(store, "b")
    assert trips[1] == trips[10_000]
    assert sum(trips[1]) - 2 * ("acquire" in name) == 1  # a transaction is a BEGIN and a COMMIT


def test_a_transaction_waits_for_redis_once_per_call(redis_cache, transactional_db) -> None:
    store = get_store()
    trips: list[int] = []
    acquire(store, "warm", many(1))
    release(store, "warm")
    with counted(trips), transaction.atomic():
        store.acquire("a", many(10_000), "default")
    assert trips[1] == 1
    trips.clear()
    with counted(trips), transaction.atomic():
        release(store, "a")
    assert trips[1] == 1
