"""The process that saves, and so launches tasks: ``python -m benchmarks.web``, begun by chaos.

It goes on where one that was killed has left off, and keeps a few tasks unfinished at any time: so
queued, running and new ones exist while the killing goes on, and no message waits long behind
others.
"""

from __future__ import annotations

import os
import time
from random import Random

from benchmarks.files import append, folder
from benchmarks.settings import configure_as_child

TASKS = "POWERCRUD_BENCHMARK_TASKS"
SEED = "POWERCRUD_BENCHMARK_SEED"
UNFINISHED = 6
LINGER_SECONDS = 0.05
"""Between the commit and the sending of the message: a good moment to be killed."""
SHORTEST, LONGEST = 0.05, 0.4
"""Seconds that work takes."""
MOST_ITEMS = 3
PARCELS = (0, 2)
"""Nested saves look at the fence, too: without them it is up to the item's own transaction."""


def main() -> None:
    configure_as_child()
    import django

    django.setup()
    _launch(int(os.environ[TASKS]), os.environ[SEED])


def _launch(tasks: int, seed: str) -> None:
    from django.db import transaction

    from benchmarks.shop.models import Delivery, Parcel
    from powercrud_models.models import AsyncTask

    def linger() -> None:
        append(folder() / "commits", "|")
        time.sleep(LINGER_SECONDS)

    there = set(Delivery._base_manager.values_list("order", flat=True))
    for order in range(tasks):
        if order in there:
            continue
        while AsyncTask.objects.filter(status__in=AsyncTask.UNFINISHED).count() >= UNFINISHED:
            time.sleep(0.05)
        random = Random(f"{seed} {order}")
        with transaction.atomic():
            transaction.on_commit(linger)  # before the package's own callback
            for place in range(random.choice([1, 1, 2, MOST_ITEMS])):
                seconds = random.uniform(SHORTEST, LONGEST)
                delivery = Delivery(order=order, place=place, seconds=seconds)
                delivery.save()
                parcels = random.choice(PARCELS)
                # These are new to the task: it locks them when a worker claims it.
                Parcel._base_manager.bulk_create(Parcel(delivery=delivery) for _ in range(parcels))


if __name__ == "__main__":
    main()
