"""Declarations that could not do what they say, refused when they are made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from powercrud_models.marks import DescendantsRecord, Work, is_bare


class Misdeclared(ImproperlyConfigured):
    """A model's declarations contradict each other, or its fields; ``check`` shows the id."""

    def __init__(self, message: str, check_id: str) -> None:
        super().__init__(message)
        self.check_id = f"powercrud_models.{check_id}"


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message about a name that does not exist."""
    names = sorted(names)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"it has {names}."


def refuse_misuse(decorator: str, method: Callable[..., Any]) -> None:
    """Raise TypeError for what cannot be work."""
    said = f"@{decorator} on {getattr(method, '__qualname__', repr(method))}"
    if inspect.isclass(method):
        raise TypeError(
            f"{said}: above a class it names a method that the class inherits: "
            f"@{decorator}('recount')."
        )
    if not inspect.isroutine(method) or isinstance(method, (staticmethod, classmethod)):
        raise TypeError(f"{said}: work is a plain method of a model.")
    if isinstance(method, Work):
        raise TypeError(f"{said}: it is marked as work already; use one of the two decorators.")
    if hasattr(Model, method.__name__):
        raise TypeError(
            f"{said}: Django calls {method.__name__}(), which must do its part now. Move the slow "
            "part to a method of its own and decorate that."
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
            f"{said}: nobody could pass {', '.join(required)} after a save. Work takes no "
            "required arguments: give them defaults, or keep the value in a field."
        )


def inherited_method(decorator: str, cls: Any, name: str) -> Callable[..., Any]:
    """The method that ``@async_save(name)`` above this class speaks of."""
    said = f"@{decorator}({name!r})"
    if not inspect.isclass(cls):
        raise TypeError(
            f"{said} on {getattr(cls, '__qualname__', repr(cls))}: with a name it goes above a "
            f"class that inherits the method; on a method leave the name out: @{decorator}."
        )
    method = inspect.getattr_static(cls, name, None)
    if method is None:
        methods = [each for each, _ in inspect.getmembers_static(cls, inspect.isroutine)]
        near = get_close_matches(name, methods, n=1)
        raise Misdeclared(
            f"{said}: {cls.__name__} has no method {name!r}"
            + (f"; did you mean {near[0]!r}?" if near else "."),
            "E017",
        )
    return method  # type: ignore[no-any-return]  # `refuse_misuse` sees to it


def refuse_wrong_record(marked: Any, record: DescendantsRecord) -> None:
    """Raise TypeError where ``@descendants`` cannot stand."""
    said = f"@descendants on {getattr(marked, '__qualname__', repr(marked))}"
    if record.paths and record.of:
        raise TypeError(
            f"{said}: `of` goes with a method that returns descendants, not with paths."
        )
    if inspect.isclass(marked):
        if not record.paths:
            raise TypeError(f"{said}: above a class it takes paths: @descendants('scenes').")
        return
    if not inspect.isroutine(marked):
        raise TypeError(f"{said}: it goes on a method of a model, or above the class.")
    if not record.paths:
        _refuse_wrong_bare(marked, said)


def _refuse_wrong_bare(marked: Any, said: str) -> None:
    if isinstance(marked, Work):
        raise TypeError(
            f"{said}: bare, it is for a method that returns descendants. Name the relation "
            "paths that this work touches: @descendants('scenes')."
        )
    if isinstance(marked, staticmethod):
        raise TypeError(f"{said}: write it as a method, or as a class method of the batch.")
    function = getattr(marked, "__func__", marked)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{said}: nobody awaits it; write it as a plain function.")
    required = required_arguments(function, said)
    if isinstance(marked, classmethod):
        if len(required) != 1:
            raise TypeError(
                f"{said}: a class method is given one queryset, of all the objects whose "
                "descendants are wanted: def found(cls, books)."
            )
    elif required:
        raise TypeError(
            f"{said}: nobody could pass {', '.join(required)} to it; give them defaults. For a "
            "class method, which is given the batch, @descendants stands above @classmethod."
        )


def required_arguments(method: Callable[..., Any], said: str) -> list[str]:
    """The names of all that a call of the method would have to pass, besides ``self``."""
    parameters = list(inspect.signature(method).parameters.values())
    if not parameters:
        raise TypeError(f"{said}: it takes no self, so it is no method.")
    return [
        parameter.name
        for parameter in parameters[1:]
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
