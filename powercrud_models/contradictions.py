"""What a model declared, held against itself and against the model's fields."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from django.db.models import Model

from powercrud_models.marks import RECORD, DescendantsRecord, Work, attributes_of
from powercrud_models.misuse import Misdeclared, nearest
from powercrud_models.types import RelationPath, WorkDeclaration


@cache
def target_of(model: type[Model], path: str, *, said_by: str) -> type[Model]:
    """The model at the end of a relation path.

    Raises Misdeclared, with the nearest name, when there is no such relation.
    """
    for part in path.split("__"):
        relations = {
            field.name: field.related_model
            for field in model._meta.get_fields(include_hidden=False)
            if field.is_relation and isinstance(field.related_model, type)
        }
        if part not in relations:
            raise Misdeclared(
                f"{said_by}: @descendants({path!r}): {model.__name__} has no relation "
                f"{part!r}; {nearest(part, relations)}",
                "E002",
            )
        model = relations[part]
    return model


def _has(model: type[Model], path: str) -> bool:
    try:
        target_of(model, path, said_by=model.__name__)
    except Misdeclared:
        return False
    return True


def refuse_wrong_path(model: type[Model], relation: RelationPath, said_by: str) -> None:
    target = target_of(model, relation.path, said_by=said_by)
    if relation.recursive and not (
        issubclass(model, target._meta.concrete_model or target) and _has(target, relation.path)
    ):
        raise Misdeclared(
            f"{said_by}: @descendants({relation.path!r}, recursive=True): the path leads from "
            f"{model.__name__} to {target.__name__}, where it cannot be followed again; recursive "
            "goes with relations of a model to itself.",
            "E016",
        )


def refuse_name_twice(
    model: type[Model], works: Mapping[str, WorkDeclaration], new: WorkDeclaration
) -> None:
    if new.name in works:
        raise Misdeclared(
            f"{model.__name__}.{new.method}: the name {new.name!r} is taken by "
            f"{model.__name__}.{works[new.name].method}; give one of them another name.",
            "E005",
        )


def refuse_unknown_of(
    model: type[Model],
    records: Mapping[str, DescendantsRecord],
    works: Mapping[str, WorkDeclaration],
) -> None:
    names = {*works, *(work.method for work in works.values())}
    for method, record in records.items():
        if record.of is not None and record.of not in names:
            raise Misdeclared(
                f"{model.__name__}.{method}: @descendants(of={record.of!r}): {model.__name__} has "
                f"no such work; {nearest(record.of, names)}",
                "E006",
            )


def refuse_paths_without_work(model: type[Model]) -> None:
    for name, attribute in attributes_of(model):
        record = vars(attribute).get(RECORD) if inspect.isfunction(attribute) else None
        if record is not None and record.paths and not isinstance(attribute, Work):
            paths = tuple(relation.path for relation in record.paths)
            raise Misdeclared(
                f"{model.__name__}.{name}: @descendants{paths} stands on a method that is "
                "no work; add @async_save or @async_method.",
                "E007",
            )


def refuse_unknown_fields(model: type[Model], work: WorkDeclaration) -> None:
    saved = [field for field in model._meta.concrete_fields if not field.generated]
    fields = {field.name for field in saved}
    known = fields | {field.attname for field in saved}
    for name in work.options.fields:
        if name not in known:
            raise Misdeclared(
                f"{model.__name__}.{work.method}: @async_save(fields=[{name!r}]): "
                f"{model.__name__} saves no field {name!r}; {nearest(name, fields)}",
                "E009",
            )


def refuse_hidden(model: type[Model]) -> None:
    """Refuse what would be taken for a plain method: nobody would notice that nothing starts."""
    for name, attribute in attributes_of(model):
        said = f"{model.__name__}.{name}"
        if isinstance(attribute, Work):
            if attribute.__name__ != name:
                raise Misdeclared(
                    f"{said}: this work is a function named {attribute.__name__!r}. Name it alike; "
                    "if a decorator below the mark made it, that one lacks functools.wraps.",
                    "E008",
                )
        elif may_hide(attribute) and hides(attribute):
            raise Misdeclared(
                f"{said}: what stands above @async_save, @async_method or @descendants hides it. "
                "Put the marks on top, on a plain method.",
                "E008",
            )


def may_hide(attribute: Any) -> bool:
    return isinstance(attribute, property) or inspect.isroutine(attribute)


def hides(attribute: Any) -> bool:
    """Whether a mark can be seen only from below this decorator."""
    seen = hasattr(attribute, RECORD)
    below = attribute
    while below := getattr(below, "fget", None) or getattr(below, "__wrapped__", None):
        if isinstance(below, Work) or (hasattr(below, RECORD) and not seen):
            return True
    return False


def undecorated_overrides(model: type[Model]) -> Iterator[str]:
    """Methods that were work, or returned descendants, until this class overrode them."""
    for name, attribute in attributes_of(model):
        if isinstance(attribute, Work) or hasattr(attribute, RECORD):
            continue
        hidden = [vars(base)[name] for base in model.__mro__[1:] if name in vars(base)]
        if any(isinstance(each, Work) or hasattr(each, RECORD) for each in hidden):
            yield name
