"""What a model class declared: collected once per concrete class, and frozen."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from django.db.models import Model

from powercrud_models.contradictions import (
    hides,
    may_hide,
    refuse_hidden,
    refuse_name_twice,
    refuse_paths_without_work,
    refuse_unknown_fields,
    refuse_unknown_of,
    refuse_wrong_path,
)
from powercrud_models.marks import RECORD, DescendantsRecord, Work, attributes_of, is_bare
from powercrud_models.types import RelationPath, WorkDeclaration


@cache
def works_of(model: type[Model]) -> Mapping[str, WorkDeclaration]:
    """The works of a model by the name that is stored, in the order in which they were declared.

    Raises ImproperlyConfigured for a path or a field that does not exist, and for a name used
    twice.
    """
    refuse_hidden(model)
    paths_of_class = _paths_of_class(model)
    for relation in paths_of_class:
        refuse_wrong_path(model, relation, said_by=model.__name__)
    records = dict(_descendants_methods(model))
    works: dict[str, WorkDeclaration] = {}
    for method, work in _works(model):
        record = getattr(work, RECORD, DescendantsRecord())
        for relation in record.paths:
            refuse_wrong_path(model, relation, said_by=f"{model.__name__}.{method}")
        found_by = [
            name for name, each in records.items() if each.of in (None, method, work.options.name)
        ]
        batches = [name for name in found_by if _is_class_method(model, name)]
        declaration = WorkDeclaration(
            method=method,
            options=work.options,
            paths=tuple(dict.fromkeys((*record.paths, *paths_of_class))),
            methods=tuple(name for name in found_by if name not in batches),
            batch_methods=tuple(batches),
        )
        refuse_name_twice(model, works, declaration)
        refuse_unknown_fields(model, declaration)
        works[declaration.name] = declaration
    refuse_unknown_of(model, records, works)
    refuse_paths_without_work(model)
    return works


def work_by_method(model: type[Model], method: str) -> WorkDeclaration | None:
    """The work that this method is; None for an override that is not decorated."""
    return next((work for work in works_of(model).values() if work.method == method), None)


def _works(model: type[Model]) -> Iterator[tuple[str, Work[Any, Any, Any]]]:
    for name, attribute in attributes_of(model):
        if isinstance(attribute, Work):
            yield name, attribute


def _paths_of_class(model: type[Model]) -> tuple[RelationPath, ...]:
    """What ``@descendants`` said above the class and its bases, those of the bases first."""
    records = [vars(base).get(RECORD, DescendantsRecord()) for base in reversed(model.__mro__)]
    return tuple(relation for record in records for relation in record.paths)


def _descendants_methods(model: type[Model]) -> Iterator[tuple[str, DescendantsRecord]]:
    for name, attribute in attributes_of(model):
        if inspect.isroutine(attribute) and is_bare(attribute):
            yield name, getattr(attribute, RECORD)


def _is_class_method(model: type[Model], name: str) -> bool:
    return isinstance(inspect.getattr_static(model, name), classmethod)


def declares_anything(model: type[Model]) -> str | None:
    """The first thing of any model class that is decorated, for the check of a missing mixin."""
    for name, attribute in attributes_of(model):
        if isinstance(attribute, Work):
            return f"{model.__name__}.{name}"
        if isinstance(attribute, DescendantsRecord):
            return model.__name__
        if may_hide(attribute) and (hasattr(attribute, RECORD) or hides(attribute)):
            return f"{model.__name__}.{name}"
    return None
