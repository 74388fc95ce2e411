"""A store's calls are part of the transaction that is open, and of its savepoints."""

from __future__ import annotations

import pytest
from django.db import transaction

from powercrud_models import ConflictError
from powercrud_models.stores import Store
from tests.deliveries import undone
from tests.stores.asking import acquire, bolts, elsewhere, held, holders, many, release


def seen_by_others(store: Store) -> dict[object, str]:
    return {key.pk: task for key, task in elsewhere(lambda: holders(store, many(10))).items()}


def test_outside_of_a_transaction_a_call_holds_at_once(store: Store) -> None:
    store.acquire("a", bolts(1), "default")
    assert seen_by_others(store) == {"1": "a"}
    release(store, "a")
    assert seen_by_others(store) == {}


def test_a_commit_keeps_and_a_rollback_undoes(store: Store) -> None:
    with undone():
        acquire(store, "a", bolts(1))
        assert held(store, "a") == bolts(1)
    assert seen_by_others(store) == {}
    assert held(store, "a") == set()
    with transaction.atomic():
        acquire(store, "a", bolts(1))
    assert seen_by_others(store) == {"1": "a"}


def test_an_error_undoes_it(store: Store) -> None:
    def fail() -> None:
        with transaction.atomic():
            acquire(store, "a", many(5_001))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert holders(store, many(5_001)) == {}


def test_a_savepoint_undoes_what_was_acquired_in_it_only(store: Store) -> None:
    with transaction.atomic():
        acquire(store, "a", bolts(1, 2))
        with undone():
            acquire(store, "a", bolts(2, 3))
            with transaction.atomic():
                acquire(store, "b", bolts(4))
            assert holders(store, many(5)).keys() == bolts(1, 2, 3, 4)
        assert held(store, "a") == bolts(1, 2)
        assert held(store, "b") == set()
        with transaction.atomic():
            acquire(store, "a", bolts(5))
    assert seen_by_others(store) == {"1": "a", "2": "a", "5": "a"}


def test_a_refusal_leaves_the_transaction_as_it_was(store: Store) -> None:
    acquire(store, "other", bolts(3))
    with transaction.atomic():
        acquire(store, "a", bolts(1))
        with pytest.raises(ConflictError):
            acquire(store, "a", bolts(2, 3))
        assert held(store, "a") == bolts(1)
    assert seen_by_others(store) == {"1": "a", "3": "other"}


def test_what_is_released_is_free_for_others_when_it_commits(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    with transaction.atomic():
        release(store, "a", bolts(1))
        assert held(store, "a") == bolts(2)
        assert holders(store, bolts(1, 2)) == dict.fromkeys(bolts(2), "a")
        assert seen_by_others(store) == {"1": "a", "2": "a"}
        release(store, "a")
        assert holders(store, bolts(1, 2)) == {}
    assert seen_by_others(store) == {}


def test_a_rollback_takes_the_release_back(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    with undone():
        release(store, "a")
        assert held(store, "a") == set()
    assert held(store, "a") == bolts(1, 2)
    with transaction.atomic():
        with undone():
            release(store, "a", bolts(2))
        assert held(store, "a") == bolts(1, 2)
    assert seen_by_others(store) == {"1": "a", "2": "a"}


def test_what_was_released_can_be_acquired_by_another_in_the_same_transaction(
    store: Store,
) -> None:
    acquire(store, "a", bolts(1, 2))
    with transaction.atomic():
        release(store, "a")
        acquire(store, "b", bolts(1, 3))
        assert holders(store, bolts(1, 2, 3)) == dict.fromkeys(bolts(1, 3), "b")
    assert seen_by_others(store) == {"1": "b", "3": "b"}


def test_a_rollback_gives_it_back_to_the_first(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    with undone():
        release(store, "a")
        acquire(store, "b", bolts(1, 3))
    assert seen_by_others(store) == {"1": "a", "2": "a"}
    assert (held(store, "a"), held(store, "b")) == (bolts(1, 2), set())
    with transaction.atomic():
        release(store, "a", bolts(1))
        with undone():
            acquire(store, "b", bolts(1, 3))
    assert seen_by_others(store) == {"2": "a"}


def test_only_what_was_released_can_be_acquired(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    with transaction.atomic():
        release(store, "a", bolts(1))
        with pytest.raises(ConflictError):
            acquire(store, "b", bolts(1, 2))
        acquire(store, "b", bolts(1))
    assert seen_by_others(store) == {"1": "b", "2": "a"}


def test_a_task_can_acquire_again_what_it_has_released(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    with transaction.atomic():
        release(store, "a")
        acquire(store, "a", bolts(1, 3))
        assert held(store, "a") == bolts(1, 3)
        with undone():
            acquire(store, "a", bolts(2))
        with pytest.raises(ConflictError):
            acquire(store, "b", bolts(1))
    assert seen_by_others(store) == {"1": "a", "3": "a"}


def test_a_callback_of_the_same_commit_finds_it_free(store: Store) -> None:
    acquire(store, "a", bolts(1))
    seen: list[object] = []
    with transaction.atomic():
        transaction.on_commit(lambda: seen.append(holders(store, bolts(1))))
        release(store, "a")
    assert seen == [{}]


def test_acquired_and_released_in_one_transaction_is_nothing(store: Store) -> None:
    with transaction.atomic():
        acquire(store, "a", bolts(1))
        release(store, "a")
        acquire(store, "b", bolts(1))
        release(store, "b", bolts(1))
        assert holders(store, bolts(1)) == {}
    assert seen_by_others(store) == {}
