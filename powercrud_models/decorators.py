"""The decorators: each records a frozen declaration beside a method or class, and runs nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack, overload

from powercrud_models.marks import RECORD, DescendantsRecord, Work
from powercrud_models.misuse import (
    inherited_method,
    refuse_misuse,
    refuse_wrong_record,
)
from powercrud_models.options import checked_options
from powercrud_models.types import RelationPath, RunOptions, SaveEvent

M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

Condition = Callable[[Any], object]


@overload
def async_save(method: Callable[Concatenate[M, P], R], /) -> Work[M, P, R]: ...
@overload
def async_save(
    inherited: str,
    /,
    *,
    on: SaveEvent = "save",
    fields: Sequence[str] = (),
    condition: Condition | None = None,
    **options: Unpack[RunOptions],
) -> Callable[[C], C]: ...
@overload
def async_save(
    *,
    on: SaveEvent = "save",
    fields: Sequence[str] = (),
    condition: Condition | None = None,
    **options: Unpack[RunOptions],
) -> Callable[[Callable[Concatenate[M, P], R]], Work[M, P, R]]: ...
def async_save(
    marked: Callable[..., Any] | str | None = None,
    /,
    *,
    on: SaveEvent = "save",
    fields: Sequence[str] = (),
    condition: Condition | None = None,
    **options: Unpack[RunOptions],
) -> Any:
    """Mark a method as work that runs after each save of its object.

    Above a class it names a method that the class inherits.

    ``on``: the saves that start it: "save" (every one), "create" or "update".
    ``fields``: an update starts it only when it changes one of these, compared with the row.
    ``condition``: a function of the saved object; when it answers false, nothing starts.
    ``name``: the identity stored with a task (the method's name by default); keep it when the
    method is renamed. ``label``: what people read. ``atomic=False``: run in autocommit, where
    long work lets others write in between, and may run more than once after a crash.
    ``timeout``: seconds after which a run of it in a worker is stopped with TimeoutError.
    ``retries``: how often a worker tries again what has raised, ``retry_backoff`` seconds later,
    then after twice as long, and so on; ``dont_retry_for``: exceptions that no try would mend.
    ``recoveries``: how many workers may die of it, or be stopped, before its task has failed.

    Raises TypeError for a coroutine, for required arguments, for Django's own methods, and for
    options of a wrong kind; ImproperlyConfigured for a name that the class does not inherit.

    >>> @async_save(on="update", fields=["text"], label="count the words")
    ... def recount(self): ...
    >>> @async_save("recount", retries=2, retry_backoff=10, dont_retry_for=[ValidationError])
    ... class Play(Book): ...
    """
    chosen = {"on": on, "fields": fields, "condition": condition, **options}
    return _mark("async_save", marked, chosen)


@overload
def async_method(method: Callable[Concatenate[M, P], R], /) -> Work[M, P, R]: ...
@overload
def async_method(inherited: str, /, **options: Unpack[RunOptions]) -> Callable[[C], C]: ...
@overload
def async_method(
    **options: Unpack[RunOptions],
) -> Callable[[Callable[Concatenate[M, P], R]], Work[M, P, R]]: ...
def async_method(
    marked: Callable[..., Any] | str | None = None, /, **options: Unpack[RunOptions]
) -> Any:
    """Mark a method as work that runs only when asked: called, or enqueued.

    The arguments and errors are those of ``async_save``.

    >>> @async_method
    ... def reindex(self): ...
    >>> book.reindex.enqueue()
    """
    return _mark("async_method", marked, {"on": None, **options})


def _mark(
    decorator: str, marked: Callable[..., Any] | str | None, chosen: Mapping[str, Any]
) -> Any:
    options = checked_options(decorator, chosen)

    def mark(method: Callable[..., Any]) -> Work[Any, Any, Any]:
        refuse_misuse(decorator, method)
        return Work(method, options)

    def mark_inherited(cls: C) -> C:
        method: Any = inherited_method(decorator, cls, str(marked))
        kept = ""
        if isinstance(method, Work):  # its tasks are stored under its name
            method, kept = method.__wrapped__, method.options.name
        refuse_misuse(decorator, method)
        setattr(cls, str(marked), Work(method, replace(options, name=options.name or kept)))
        return cls

    if isinstance(marked, str):
        return mark_inherited
    return mark if marked is None else mark(marked)


@overload
def descendants(method: F, /) -> F: ...
@overload
def descendants(
    *paths: str, of: str | None = None, recursive: bool = False
) -> Callable[[F], F]: ...
def descendants(*args: Any, of: str | None = None, recursive: bool = False) -> Any:
    """Say which objects work touches beside its own.

    With relation paths, as in ``filter()``, it goes on the work itself, above or below
    ``@async_save``, or above a class: then it is for all work of the class. ``recursive``: the
    path leads to objects of the same model, and is followed again from these.

    Bare, it marks a method that returns them: an object, a queryset, a ``(model, pks)`` pair, or
    an iterable of these; for every work of the model, or ``of`` one. A class method is called
    once, with a queryset of all objects whose descendants are wanted.

    Raises TypeError when bare on work or a class, or without a method or a path.

    >>> @async_save
    ... @descendants("scenes", "scenes__speeches")
    ... def recount(self): ...
    >>> @descendants(of="recount")
    ... @classmethod
    ... def reviews_of_adaptations(cls, books):
    ...     return Review.objects.filter(adaptation__book__in=books)
    """
    is_bare = len(args) == 1 and (inspect.isroutine(args[0]) or inspect.isclass(args[0]))
    if is_bare and of is None and not recursive:
        return _record(args[0], DescendantsRecord())
    if not all(isinstance(path, str) and path for path in args):
        raise TypeError(f"@descendants takes relation paths such as 'scenes', not {args!r}.")
    if recursive and not args:
        raise TypeError("@descendants(recursive=True) takes relation paths such as 'children'.")
    paths = tuple(RelationPath(path, recursive) for path in args)
    return lambda marked: _record(marked, DescendantsRecord(paths=paths, of=of))


def _record(marked: F, record: DescendantsRecord) -> F:
    refuse_wrong_record(marked, record)
    if inspect.isclass(marked):
        known = vars(marked).get(RECORD, DescendantsRecord())  # not what its bases declared
    else:
        known = getattr(marked, RECORD, DescendantsRecord())
    record = replace(record, paths=(*record.paths, *known.paths))
    setattr(marked, RECORD, record)  # on a Work this reaches the function below it
    return marked
