"""The guard of an update that sets nothing in motion, in as few round trips as it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from django.db import connections, transaction
from django.db.models import QuerySet
from django.db.models.signals import post_save, pre_save

from powercrud_models import guard
from powercrud_models.exceptions import ConflictError
from powercrud_models.launches import open_launch
from powercrud_models.lifecycle import has_one_writer
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey, Said


class Updatable(Protocol):
    """A model whose ``_do_update`` asks ``rows_to_update``."""

    _guarded_key: ObjectKey | None


def update(
    obj: Updatable, key: ObjectKey, save_row: Callable[[], None], alias: str, said_by: Said
) -> None:
    """Save a row, outside of any run: what ``guard.writing`` and a look behind it would do.

    Here the first look is part of the UPDATE, which finds no row that another task holds. A
    launch may commit while it waits for the row, so there is a second look behind it, and a
    transaction around both. SQLite's one writer needs neither; but there an UPDATE waits for the
    holder's transaction before it can see the lock, so a look in front of it refuses at once.

    Raises ConflictError when another task holds the object.
    """
    guard.refuse_broken_transaction(alias, said_by)
    one_writer = has_one_writer(alias)
    obj._guarded_key = key
    try:
        if one_writer:
            guard.look({key}, alias)
        if one_writer and not (connections[alias].in_atomic_block or _has_receivers(type(obj))):
            save_row()
        else:
            with transaction.atomic(using=alias):
                save_row()
                guard.look({key}, alias)
    except ConflictError:
        guard.sweep_after_conflict(alias)
        raise
    finally:
        vars(obj).pop("_guarded_key", None)


def rows_to_update(obj: Updatable, rows: QuerySet[Any], alias: str) -> QuerySet[Any]:
    """The rows among which Django looks for the object's: while it is saved here, the free ones."""
    key = obj._guarded_key
    if key is None:
        return rows
    launch = open_launch(alias)
    return get_store().free_rows(rows, key, launch.task_key if launch else "")


def refuse_missed_row(obj: Updatable, alias: str) -> None:
    """Raise ConflictError when the row was not found because it is held; it may just be gone."""
    if obj._guarded_key is not None:
        guard.look({obj._guarded_key}, alias)


def _has_receivers(model: type[Any]) -> bool:
    """Whether the save calls code that may write, too, and has to be undone with it."""
    return pre_save.has_listeners(model) or post_save.has_listeners(model)
