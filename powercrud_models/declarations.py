"""What a model class declared: collected once per concrete class, and frozen."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from powercrud_models.marks import RECORD, DescendantsRecord, Work, attributes_of, is_bare
from powercrud_models.misuse import (
    hides,
    may_hide,
    refuse_hidden,
    refuse_paths_without_work,
    refuse_unknown_of,
)
from powercrud_models.types import WorkDeclaration


@cache
def works_of(model: type[Model]) -> Mapping[str, WorkDeclaration]:
    """The works of a model by the name that is stored, in the order in which they were declared.

    Raises ImproperlyConfigured for a path that does not exist, and for a name used twice.
    """
    refuse_hidden(model)
    records = dict(_descendants_methods(model))
    works: dict[str, WorkDeclaration] = {}
    for method, work in _works(model):
        record = getattr(work, RECORD, DescendantsRecord())
        declaration = WorkDeclaration(
            method=method,
            options=work.options,
            paths=record.paths,
            methods=tuple(
                name
                for name, each in records.items()
                if each.of in (None, method, work.options.name)
            ),
        )
        if declaration.name in works:
            raise ImproperlyConfigured(
                f"{model.__name__}.{method}: the name {declaration.name!r} is taken by "
                f"{model.__name__}.{works[declaration.name].method}; give one of them another name."
            )
        for path in declaration.paths:
            target_of(model, path, said_by=f"{model.__name__}.{method}")
        works[declaration.name] = declaration
    refuse_unknown_of(model, records, works)
    refuse_paths_without_work(model)
    return works


def work_by_method(model: type[Model], method: str) -> WorkDeclaration | None:
    """The work that this method is; None for an override that is not decorated."""
    return next((work for work in works_of(model).values() if work.method == method), None)


@cache
def target_of(model: type[Model], path: str, *, said_by: str) -> type[Model]:
    """The model at the end of a relation path.

    Raises ImproperlyConfigured, with the nearest name, when there is no such relation.
    """
    for part in path.split("__"):
        relations = {
            field.name: field.related_model
            for field in model._meta.get_fields(include_hidden=False)
            if field.is_relation and isinstance(field.related_model, type)
        }
        if part not in relations:
            near = get_close_matches(part, relations, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {sorted(relations)}."
            raise ImproperlyConfigured(
                f"{said_by}: @descendants({path!r}): {model.__name__} has no relation "
                f"{part!r}; {hint}"
            )
        model = relations[part]
    return model


def _works(model: type[Model]) -> Iterator[tuple[str, Work[Any, Any, Any]]]:
    for name, attribute in attributes_of(model):
        if isinstance(attribute, Work):
            yield name, attribute


def _descendants_methods(model: type[Model]) -> Iterator[tuple[str, DescendantsRecord]]:
    for name, attribute in attributes_of(model):
        if inspect.isroutine(attribute) and is_bare(attribute):
            yield name, getattr(attribute, RECORD)


def declares_anything(model: type[Model]) -> str | None:
    """The first method of any model class that is decorated, for the check of a missing mixin."""
    for name, attribute in attributes_of(model):
        if isinstance(attribute, Work):
            return name
        if may_hide(attribute) and (hasattr(attribute, RECORD) or hides(attribute)):
            return name
    return None
