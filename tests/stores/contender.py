"""One of several processes that want the same objects: python -m tests.stores.contender.

It holds random sets of them, and writes down in files, which know no store, what it holds.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django

MOST_AT_ONCE = 8
LONGEST_PAUSE = 0.02
"""Seconds between a refusal and the next try."""


@contextmanager
def marked(folder: Path, names: Sequence[str]) -> Iterator[list[int]]:
    """Put a mark on each of them, and take it away again; yields whose marks were there."""
    yield [owner for name in names if (owner := _mark(folder / name))]
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _mark(file: Path) -> int | None:
    """Mark it; returns the process that has marked it already, unless that is dead."""
    own = file.with_name(f"of-{os.getpid()}")  # written before it is seen: this may be killed
    own.unlink(missing_ok=True)
    own.write_text(str(os.getpid()))
    try:
        os.link(own, file)
    except FileExistsError:
        owner = int(file.read_text())
        own.replace(file)
        return owner if _lives(owner) else None
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def contend(folder: Path, pks: Sequence[int], times: int, seed: int) -> dict[str, Any]:
    """Hold a random set of the objects so many times, however often that is refused.

    ``met``: who else had marked what the store has said is ours. ``lost``: how often this process
    gave no sign of life for a whole lease, so that others were let in.
    """
    from powercrud_models import ConflictError, LeaseLost, hold
    from powercrud_models.lifecycle import tasks_alias
    from powercrud_models.stores import get_store
    from powercrud_models.types import ObjectKey
    from tests.kinds.models import Bolt

    chance = random.Random(seed)
    held = refused = lost = 0
    met: list[int] = []
    while held < times:
        wanted = chance.sample(pks, chance.randint(1, MOST_AT_ONCE))
        keys = [ObjectKey("kinds.bolt", str(pk)) for pk in wanted]
        try:
            with hold((Bolt, wanted)) as task, marked(folder, [key.pk for key in keys]) as others:
                met += others
                assert task is not None
                holders = get_store().holders(keys, tasks_alias())
                assert holders == dict.fromkeys(keys, task.key) or others, f"a part: {holders}"
            held += 1
        except ConflictError:
            refused += 1
            time.sleep(chance.uniform(0, LONGEST_PAUSE))
        except LeaseLost:
            lost += 1
    return {"held": held, "refused": refused, "lost": lost, "met": met}


if __name__ == "__main__":
    django.setup()
    from django.test import override_settings

    given = json.loads(sys.argv[1])
    with override_settings(**given.pop("settings")):
        said = contend(Path(given.pop("folder")), **given)
    sys.stdout.write(json.dumps(said) + "\n")
