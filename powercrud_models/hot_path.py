"""The guard of an update that sets nothing in motion, in as few round trips as it takes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from django.db import connections, transaction
from django.db.models import Model, QuerySet
from django.db.models.signals import post_save, pre_save

from powercrud_models import guard
from powercrud_models.exceptions import ConflictError
from powercrud_models.launches import open_launch
from powercrud_models.lifecycle import has_one_writer, waits_before_it_looks
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey, Said


def is_open(obj: Model, watched: Collection[ObjectKey]) -> bool:
    """Whether a save of this object that starts nothing is one UPDATE of one guarded row."""
    return len(watched) == 1 and not (obj._state.adding or obj._meta.select_on_save)


def update(
    obj: Any, key: ObjectKey, save_row: Callable[[], None], alias: str, said_by: Said
) -> None:
    """Save a row, outside of any run: what ``guard.writing`` and a look behind it would do.

    Here the first look is part of the UPDATE, which finds no row that another task holds. A
    launch may commit while it waits for the row, so there is a second look behind it, and a
    transaction around both. SQLite's one writer needs neither. But where an UPDATE waits for the
    holder's transaction before it can see the lock, a look in front of it refuses at once.

    Raises ConflictError when another task holds the object.
    """
    guard.refuse_broken_transaction(alias, said_by)
    one_writer = has_one_writer(alias)
    obj._guarded_key = key
    try:
        if waits_before_it_looks(alias):
            guard.look({key}, alias)
        is_one_statement = one_writer and get_store().keeps_rows
        if is_one_statement and not (
            connections[alias].in_atomic_block or _has_receivers(type(obj))
        ):
            save_row()
        else:
            with transaction.atomic(using=alias):
                save_row()
                guard.look({key}, alias)
    except ConflictError:
        guard.sweep_when_committed(alias)
        raise
    finally:
        vars(obj).pop("_guarded_key", None)


def update_row(
    obj: Any, do_update: Callable[[QuerySet[Any]], Any], rows: QuerySet[Any], alias: str
) -> Any:
    """What Django's UPDATE returns; while the object is saved here, it finds free rows only.

    Where it finds none, the row is held, which is refused, or gone. Or its holder has let go of it
    since: so it is tried again, before Django inserts the row once more.
    """
    key = obj._guarded_key
    if key is None:
        return do_update(rows)
    launch = open_launch(alias)
    store = get_store()
    free = store.free_rows(rows, key, launch.task_key if launch else "")
    updated = do_update(free)
    if not updated:
        guard.look({key}, alias)
        updated = do_update(free if store.keeps_rows else rows)
    if not updated:
        guard.look({key}, alias)
    return updated


def _has_receivers(model: type[Any]) -> bool:
    """Whether the save calls code that may write, too, and has to be undone with it."""
    return pre_save.has_listeners(model) or post_save.has_listeners(model)
