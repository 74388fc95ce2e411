"""Declarations that could not do what they say, and the words in which they are refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.utils.functional import Promise

from powercrud_models.marks import RECORD, DescendantsRecord, Work, attributes_of, is_bare
from powercrud_models.types import WorkDeclaration, WorkOptions

LONGEST_NAME = 100
"""Of the identity that ``TaskItem.work`` stores."""

DJANGOS_OWN = {"save", "asave", "save_base", "delete", "adelete", "clean", "full_clean"}


def refuse_wrong_options(decorator: str, options: WorkOptions) -> None:
    name: Any = options.name
    label: Any = options.label
    atomic: Any = options.atomic
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise TypeError(
            f"@{decorator}(name={name!r}): name must be text of at most {LONGEST_NAME} characters."
        )
    if not isinstance(label, str | Promise):
        raise TypeError(f"@{decorator}(label={label!r}): label must be text.")
    if not isinstance(atomic, bool):
        raise TypeError(f"@{decorator}(atomic={atomic!r}): atomic must be True or False.")


def refuse_misuse(decorator: str, method: Callable[..., Any]) -> None:
    said = f"@{decorator} on {getattr(method, '__qualname__', repr(method))}"
    if not inspect.isroutine(method) or isinstance(method, (staticmethod, classmethod)):
        raise TypeError(f"{said}: work is a plain method of a model.")
    if isinstance(method, Work):
        raise TypeError(f"{said}: it is marked as work already; use one of the two decorators.")
    if method.__name__ in DJANGOS_OWN:
        raise TypeError(
            f"{said}: {method.__name__}() must do its part now. Move the slow part to a method "
            "of its own and decorate that."
        )
    if inspect.iscoroutinefunction(method):
        raise TypeError(f"{said}: work runs in a worker's thread; write it as a plain function.")
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        raise TypeError(f"{said}: a call would run nothing of it; write it as a plain function.")
    if is_bare(method):
        raise TypeError(
            f"{said}: bare @descendants is for a method that returns descendants. "
            "Name the relation paths that the work touches: @descendants('scenes')."
        )
    required = required_arguments(method, said)
    if required:
        raise TypeError(
            f"{said}: nobody could pass {required} after a save. Work takes no required "
            "arguments: give them defaults, or keep the value in a field."
        )


def required_arguments(method: Callable[..., Any], said: str) -> str:
    """The names of all that a call of the method would have to pass, besides ``self``."""
    parameters = list(inspect.signature(method).parameters.values())
    if not parameters:
        raise TypeError(f"{said}: it takes no self, so it is no method.")
    return ", ".join(
        parameter.name
        for parameter in parameters[1:]
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    )


def refuse_unknown_of(
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


def refuse_paths_without_work(model: type[Model]) -> None:
    for name, attribute in attributes_of(model):
        record = vars(attribute).get(RECORD) if inspect.isfunction(attribute) else None
        if record is not None and record.paths and not isinstance(attribute, Work):
            raise ImproperlyConfigured(
                f"{model.__name__}.{name}: @descendants{record.paths} stands on a method that is "
                "no work; add @async_save or @async_method."
            )


def refuse_hidden(model: type[Model]) -> None:
    """Refuse what would be taken for a plain method: nobody would notice that nothing starts."""
    for name, attribute in attributes_of(model):
        said = f"{model.__name__}.{name}"
        if isinstance(attribute, Work):
            if attribute.__name__ != name:
                raise ImproperlyConfigured(
                    f"{said}: this work is a function named {attribute.__name__!r}. Name it alike; "
                    "if a decorator below the mark made it, that one lacks functools.wraps."
                )
        elif may_hide(attribute) and hides(attribute):
            raise ImproperlyConfigured(
                f"{said}: what stands above @async_save, @async_method or @descendants hides it. "
                "Put the marks on top, on a plain method."
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
