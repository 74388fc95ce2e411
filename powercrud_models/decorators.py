"""The decorators: each records a frozen declaration beside the method, and runs nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import wrapt
from django.utils.functional import Promise

from powercrud_models.types import SaveEvent, WorkOptions

if TYPE_CHECKING:
    from powercrud_models.models import AsyncTask

M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

RECORD = "_powercrud_descendants"
"""The attribute of a function that keeps what ``@descendants`` said of it."""

LONGEST_NAME = 100
"""Of the identity that ``TaskItem.work`` stores."""

DJANGOS_OWN = {"save", "asave", "save_base", "delete", "adelete", "clean", "full_clean"}


@dataclass(frozen=True, kw_only=True)
class DescendantsRecord:
    """What ``@descendants`` was given."""

    paths: tuple[str, ...] = ()
    """Relation paths; empty when the method itself returns the descendants."""
    of: str | None = None
    """The work that a method's descendants belong to; None: to every work."""


if TYPE_CHECKING:

    class BoundWork(Generic[P, R]):
        """``book.recount``: call it to run it now, ``enqueue`` it to queue it."""

        options: WorkOptions

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def enqueue(self) -> AsyncTask: ...

    class Work(Generic[M, P, R]):
        """A method that is marked as work."""

        options: WorkOptions
        __wrapped__: Callable[..., R]

        def __init__(self, method: Callable[..., R], options: WorkOptions) -> None: ...
        @overload
        def __get__(self, instance: None, owner: type[M]) -> Work[M, P, R]: ...
        @overload
        def __get__(self, instance: M, owner: type[M]) -> BoundWork[P, R]: ...
        def __get__(self, instance: M | None, owner: type[M]) -> Any: ...
        def __call__(self, instance: M, /, *args: P.args, **kwargs: P.kwargs) -> R: ...

else:

    class BoundWork(wrapt.BoundFunctionWrapper):
        """``book.recount``: call it to run it now, ``enqueue`` it to queue it."""

        alters_data = True  # a template shall not start work

        @property
        def options(self):
            return self._self_parent.options

        def enqueue(self):
            """Queue this work alone, and return its task.

            Raises ConflictError when another task holds the object or a descendant of it, and
            PowerCRUDError inside a task, or when the object has not been saved.

            >>> task = book.recount.enqueue()
            >>> task.result(timeout=60)
            """
            if self._self_instance is None:
                raise TypeError(
                    f"{self.__qualname__}.enqueue() was called on the class; call it on an object."
                )
            return _runner_of(self._self_instance, self)._enqueue_work(self.__name__)

        enqueue.alters_data = True

    class Work(wrapt.FunctionWrapper):
        """A method that is marked as work."""

        __bound_function_wrapper__ = BoundWork
        alters_data = True

        def __init__(self, method, options):
            super().__init__(method, _run_now)
            self._self_options = options

        @property
        def options(self):
            return self._self_options

    def _run_now(method, instance, args, kwargs):
        """What a direct call does: ``instance`` is the object, ``method`` bound to it."""
        if instance is None:  # Book.recount(book)
            if not args:
                raise TypeError(f"{method.__qualname__}() was called without its object.")
            instance, *args = args
            method = method.__get__(instance)
        return _runner_of(instance, method)._run_work(method, args, kwargs)


def _runner_of(instance: Any, method: Any) -> Any:
    if not hasattr(instance, "_run_work"):
        raise TypeError(
            f"{type(instance).__name__}.{method.__name__} is decorated as work, but "
            f"{type(instance).__name__} does not inherit from AsyncModelMixin: add it to its bases."
        )
    return instance


@overload
def async_save(method: Callable[Concatenate[M, P], R], /) -> Work[M, P, R]: ...
@overload
def async_save(
    *, on: SaveEvent = "save", name: str = "", label: str = "", atomic: bool = True
) -> Callable[[Callable[Concatenate[M, P], R]], Work[M, P, R]]: ...
def async_save(
    method: Callable[..., Any] | None = None,
    /,
    *,
    on: SaveEvent = "save",
    name: str = "",
    label: str = "",
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
    *, name: str = "", label: str = "", atomic: bool = True
) -> Callable[[Callable[Concatenate[M, P], R]], Work[M, P, R]]: ...
def async_method(
    method: Callable[..., Any] | None = None,
    /,
    *,
    name: str = "",
    label: str = "",
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
    _refuse_wrong_options(decorator, options)

    def mark(method: Callable[..., Any]) -> Work[Any, Any, Any]:
        _refuse_misuse(decorator, method)
        return Work(method, options)

    return mark if method is None else mark(method)


def _refuse_wrong_options(decorator: str, options: WorkOptions) -> None:
    name, label, atomic = options.name, options.label, options.atomic
    if not isinstance(name, str) or len(name) > LONGEST_NAME:
        raise TypeError(
            f"@{decorator}(name={name!r}): name must be text of at most {LONGEST_NAME} characters."
        )
    if not isinstance(label, str | Promise):
        raise TypeError(f"@{decorator}(label={label!r}): label must be text.")
    if not isinstance(atomic, bool):
        raise TypeError(f"@{decorator}(atomic={atomic!r}): atomic must be True or False.")


def _refuse_misuse(decorator: str, method: Callable[..., Any]) -> None:
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
    required = _required_arguments(method, said)
    if required:
        raise TypeError(
            f"{said}: nobody could pass {required} after a save. Work takes no required "
            "arguments: give them defaults, or keep the value in a field."
        )


def _required_arguments(method: Callable[..., Any], said: str) -> str:
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


def is_bare(method: Callable[..., Any]) -> bool:
    """Whether this is a method that returns descendants."""
    record = getattr(method, RECORD, None)
    return record is not None and not record.paths


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
    if not record.paths and (required := _required_arguments(method, said)):
        raise TypeError(f"{said}: nobody could pass {required} to it; give them defaults.")
    if record.paths and record.of:
        raise TypeError(
            f"{said}: `of` goes with a method that returns descendants, not with paths."
        )
    known = getattr(method, RECORD, DescendantsRecord())
    record = replace(record, paths=(*record.paths, *known.paths))
    setattr(method, RECORD, record)  # on a Work this reaches the function below it
    return method
