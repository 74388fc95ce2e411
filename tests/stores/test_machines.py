"""Whatever is called in whatever order, a store does what a dict would do."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from powercrud_models import ConflictError
from powercrud_models.stores import Store, get_store
from powercrud_models.types import ObjectKey

IN_CI = os.environ.get("REQUIRE_SERVICES") == "1"
PROFILE = settings(
    max_examples=200 if IN_CI else 20,
    stateful_step_count=50,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TASKS = st.sampled_from(["a", "b", "c"])
KEYS = [ObjectKey("kinds.bolt", str(pk)) for pk in range(6)]
SOME = st.sets(st.sampled_from(KEYS))


class Machine(RuleBasedStateMachine):
    """Acquire, release and look, in blocks that commit or are rolled back."""

    def __init__(self) -> None:
        super().__init__()
        self.store: Store = get_store()
        self.model: dict[ObjectKey, str] = {}
        self.blocks: list[tuple[AbstractContextManager[Any], dict[ObjectKey, str]]] = []

    @rule(task=TASKS, keys=SOME)
    def acquire(self, task: str, keys: set[ObjectKey]) -> None:
        others = {key for key in keys if self.model.get(key, task) != task}
        try:
            with transaction.atomic():
                self.store.acquire(task, keys, "default")
        except ConflictError as error:
            named = {ObjectKey("kinds.bolt", str(each.pk)) for each in error.conflicts}
            assert others
            assert named == others
        else:
            assert not others
            self.model.update(dict.fromkeys(keys, task))

    @rule(task=TASKS, keys=st.none() | SOME)
    def release(self, task: str, keys: set[ObjectKey] | None) -> None:
        self.store.release(task, "default", keys)
        for key in KEYS if keys is None else keys:
            if self.model.get(key) == task:
                del self.model[key]

    @rule(keys=SOME)
    def look(self, keys: set[ObjectKey]) -> None:
        seen = {key: self.model[key] for key in keys if key in self.model}
        assert self.store.holders(keys, "default") == seen

    @precondition(lambda self: len(self.blocks) < 4)
    @rule()
    def begin(self) -> None:
        block = transaction.atomic()
        block.__enter__()
        self.blocks.append((block, dict(self.model)))

    @precondition(lambda self: self.blocks)
    @rule()
    def commit(self) -> None:
        block, _ = self.blocks.pop()
        block.__exit__(None, None, None)

    @precondition(lambda self: self.blocks)
    @rule()
    def roll_back(self) -> None:
        block, self.model = self.blocks.pop()
        block.__exit__(ZeroDivisionError, ZeroDivisionError(), None)

    @invariant()
    def each_task_holds_what_it_should(self) -> None:
        for task in ("a", "b", "c"):
            wanted = {key for key, holder in self.model.items() if holder == task}
            assert self.store.held(task, "default") == wanted

    def teardown(self) -> None:
        while self.blocks:
            self.commit()
        for task in ("a", "b", "c"):
            self.store.release(task, "default")
            assert self.store.held(task, "default") == set()


def test_a_store_does_what_a_dict_would_do(store: Store) -> None:
    run_state_machine_as_test(Machine, settings=PROFILE)


@pytest.mark.usefixtures("redis_cache", "transactional_db")
def test_chunks_make_no_difference(monkeypatch) -> None:
    """With two objects in each, so that most calls have several."""
    monkeypatch.setattr("powercrud_models.stores.locks.CHUNK", 2)
    monkeypatch.setattr("powercrud_models.stores.locks.AT_ONCE", 4)
    run_state_machine_as_test(Machine, settings=PROFILE)
