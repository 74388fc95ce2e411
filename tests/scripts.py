"""What the work of the scripted models does: named by the test, run by a worker."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from django.db import transaction

from powercrud_models import inline, progress
from powercrud_models.stopping import stopping
from tests.gates import gate, until
from tests.kinds.models import Gear, Machine, Scripted

STEPS = 3
VISITS = "visits"
"""The gate where work of which the first try is special leaves a mark, and goes on."""
SECOND = "by the second worker"
LATE = "written by the late worker"


def named(script: Callable[..., Any]) -> str:
    """The text that ``Scripted.script`` keeps."""
    return f"{script.__module__}.{script.__qualname__}"


def wait(obj: Scripted) -> int:
    gate(obj).pass_through()
    return obj.effects


def wait_after_commit(obj: Scripted) -> None:
    """Wait with all written that this work writes, and nothing done since."""
    transaction.on_commit(gate(obj).pass_through)


def wait_until_told_to_end(obj: Scripted) -> None:
    gate(obj).arrive()
    until(lambda: stopping.is_due, "the worker was told to end")


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


def is_first_try(obj: Scripted) -> bool:
    return gate(obj, VISITS).arrive() == 1


def tell(obj: Scripted) -> int:
    """The id of the process that has done it."""
    return os.getpid()


def wait_and_tell(obj: Scripted) -> int:
    gate(obj).pass_through()
    return os.getpid()


def write_late(obj: Scripted) -> str:
    """The first worker waits, and then writes; whoever takes over does nothing."""
    if not is_first_try(obj):
        return SECOND
    gate(obj).pass_through()
    obj.name = LATE
    obj.save()
    return LATE


def exit_in_order(obj: Scripted) -> NoReturn:
    sys.exit("out of order")


def run_out_of_memory(obj: Scripted) -> NoReturn:
    raise MemoryError("no memory left")


def exit_at_once(obj: Scripted) -> str:
    """The first worker is gone, without a word."""
    if is_first_try(obj):
        os._exit(1)
    return SECOND


def interrupt_once(obj: Scripted) -> str:
    if is_first_try(obj):
        raise KeyboardInterrupt
    return SECOND


def interrupt(obj: Scripted) -> NoReturn:
    gate(obj, VISITS).arrive()
    raise KeyboardInterrupt


def dawdle_once(obj: Scripted) -> str:
    """The first worker waits for longer than django-q2 allows."""
    if is_first_try(obj):
        gate(obj).pass_through()
    return SECOND


def swallow_everything_once(obj: Scripted) -> str:
    """No exception, of whatever kind, stops the first worker."""
    if is_first_try(obj):
        while True:
            with suppress(BaseException):
                while True:
                    time.sleep(0.05)
    return SECOND


class Unspeakable(Exception):
    """It raises when somebody wants to read it."""

    def __str__(self) -> str:
        raise RuntimeError("not to be told")

    __repr__ = __str__


def raise_unspeakable(obj: Scripted) -> NoReturn:
    raise Unspeakable


def return_unspeakable(obj: Scripted) -> Unspeakable:
    return Unspeakable()


def return_what_json_cannot_carry(obj: Scripted) -> object:
    return {1j}
