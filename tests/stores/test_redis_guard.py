"""The guard where locks are no rows: its look is a round trip of its own."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from powercrud_models import ConflictError
from powercrud_models.stores.redis import RedisStore
from tests.deliveries import deliver
from tests.kinds.models import Bolt
from tests.promises.made import make_project
from tests.stores.asking import elsewhere
from tests.stores.redis_server import OwnServer

ON_SQLITE = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="its one writer is the save: others wait for its end"
)


@pytest.fixture
def bolt(server: OwnServer) -> Bolt:
    make_project(parts=1, bolts=1)
    return Bolt.objects.get()


def test_a_held_object_is_not_saved(bolt: Bolt) -> None:
    bolt.part.save()
    bolt.name = "written"
    with pytest.raises(ConflictError):
        bolt.save()
    with pytest.raises(ConflictError):
        bolt.delete()
    assert Bolt.objects.get().name != "written"
    deliver()
    bolt.save()
    assert Bolt.objects.get().name == "written"


@pytest.mark.skipif(
    connection.vendor != "postgresql", reason="elsewhere there is another look in front of that one"
)
def test_a_holder_that_ends_after_the_look_does_not_lose_the_row(bolt: Bolt, monkeypatch) -> None:
    """Which Django would insert once more when no UPDATE finds it."""
    bolt.part.save()
    look = RedisStore.free_rows
    ended: list[int] = []

    def look_and_end(self: RedisStore, *arguments: Any) -> Any:
        rows = look(self, *arguments)
        ended.append(elsewhere(deliver))
        return rows

    monkeypatch.setattr(RedisStore, "free_rows", look_and_end)
    bolt.name = "written"
    bolt.save()
    assert ended == [1]
    assert Bolt.objects.get().name == "written"


@ON_SQLITE
def test_a_launch_that_comes_after_the_first_look_is_found_by_the_second(
    bolt: Bolt, monkeypatch
) -> None:
    look = RedisStore.free_rows

    def look_and_launch(self: RedisStore, *arguments: Any) -> Any:
        rows = look(self, *arguments)
        monkeypatch.setattr(RedisStore, "free_rows", look)
        elsewhere(bolt.part.save)
        return rows

    monkeypatch.setattr(RedisStore, "free_rows", look_and_launch)
    bolt.name = "written"
    with pytest.raises(ConflictError):
        bolt.save()
    assert Bolt.objects.get().name != "written"
