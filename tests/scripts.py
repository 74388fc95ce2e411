"""What the work of the scripted models does: named by the test, run by a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction

from powercrud_models import inline, progress
from tests.gates import gate
from tests.kinds.models import Gear, Machine, Scripted

STEPS = 3


def named(script: Callable[..., Any]) -> str:
    """The text that ``Scripted.script`` keeps."""
    return f"{script.__module__}.{script.__qualname__}"


def wait(obj: Scripted) -> int:
    gate(obj).pass_through()
    return obj.effects


def wait_after_commit(obj: Scripted) -> None:
    """Wait with all written that this work writes, and nothing done since."""
    transaction.on_commit(gate(obj).pass_through)


def step_by_step(obj: Scripted) -> None:
    for step in progress(range(STEPS)):
        gate(obj, step).pass_through()


def fail(obj: Scripted) -> None:
    raise ValueError(f"{obj} is broken")


def save_itself(obj: Scripted) -> str:
    """Through this instance and another one, with the task left to decide, and told to."""
    obj.save()
    other = type(obj)._base_manager.get(pk=obj.pk)
    other.name += " saved"
    other.save(skip_async=True)
    return other.name


def save_gears(obj: Machine) -> None:
    for gear in Gear.objects.order_by("pk"):
        gear.save()
    gate(obj).pass_through()


def save_gears_with_skip_async(obj: Machine) -> None:
    for gear in Gear.objects.order_by("pk"):
        gear.save(skip_async=True)
    gate(obj).pass_through()


def save_gears_in_inline(obj: Machine) -> None:
    with inline():
        for gear in Gear.objects.order_by("pk"):
            gear.save()
    gate(obj).pass_through()
