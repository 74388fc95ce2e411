"""The decorators: each records a frozen declaration beside the method, and runs nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from powercrud_models.marks import RECORD, DescendantsRecord, Work
from powercrud_models.misuse import refuse_misuse, refuse_wrong_options, required_arguments
from powercrud_models.types import SaveEvent, WorkOptions

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


@overload
def async_save(method: Callable[Concatenate[M, P], R], /) -> Work[M, P, R]: ...
@overload
def async_save(
    *, on: SaveEvent = "save", name: str = "", label: StrOrPromise = "", atomic: bool = True
) -> Callable[[Callable[Concatenate[M, P], R]], Work[M, P, R]]: ...
def async_save(
    method: Callable[..., Any] | None = None,
    /,
    *,
    on: SaveEvent = "save",
    name: str = "",
    label: StrOrPromise = "",
    atomic: bool = True,
) -> Any:
    """Mark a method as work that runs after each save of its object.

    ``on``: the saves that start it: "save" (every one), "create" or "update".
    ``name``: the identity stored with a task (the method's name by default); keep it when the
    method is renamed. ``label``: what people read. ``atomic=False``: run in autocommit, where
    long work lets others write in between, and may run more than once after a crash.

    Raises TypeError for a coroutine, for required arguments, and for Django's own methods.

    >>> @async_save(on="create", label="count the words")
    ... def recount(self): ...
    """
    if on not in ("save", "create", "update"):
        raise TypeError(f"@async_save(on={on!r}): on must be 'save', 'create' or 'update'.")
    options = WorkOptions(on=on, name=name, label=label, atomic=atomic)
    return _mark("async_save", method, options)


@overload
def async_method(method: Callable[Concatenate[M, P], R], /) -> Work[M, P, R]: ...
@overload
def async_method(
    *, name: str = "", label: StrOrPromise = "", atomic: bool = True
) -> Callable[[Callable[Concatenate[M, P], R]], Work[M, P, R]]: ...
def async_method(
    method: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    label: StrOrPromise = "",
    atomic: bool = True,
) -> Any:
    """Mark a method as work that runs only when asked: called, or enqueued.

    The arguments and errors are those of ``async_save``.

    >>> @async_method
    ... def reindex(self): ...
    >>> book.reindex.enqueue()
    """
    return _mark(
        "async_method", method, WorkOptions(on=None, name=name, label=label, atomic=atomic)
    )


def _mark(decorator: str, method: Callable[..., Any] | None, options: WorkOptions) -> Any:
    refuse_wrong_options(decorator, options)

    def mark(method: Callable[..., Any]) -> Work[Any, Any, Any]:
        refuse_misuse(decorator, method)
        return Work(method, options)

    return mark if method is None else mark(method)


@overload
def descendants(method: F, /) -> F: ...
@overload
def descendants(*paths: str, of: str | None = None) -> Callable[[F], F]: ...
def descendants(*args: Any, of: str | None = None) -> Any:
    """Say which objects work touches beside its own.

    With relation paths, as in ``filter()``, it goes on the work itself, above or below
    ``@async_save``. Bare, it marks a method that returns them: an object, a queryset, a
    ``(model, pks)`` pair, or an iterable of these; for every work of the model, or ``of`` one.

    Raises TypeError when bare on work, or without a method or a path.

    >>> @async_save
    ... @descendants("scenes", "scenes__speeches")
    ... def recount(self): ...
    >>> @descendants(of="recount")
    ... def reviews_of_adaptations(self):
    ...     return Review.objects.filter(adaptation__book=self)
    """
    if len(args) == 1 and inspect.isroutine(args[0]) and of is None:
        return _record(args[0], DescendantsRecord())
    if not all(isinstance(path, str) and path for path in args):
        raise TypeError(f"@descendants takes relation paths such as 'scenes', not {args!r}.")
    return lambda method: _record(method, DescendantsRecord(paths=args, of=of))


def _record(method: F, record: DescendantsRecord) -> F:
    said = f"@descendants on {getattr(method, '__qualname__', repr(method))}"
    if not inspect.isroutine(method):
        raise TypeError(f"{said}: it goes on a method of a model.")
    if not record.paths and isinstance(method, Work):
        raise TypeError(
            f"{said}: bare, it is for a method that returns descendants. Name the relation "
            "paths that this work touches: @descendants('scenes')."
        )
    if not record.paths and inspect.iscoroutinefunction(method):
        raise TypeError(f"{said}: nobody awaits it; write it as a plain function.")
    if not record.paths and (required := required_arguments(method, said)):
        raise TypeError(f"{said}: nobody could pass {required} to it; give them defaults.")
    if record.paths and record.of:
        raise TypeError(
            f"{said}: `of` goes with a method that returns descendants, not with paths."
        )
    known = getattr(method, RECORD, DescendantsRecord())
    record = replace(record, paths=(*record.paths, *known.paths))
    setattr(method, RECORD, record)  # on a Work this reaches the function below it
    return method
