"""What a process of a test does beside the cluster: python -m tests.faults.child NAME KEY...

It has its own connections, and works with the settings of the cluster's processes.
"""

from __future__ import annotations

import os
import signal
import sys

import django
from django.db import transaction

ARRIVED = "arrived"
"""The point of the gate where children wait for each other."""


def save_and_die(pk: str) -> None:
    """Commit a save, and be killed before anything else happens."""
    from tests.kinds.models import Gear

    with transaction.atomic():
        # The first callback after the commit; the one that sends the task comes behind it.
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        Gear.objects.get(pk=pk).save()


def save_each(*pks: str) -> None:
    """Save these gears, and write a row beside each of them."""
    from tests.gates import gate
    from tests.kinds.models import Gear, Tag

    gears = [Gear.objects.get(pk=pk) for pk in pks]
    gate(gears[0], ARRIVED).pass_through()
    for gear in gears:
        gear.name = f"saved by {os.getpid()}"
        gear.save()
        Tag.objects.create(name=f"beside gear {gear.pk}")


def sweep_once(pk: str) -> None:
    """Sweep when the gate of this machine opens, and print what was done."""
    from powercrud_models.lifecycle import sweep
    from tests.gates import gate
    from tests.kinds.models import Machine

    gate(Machine.objects.get(pk=pk), ARRIVED).pass_through()
    sys.stdout.write(f"{sweep()['sent']}\n")


if __name__ == "__main__":
    django.setup()
    {each.__name__: each for each in (save_and_die, save_each, sweep_once)}[sys.argv[1]](
        *sys.argv[2:]
    )
