"""Who watches that nothing is written while a task holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import connection

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.types import ObjectKey

T = TypeVar("T")

ACQUIRE = "INSERT INTO powercrud_models_objectlock"


class Witness:
    """Sees each object at the moment when a task locks it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ObjectKey], list[object]] = {}

    def watch(self, launch: Callable[[], T]) -> Callable[[], T]:
        """The same call, which remembers the rows that it has locked, as they are then."""

        def remember(execute: Any, sql: str, *rest: Any) -> Any:
            result = execute(sql, *rest)
            if ACQUIRE in sql:
                for task_key, key in locks():
                    self._seen.setdefault((task_key, key), row(key))
            return result

        def watched() -> T:
            with connection.execute_wrapper(remember):
                return launch()

        return watched

    def swear(self) -> None:
        """Nothing that is still locked has been written since; there were locks at all."""
        # MariaDB may refuse the row before it comes to its locks
        can_refuse_rows = not connection.features.can_defer_constraint_checks
        assert self._seen or can_refuse_rows, "no launch was watched"
        written = [
            f"{key} was written while {task_key} held it"
            for task_key, key in locks()
            if (task_key, key) in self._seen and self._seen[task_key, key] != row(key)
        ]
        assert not written, written


def locks() -> list[tuple[str, ObjectKey]]:
    found = ObjectLock.objects.values_list("task_id", "model", "object_id")
    return [(task_key, ObjectKey(*key)) for task_key, *key in found]


def row(key: ObjectKey) -> list[object]:
    return list(key.model_class._base_manager.filter(pk=key.pk).values())


def assert_refused(error: BaseException | None, holder: AsyncTask | None) -> None:
    assert isinstance(error, ConflictError), repr(error)
    assert {conflict.holder for conflict in error.conflicts} == {holder}
