"""Machines, gears and teeth for a cluster to work on, and what has become of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import transaction

from powercrud_models.models import AsyncTask, ObjectLock
from tests import scripts
from tests.kinds.models import Gear, Machine, Scripted, Tooth

S = TypeVar("S", bound=Scripted)


def new_machine(script: Callable[..., Any] | None = None) -> Machine:
    return new(Machine, script)


def new_gear(
    script: Callable[..., Any] | None = None, *, machine: Machine | None = None, teeth: int = 0
) -> Gear:
    gear = new(Gear, script, machine=machine or new_machine())
    for _ in range(teeth):
        new_tooth(gear)
    return gear


def new_tooth(gear: Gear) -> Tooth:
    [tooth] = Tooth.objects.bulk_create([Tooth(gear=gear)])
    return tooth


def new(model: type[S], script: Callable[..., Any] | None, **fields: Any) -> S:
    """A row that no save has written, so that no work has been started for it."""
    path = scripts.named(script) if script else ""
    [obj] = model._base_manager.bulk_create([model(name="new", script=path, **fields)])
    return obj


def saved(*objects: Scripted) -> AsyncTask:
    """Save them in one transaction, and return the task of that."""
    with transaction.atomic():
        for obj in objects:
            obj.save()
    [task] = {obj.async_task for obj in objects}
    assert task is not None
    return task


def locks() -> dict[tuple[str, str], str]:
    return {
        (model, pk): task_key
        for model, pk, task_key in ObjectLock.objects.values_list("model", "object_id", "task_id")
    }


def keys(*objects: Any) -> set[tuple[str, str]]:
    return {(obj._meta.label_lower, str(obj.pk)) for obj in objects}


def effects(*objects: Scripted) -> list[int]:
    return [type(obj)._base_manager.get(pk=obj.pk).effects for obj in objects]


def items(task: AsyncTask) -> list[tuple[str, str, str, str]]:
    return list(task.items.order_by("pk").values_list("model", "object_id", "work", "status"))
