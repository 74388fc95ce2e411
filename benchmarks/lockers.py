"""Who can lock objects, look up who holds them, and release them."""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from django.core.cache import caches
from django.db import connection, transaction

from benchmarks.databases import DoesNotAnswer
from benchmarks.settings import NAME_OF_CACHE
from powercrud_models.models import ObjectLock
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey

TASK = uuid.uuid4().hex
ALIAS = "default"


class Locker(ABC):
    """One of the contenders."""

    def prepare(self, keys: Sequence[ObjectKey]) -> Any:
        """The objects in the form in which it takes them; this is not measured."""
        return keys

    @abstractmethod
    def acquire(self, prepared: Any) -> None: ...

    @abstractmethod
    def holders(self, prepared: Any) -> int:
        """How many of them are held."""

    @abstractmethod
    def release(self) -> None: ...


class Ours(Locker):
    """The store of this package."""

    def acquire(self, prepared: Any) -> None:
        with transaction.atomic():
            get_store().acquire(TASK, prepared, ALIAS)

    def holders(self, prepared: Any) -> int:
        return len(get_store().holders(prepared, ALIAS))

    def release(self) -> None:
        with transaction.atomic():
            get_store().release(TASK, ALIAS)

    def acquire_for_others(self, keys: Sequence[ObjectKey]) -> None:
        """So that the store is full."""
        with transaction.atomic():
            get_store().acquire(uuid.uuid4().hex, keys, ALIAS)


class Reference(Locker):
    """django-powercrud's manager; each of its objects is a transaction, or command, of its own."""

    def __init__(self) -> None:
        try:
            from powercrud.async_manager import AsyncManager
        except ImportError as error:
            raise DoesNotAnswer(f"{error}; pip install django-powercrud") from None

        self._manager = AsyncManager()

    def prepare(self, keys: Sequence[ObjectKey]) -> dict[str, set[str]]:
        return {"shop.page": {key.pk for key in keys}}

    def acquire(self, prepared: Any) -> None:
        assert self._manager.add_conflict_ids(TASK, prepared)

    def holders(self, prepared: Any) -> int:
        return len(self._manager.check_conflict(prepared))

    def release(self) -> None:
        self._manager.remove_conflict_ids(TASK)


class Floor(Locker):
    """The bare statements: nothing is looked up, built or checked."""


TABLE = ObjectLock._meta.db_table
WANTED = {
    "sqlite": """
        (SELECT value ->> 0 AS model, value ->> 1 AS object_id FROM json_each(%s)) AS wanted
    """,
    "postgresql": "unnest(%s::text[], %s::text[]) AS wanted (model, object_id)",
    "mysql": """
        JSON_TABLE(%s, '$[*]' COLUMNS (model varchar(255) PATH '$[0]',
        object_id varchar(255) PATH '$[1]')) AS wanted
    """,
}


class DatabaseFloor(Floor):
    """Three statements."""

    def __init__(self) -> None:
        wanted = WANTED[connection.vendor]
        ignore = "ON DUPLICATE KEY UPDATE task_id = task_id"
        if connection.vendor != "mysql":
            ignore = "ON CONFLICT (model, object_id) DO NOTHING"
        self._acquire = f"""
            INSERT INTO {TABLE} (model, object_id, task_id)
            SELECT model, object_id, %s FROM {wanted} WHERE true ORDER BY 1, 2 {ignore}
        """
        self._holders = f"""
            SELECT held.task_id FROM {TABLE} AS held JOIN {wanted}
            ON held.model = wanted.model AND held.object_id = wanted.object_id
        """

    def prepare(self, keys: Sequence[ObjectKey]) -> list[Any]:
        if connection.vendor == "postgresql":
            return [list(column) for column in zip(*keys, strict=True)]
        return [json.dumps(keys)]

    def acquire(self, prepared: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(self._acquire, [TASK, *prepared])

    def holders(self, prepared: Any) -> int:
        with connection.cursor() as cursor:
            cursor.execute(self._holders, prepared)
            return len(cursor.fetchall())

    def release(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {TABLE} WHERE task_id = %s", [TASK])


class RedisFloor(Floor):
    """Three scripts, on one hash and one set."""

    ACQUIRE = """
        local free = redis.call('HMGET', KEYS[1], unpack(ARGV, 2, math.min(#ARGV, 7000)))
        for i = 2, #ARGV do redis.call('HSET', KEYS[1], ARGV[i], ARGV[1]) end
        for i = 2, #ARGV do redis.call('SADD', KEYS[2], ARGV[i]) end
        return #free
    """
    HOLDERS = """
        local held = {}
        for i = 1, #ARGV do held[i] = redis.call('HGET', KEYS[1], ARGV[i]) end
        return held
    """
    RELEASE = """
        for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
            redis.call('HDEL', KEYS[1], name)
        end
        return redis.call('DEL', KEYS[2])
    """

    def __init__(self) -> None:
        client = caches[NAME_OF_CACHE]._cache.get_client(None, write=True)  # type: ignore[attr-defined]
        self._keys = [f"{{{TASK}}}:locks", f"{{{TASK}}}:task"]
        self._acquire = client.register_script(self.ACQUIRE)
        self._holders = client.register_script(self.HOLDERS)
        self._release = client.register_script(self.RELEASE)

    def prepare(self, keys: Sequence[ObjectKey]) -> list[str]:
        return [f"{key.model}:{key.pk}" for key in keys]

    def acquire(self, prepared: Any) -> None:
        self._acquire(keys=self._keys, args=[TASK, *prepared])

    def holders(self, prepared: Any) -> int:
        held = self._holders(keys=self._keys, args=prepared)
        return sum(holder is not None for holder in held)

    def release(self) -> None:
        self._release(keys=self._keys)


def floor_on(server: str) -> Floor:
    """The floor for this server."""
    return RedisFloor() if server == "redis" else DatabaseFloor()


def vacuum() -> None:
    """Leave no dead rows for the next one to step over."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"VACUUM {TABLE}")


def clear(server: str) -> None:
    """Delete the keys of this run in Redis, and no others."""
    if server == "redis":
        client = caches[NAME_OF_CACHE]._cache.get_client(None, write=True)  # type: ignore[attr-defined]
        prefix = caches[NAME_OF_CACHE].key_prefix
        for key in client.scan_iter(match=f"*{prefix}*", count=10_000):
            client.unlink(key)
