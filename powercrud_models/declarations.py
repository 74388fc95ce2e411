"""What a model class declared: collected once per concrete class, and frozen."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from powercrud_models.decorators import RECORD, DescendantsRecord, Work, is_bare
from powercrud_models.types import WorkDeclaration


@cache
def works_of(model: type[Model]) -> Mapping[str, WorkDeclaration]:
    """The works of a model by the name that is stored, in the order in which they were declared.

    Raises ImproperlyConfigured for a path that does not exist, and for a name used twice.
    """
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
    _refuse_unknown_of(model, records, works)
    _refuse_paths_without_work(model)
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


def _attributes(model: type[Model]) -> Iterator[tuple[str, Any]]:
    """The attributes of the class and its bases, as declared; of one name, the nearest."""
    found: dict[str, Any] = {}
    for base in reversed(model.__mro__):
        found.update(vars(base))
    yield from found.items()


def _works(model: type[Model]) -> Iterator[tuple[str, Work[Any, Any, Any]]]:
    for name, attribute in _attributes(model):
        if isinstance(attribute, Work):
            yield name, attribute


def _descendants_methods(model: type[Model]) -> Iterator[tuple[str, DescendantsRecord]]:
    for name, attribute in _attributes(model):
        if inspect.isroutine(attribute) and is_bare(attribute):
            yield name, getattr(attribute, RECORD)


def _refuse_unknown_of(
    model: type[Model],
    records: Mapping[str, DescendantsRecord],
    works: Mapping[str, WorkDeclaration],
) -> None:
    names = {*works, *(work.method for work in works.values())}
    for method, record in records.items():
        if record.of is not None and record.of not in names:
            near = get_close_matches(record.of, names, n=1)
            raise ImproperlyConfigured(
                f"{model.__name__}.{method}: @descendants(of={record.of!r}): {model.__name__} has "
                "no such work" + (f"; did you mean {near[0]!r}?" if near else ".")
            )


def _refuse_paths_without_work(model: type[Model]) -> None:
    for name, attribute in _attributes(model):
        record = vars(attribute).get(RECORD) if inspect.isfunction(attribute) else None
        if record is not None and record.paths and not isinstance(attribute, Work):
            raise ImproperlyConfigured(
                f"{model.__name__}.{name}: @descendants{record.paths} stands on a method that is "
                "no work; add @async_save or @async_method."
            )


def declares_anything(model: type[Model]) -> str | None:
    """The first work or descendants method of any model class, for the check of a missing mixin."""
    names = [name for name, _ in _works(model)] + [name for name, _ in _descendants_methods(model)]
    return names[0] if names else None
