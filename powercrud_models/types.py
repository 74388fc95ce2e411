"""The values that the parts hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from django.apps import apps

if TYPE_CHECKING:
    from django.db.models import Model

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
        return cls(model_label(type(obj)), str(obj.pk))

    @property
    def model_class(self) -> type[Model]:
        return apps.get_model(self.model)

    @property
    def python_pk(self) -> Any:
        """The primary key in the type that the model uses."""
        return self.model_class._meta.pk.to_python(self.pk)


def model_label(model: type[Model]) -> str:
    """The label under which objects of this model are locked: a proxy is its model."""
    concrete = model._meta.concrete_model
    assert concrete is not None, "an abstract model has no objects"
    return concrete._meta.label_lower


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """What ``@async_save`` and ``@async_method`` were given."""

    on: SaveEvent | None
    """The saves that set the work in motion; None: none, it runs only when asked."""
    name: str = ""
    """The identity that is stored with a task, so that the method can be renamed."""
    label: str = ""
    """What people read; the method's name if empty."""
    atomic: bool = True
    """Whether it runs in one transaction, or in autocommit and at least once."""


@dataclass(frozen=True, kw_only=True)
class WorkDeclaration:
    """One work of one concrete model: its options, and the descendants that it touches."""

    method: str
    """The attribute of the model that is called."""
    options: WorkOptions
    paths: tuple[str, ...]
    """Relation paths to descendants, as in ``filter()``."""
    methods: tuple[str, ...]
    """Methods of the model that return more descendants."""

    @property
    def name(self) -> str:
        return self.options.name or self.method

    @property
    def label(self) -> str:
        return self.options.label or self.name.replace("_", " ")

    def starts_on(self, created: bool) -> bool:
        """Whether a save that creates (or else updates) the row sets this work in motion."""
        return self.options.on == "save" or self.options.on == ("create" if created else "update")
