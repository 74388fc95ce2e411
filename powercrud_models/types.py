"""The values that the parts hand to each other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from django.apps import apps
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_noop

from powercrud_models.messages import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from django.db.models import Model
    from django_stubs_ext import StrOrPromise

SaveEvent = Literal["save", "create", "update"]


class ObjectKey(NamedTuple):
    """What a lock is taken on: one row of one concrete model, both as text."""

    model: str
    """The label of the concrete model, such as ``library.book``."""
    pk: str
    """The primary key as text."""

    @classmethod
    def of(cls, obj: Model) -> ObjectKey:
        """The key of a saved object.

        >>> ObjectKey.of(Book(pk=3))
        ObjectKey(model='library.book', pk='3')
        """
        return cls._of_row(type(obj), obj.pk)

    @classmethod
    def _of_row(cls, model: type[Model], pk: Any) -> ObjectKey:
        try:
            return cls.from_pk(model, pk)
        except (TypeError, ValueError, ValidationError):  # no key: Django says so when it saves
            return cls(model_label(model), str(pk))

    @classmethod
    def from_pk(cls, model: type[Model], pk: Any) -> ObjectKey:
        """The key of the object with this primary key, in whatever form that is written.

        Raises TypeError, ValueError or ValidationError for what is no primary key of the model.

        >>> ObjectKey.from_pk(Book, "003")
        ObjectKey(model='library.book', pk='3')
        """
        meta = model._meta
        if not meta.is_composite_pk:
            return cls(model_label(model), str(meta.pk.to_python(pk)))
        parts = zip(meta.pk_fields, pk, strict=True)
        as_text = json.dumps([str(field.to_python(part)) for field, part in parts])
        return cls(model_label(model), as_text)

    @classmethod
    def all_of(cls, obj: Model) -> set[ObjectKey]:
        """The key of a saved object, and of the rows of its parents: all that a save writes.

        >>> ObjectKey.all_of(Play(pk=3))  # class Play(Book)
        {ObjectKey(model='library.play', pk='3'), ObjectKey(model='library.book', pk='3')}
        """
        keys = {cls.of(obj)}
        for parent, name in parents_of(type(obj)):
            keys.add(cls._of_row(parent, getattr(obj, name)))
        return keys

    @property
    def model_class(self) -> type[Model]:
        return apps.get_model(self.model)

    @property
    def python_pk(self) -> Any:
        """The primary key in the type that the model uses."""
        return python_pk(self.model_class, self.pk)


def python_pk(model: type[Model], as_text: str) -> Any:
    """The primary key in the type that the model uses."""
    pk = model._meta.pk.to_python(as_text)
    return tuple(pk) if model._meta.is_composite_pk else pk


@cache
def parents_of(model: type[Model]) -> tuple[tuple[type[Model], str], ...]:
    """The concrete parents of a model, each with the attribute that has its primary key."""
    return tuple((parent, parent._meta.pk.attname) for parent in model._meta.get_parent_list())


@cache
def model_label(model: type[Model]) -> str:
    """The label under which objects of this model are locked: a proxy is its model."""
    concrete = model._meta.concrete_model
    assert concrete is not None, "an abstract model has no objects"
    return concrete._meta.label_lower


class Said(NamedTuple):
    """Who speaks in an error message; put into words only when there is one.

    >>> str(Said(book, "save"))
    'Book.save of book 3'
    """

    obj: Model
    method: str

    def __str__(self) -> str:
        obj, method = self
        return f"{type(obj).__name__}.{method} of {obj._meta.verbose_name} {obj.pk}"


class RelationPath(NamedTuple):
    """The way from an object to descendants of it."""

    path: str
    """Relation names, as in ``filter()``."""
    recursive: bool = False
    """Whether it is followed again from what it has reached, down to the end of the tree."""


LONGEST_GROWN_BACKOFF = 3600.0
"""Seconds: pauses between tries grow no further."""


class RunOptions(TypedDict, total=False):
    """What both decorators take: how work is named, and how a worker runs it."""

    name: str
    label: StrOrPromise
    atomic: bool
    timeout: float | None
    retries: int
    retry_backoff: float
    dont_retry_for: Sequence[type[Exception]]
    recoveries: int


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """What ``@async_save`` and ``@async_method`` were given."""

    on: SaveEvent | None
    """The saves that set the work in motion; None: none, it runs only when asked."""
    name: str = ""
    """The identity that is stored with a task, so that the method can be renamed."""
    label: StrOrPromise = ""
    """What people read; the method's name if empty."""
    atomic: bool = True
    """Whether it runs in one transaction, or in autocommit and at least once."""
    fields: tuple[str, ...] = ()
    """An update starts the work only when it changes one of these; empty: whatever it changes."""
    condition: Callable[[Any], object] | None = None
    """Asked with the saved object: a false answer keeps the save from starting the work."""
    timeout: float | None = None
    """Seconds after which one run of the work is stopped; None: no limit of its own."""
    retries: int = 0
    """How often work that raised is tried again."""
    retry_backoff: float = 0.0
    """Seconds before the first of these tries; twice as long before each further one."""
    dont_retry_for: tuple[type[Exception], ...] = ()
    """What it may raise that no further try would mend."""
    recoveries: int = 3
    """How many workers may die of it before its task has failed."""

    def backoff(self, tries: int) -> float:
        """Seconds to wait after so many tries that raised."""
        doubled = self.retry_backoff * 2.0 ** min(tries - 1, 64)
        return min(doubled, max(self.retry_backoff, LONGEST_GROWN_BACKOFF))


DEFAULT_OPTIONS = WorkOptions(on=None)
"""What holds for an item whose work is declared no more."""


@dataclass(frozen=True, kw_only=True)
class WorkDeclaration:
    """One work of one concrete model: its options, and the descendants that it touches."""

    method: str
    """The attribute of the model that is called."""
    options: WorkOptions
    paths: tuple[RelationPath, ...]
    """Relation paths to descendants."""
    methods: tuple[str, ...]
    """Methods of an object that return more descendants."""
    batch_methods: tuple[str, ...] = ()
    """Class methods that return those of a whole queryset of objects."""

    @property
    def name(self) -> str:
        return self.options.name or self.method

    @property
    def label(self) -> Message:
        return Message.of(self.options.label or self.name.replace("_", " "))

    @property
    def has_descendants(self) -> bool:
        return bool(self.paths or self.methods or self.batch_methods)

    def starts_on(self, created: bool) -> bool:
        """Whether a save that creates (or else updates) the row sets this work in motion."""
        return self.options.on == "save" or self.options.on == ("create" if created else "update")

    def applies_to(self, obj: Model) -> bool:
        """Whether the saved object meets the work's condition."""
        return self.options.condition is None or bool(self.options.condition(obj))


@dataclass(frozen=True)
class TaskProgress:
    """How far a task has come."""

    items_done: int
    """Items that have ended, in whatever way."""
    items_total: int
    current: int
    """Steps of the current item's ``progress()`` loop."""
    total: int | None
    """All steps of that loop; None when unknown."""
    items_failed: int = 0
    """Those among them that failed."""
    pulse_age: float | None = None
    """Seconds since the last sign of life; None when no worker has taken the task yet."""

    @property
    def fraction(self) -> float:
        """From 0.0 to 1.0; 1.0 only when every item has ended."""
        inner = min(self.current / self.total, 0.999) if self.total else 0.0
        done = self.items_done + (inner if self.items_done < self.items_total else 0.0)
        return done / self.items_total if self.items_total else 0.0

    def as_message(self) -> Message:
        """What people read."""
        said = Message(
            gettext_noop("%(done)s of %(total)s done, %(percent)s%%"),
            done=self.items_done,
            total=self.items_total,
            percent=int(self.fraction * 100),  # rounded up it could say 100% too early
        )
        if not self.items_failed:
            return said
        more = gettext_noop("%(progress)s, %(failed)s failed")
        return Message(more, progress=said, failed=self.items_failed)

    def __str__(self) -> str:
        return str(self.as_message())
