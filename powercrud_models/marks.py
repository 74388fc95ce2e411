"""What the decorators leave on a class: methods marked as work, and records of descendants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

import wrapt

from powercrud_models.types import RelationPath, WorkOptions

if TYPE_CHECKING:
    from django.db.models import Model

    from powercrud_models.models import AsyncTask

M = TypeVar("M")
P = ParamSpec("P")
R = TypeVar("R")

RECORD = "_powercrud_descendants"
"""The attribute of a function, or of a class, that keeps what ``@descendants`` said of it."""


@dataclass(frozen=True, kw_only=True)
class DescendantsRecord:
    """What ``@descendants`` was given."""

    paths: tuple[RelationPath, ...] = ()
    """Empty when the method itself returns the descendants."""
    of: str | None = None
    """The work that a method's descendants belong to; None: to every work."""


def attributes_of(model: type[Model]) -> Iterator[tuple[str, Any]]:
    """The attributes of the class and its bases, as declared; of one name, the nearest."""
    found: dict[str, Any] = {}
    for base in reversed(model.__mro__):
        found.update(vars(base))
    yield from found.items()


def is_bare(method: Callable[..., Any]) -> bool:
    """Whether this is a method that returns descendants."""
    record = getattr(method, RECORD, None)
    return record is not None and not record.paths


if TYPE_CHECKING:

    class BoundWork(Generic[P, R]):
        """``book.recount``: call it to run it now, ``enqueue`` it to queue it."""

        options: WorkOptions

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def enqueue(self) -> AsyncTask: ...

    class Work(Generic[M, P, R]):
        """A method that is marked as work."""

        __name__: str
        __qualname__: str
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
