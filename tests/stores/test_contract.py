"""What every store promises: who holds what, all or nothing, and only its task lets go."""

from __future__ import annotations

import pytest

from powercrud_models.stores import Store
from powercrud_models.types import ObjectKey
from tests.stores.asking import acquire, bolts, elsewhere, held, holders, many, refused, release

CHUNKS = 5_001
"""So many objects that Redis is asked for them in several pieces."""


def test_what_a_task_acquires_it_holds(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    assert held(store, "a") == bolts(1, 2)
    assert elsewhere(lambda: holders(store, bolts(1, 2, 3))) == dict.fromkeys(bolts(1, 2), "a")
    assert held(store, "b") == set()


def test_nobody_else_can_acquire_it(store: Store) -> None:
    acquire(store, "a", bolts(1))
    assert refused(store, "b", bolts(1)) == dict.fromkeys(bolts(1), "task a")
    assert held(store, "b") == set()


def test_the_same_key_of_another_model_is_another_object(store: Store) -> None:
    acquire(store, "a", bolts(1))
    acquire(store, "b", {ObjectKey("kinds.part", "1")})
    assert held(store, "a") == bolts(1)


def test_a_task_does_not_conflict_with_itself(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    acquire(store, "a", bolts(1, 2))
    acquire(store, "a", bolts(2, 3))
    assert held(store, "a") == bolts(1, 2, 3)
    release(store, "a", bolts(2))  # held once, however often it was asked for
    assert held(store, "a") == bolts(1, 3)


def test_a_conflict_names_every_holder(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    acquire(store, "b", bolts(3))
    assert refused(store, "c", bolts(0, 1, 2, 3, 4)) == {
        **dict.fromkeys(bolts(1, 2), "task a"),
        **dict.fromkeys(bolts(3), "task b"),
    }


@pytest.mark.parametrize("number", [1, 7, CHUNKS])
@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_all_or_nothing_wherever_the_conflict_is(store: Store, number: int, position: str) -> None:
    keys = sorted(many(number))
    conflict = keys[{"first": 0, "middle": number // 2, "last": -1}[position]]
    acquire(store, "other", {conflict})
    acquire(store, "a", {keys[0]} - {conflict})
    before = held(store, "a")
    assert refused(store, "a", keys) == {conflict: "task other"}
    assert held(store, "a") == before
    assert holders(store, keys) == {**dict.fromkeys(before, "a"), conflict: "other"}
    release(store, "other")
    acquire(store, "a", keys)
    assert held(store, "a") == set(keys)


def test_a_stranger_releases_nothing(store: Store) -> None:
    acquire(store, "a", bolts(1, 2))
    acquire(store, "b", bolts(3))
    release(store, "b", bolts(1, 2))
    release(store, "c", bolts(1, 2))
    release(store, "c")
    assert (held(store, "a"), held(store, "b")) == (bolts(1, 2), bolts(3))
    assert holders(store, bolts(1, 2, 3)).keys() == bolts(1, 2, 3)
    release(store, "b")
    assert (held(store, "a"), held(store, "b")) == (bolts(1, 2), set())


def test_a_release_of_some_keeps_the_rest(store: Store) -> None:
    acquire(store, "a", bolts(1, 2, 3))
    release(store, "a", bolts(1, 2, 9))
    assert held(store, "a") == bolts(3)
    acquire(store, "b", bolts(1, 2))
    assert holders(store, bolts(1, 2, 3)) == {
        **dict.fromkeys(bolts(1, 2), "b"),
        **dict.fromkeys(bolts(3), "a"),
    }


def test_nothing_is_nothing(store: Store) -> None:
    acquire(store, "a", [])
    acquire(store, "a", bolts(1))
    release(store, "a", [])
    assert held(store, "a") == bolts(1)
    assert holders(store, []) == {}


DIFFICULT = [
    *("", " ", "a b", "a ", " a", "A", "a", "ä", "Ä", "ss", "ß", "\u0131", "i"),
    *("'", '"', "'; DROP TABLE x; --", "\\", "\\u0000", "%s", "{0}", "{x}", "$1", "?", "a:b", ":"),
    *("日本語", "🎭", "é", "e\N{COMBINING ACUTE ACCENT}", "\u200b", "\n", "\t", "\x7f", "[1, 2]"),
    *("null", "1", "01", "1.0", "-1", "f47ac10b-58cc-4372-a567-0e02b2c3d479", "x" * 255),
]


def test_difficult_keys_are_kept_apart(store: Store) -> None:
    keys = [ObjectKey("kinds.named", pk) for pk in DIFFICULT]
    for number, key in enumerate(keys):
        acquire(store, f"task-{number}", [key])
    assert holders(store, keys) == {key: f"task-{n}" for n, key in enumerate(keys)}
    for number, key in enumerate(keys):
        assert held(store, f"task-{number}") == {key}
        release(store, f"task-{number}", [key])
    acquire(store, "all", keys)
    assert held(store, "all") == set(keys)
    release(store, "all", keys[::2])
    assert held(store, "all") == set(keys[1::2])


def test_difficult_names_of_tasks_are_kept_apart(store: Store) -> None:
    tasks = ["a", "A", "a b", "a:b", "{a}", "ä", "'", '"', "x" * 100]
    for number, task in enumerate(tasks):
        acquire(store, task, bolts(number))
    for number, task in enumerate(tasks):
        assert held(store, task) == bolts(number)
        release(store, task)
        assert held(store, task) == set()


def test_a_hundred_thousand_objects(store: Store) -> None:
    keys = many(100_000)
    acquire(store, "a", keys)
    assert held(store, "a") == set(keys)
    assert holders(store, keys) == dict.fromkeys(keys, "a")
    assert set(refused(store, "b", keys[-1:])) == {keys[-1]}
    release(store, "a", keys[:50_000])
    assert held(store, "a") == set(keys[50_000:])
    release(store, "a")
    assert holders(store, keys) == {}
