"""Which works a save starts: those whose fields it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django.db import connections
from django.db.models import Field, Model

from powercrud_models.types import WorkDeclaration


def comparison(
    obj: Model,
    works: Sequence[WorkDeclaration],
    update_fields: frozenset[str] | None,
    alias: str,
    *,
    lock: bool = True,
) -> Callable[[], list[WorkDeclaration]]:
    """Look at the row before the write; what is returned tells, after it, which works it starts.

    One query when a work names fields, none else. The row stays locked until the transaction
    ends: nobody else changes it between this look and the write. ``lock=False``: only look.
    """
    if obj.pk is None or not any(work.options.fields for work in works):
        return lambda: list(works)
    named = {name for work in works for name in work.options.fields}
    fields = [
        field
        for field in obj._meta.concrete_fields
        if {field.name, field.attname} & named and _is_written(obj, field, update_fields)
    ]
    stored = _row(obj, fields, alias, lock) if fields else None
    certain = {field for field in fields if _is_found_by_the_write(obj, field)}

    def changed() -> list[WorkDeclaration]:
        names = {
            name
            for field in fields
            if stored is None
            or field in certain
            or _differs(field, getattr(obj, field.attname), stored)
            for name in (field.name, field.attname)
        }
        return [
            work
            for work in works
            if not work.options.fields or names.intersection(work.options.fields)
        ]

    return changed


def _is_written(obj: Model, field: Field[Any, Any], update_fields: frozenset[str] | None) -> bool:
    if update_fields is None:
        return field.attname in vars(obj)  # else it is deferred, and Django leaves it out
    return bool({field.name, field.attname} & update_fields)


def _row(obj: Model, fields: Iterable[Field[Any, Any]], alias: str, lock: bool) -> Any:
    row = type(obj)._base_manager.using(alias).filter(pk=obj.pk)
    if lock:
        row = row.select_for_update(
            no_key=connections[alias].features.has_select_for_no_key_update  # as the UPDATE
        )
    return row.values(*(field.attname for field in fields)).first()


def _is_found_by_the_write(obj: Model, field: Field[Any, Any]) -> bool:
    """Whether only the write tells the value: of an expression, or of a file to be stored."""
    value = getattr(obj, field.attname)
    return hasattr(value, "resolve_expression") or not getattr(value, "_committed", True)


def _differs(field: Field[Any, Any], value: Any, stored: Mapping[str, Any]) -> bool:
    """Whether the database keeps another value than it had."""
    return bool(field.get_prep_value(value) != field.get_prep_value(stored[field.attname]))
