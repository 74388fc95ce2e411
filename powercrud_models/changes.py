"""Which works a save starts: those whose fields it changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models import Field, Model

from powercrud_models.types import WorkDeclaration


def changing(
    obj: Model,
    works: Sequence[WorkDeclaration],
    update_fields: frozenset[str] | None,
    alias: str,
    *,
    lock: bool = True,
) -> list[WorkDeclaration]:
    """The works of which this save, which is about to be written, changes a field.

    One query when a work names fields, none else. The row stays locked until the transaction
    ends: nobody else changes it between this look and the write. ``lock=False``: only look.
    """
    if obj._state.adding or not any(work.options.fields for work in works):
        return list(works)
    named = {name for work in works for name in work.options.fields}
    fields = [
        field
        for field in obj._meta.concrete_fields
        if {field.name, field.attname} & named and _is_written(obj, field, update_fields)
    ]
    changed = _changed(obj, fields, alias, lock) if fields else set()
    return [
        work
        for work in works
        if not work.options.fields or changed.intersection(work.options.fields)
    ]


def _is_written(obj: Model, field: Field[Any, Any], update_fields: frozenset[str] | None) -> bool:
    if update_fields is None:
        return field.attname in vars(obj)  # else it is deferred, and Django leaves it out
    return bool({field.name, field.attname} & update_fields)


def _changed(obj: Model, fields: Iterable[Field[Any, Any]], alias: str, lock: bool) -> set[str]:
    """The names, in both spellings, of the fields whose value is not that of the row."""
    row = type(obj)._base_manager.using(alias).filter(pk=obj.pk)
    if lock:
        row = row.select_for_update()
    stored = row.values(*(field.attname for field in fields)).first()
    return {
        name
        for field in fields
        if stored is None or _differs(field, getattr(obj, field.attname), stored[field.attname])
        for name in (field.name, field.attname)
    }


def _differs(field: Field[Any, Any], value: Any, stored: Any) -> bool:
    """Whether the database would keep another value; an expression counts as one."""
    if hasattr(value, "resolve_expression"):
        return True
    return bool(field.get_prep_value(value) != field.get_prep_value(stored))
