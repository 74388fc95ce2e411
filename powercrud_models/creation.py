"""Whether a save creates a row, and what is left of a new object whose row is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db.models import Model

from powercrud_models.types import parents_of


def creates(obj: Any, save_row: Callable[[], None]) -> bool:
    """Save the row, and tell whether that has created it.

    A new instance may have the key of a row that exists: only Django's UPDATE tells, of which the
    mixin takes note.
    """
    is_new, outer = obj._state.adding or obj.pk is None, obj._row_was_there
    obj._row_was_there = False
    try:
        save_row()
        return is_new and not obj._row_was_there
    finally:
        obj._row_was_there = outer
        if outer is None:
            del obj._row_was_there


@contextmanager
def new_again_on_error(obj: Model) -> Iterator[None]:
    """Where the row of a new object is undone, the object is new again: it has no key."""
    adding = obj._state.adding
    names = [field.attname for field in obj._meta.pk_fields]
    names += [name for _, name in parents_of(type(obj))]
    keys = {name: getattr(obj, name) for name in names}
    try:
        yield
    except BaseException:  # whatever it is, it is raised again
        obj._state.adding = adding
        for name, key in keys.items():
            setattr(obj, name, key)
        raise
