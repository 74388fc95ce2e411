"""``AsyncQuerySet``: a queryset whose writes look for locks, as ``save()`` and ``delete()`` do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, TypeVar

from django.db.models import Model, QuerySet

from powercrud_models import guard
from powercrud_models.context import current_run
from powercrud_models.deadlocks import attempts
from powercrud_models.guarded_delete import deleting, taken_with_all
from powercrud_models.lifecycle import has_one_writer
from powercrud_models.resolution import among
from powercrud_models.types import ObjectKey, parents_of

ModelT = TypeVar("ModelT", bound=Model)


class AsyncQuerySet(QuerySet[ModelT]):
    """Its ``update``, ``delete`` and ``bulk_update`` refuse what another task holds.

    They write all or nothing, and return what Django's return. ``bulk_create`` goes by no lock;
    ``create``, ``get_or_create`` and ``update_or_create`` call ``save()``. It is the default
    manager's queryset of every ``AsyncModelMixin``; a queryset of your own extends it.

    >>> class BookQuerySet(AsyncQuerySet["Book"]):
    ...     def in_print(self): ...
    >>> class Book(AsyncModelMixin):
    ...     objects = BookQuerySet.as_manager()
    >>> Book.objects.in_print().update(price=F("price") + 1)
    """

    _powercrud_guarded = True  # see `resolution.is_guarded`
    _guard_is_held = False

    def update(self, **kwargs: Any) -> int:
        """Update the rows, as Django does; inside a task, under its locks.

        Rows which come to match the filter while it waits for others' transactions are left alone.

        Raises ConflictError, and writes nothing, when another task holds one of the rows.
        """
        alias = self._alias_to_write()
        if self._goes_by_django(alias) or not kwargs:
            return super().update(**kwargs)
        updated = 0
        parents = self._parents_with(kwargs)
        for attempt in attempts(alias):
            with attempt, self._guarding_update(alias, parents) as rows:
                updated = super(AsyncQuerySet, rows).update(**kwargs)
        self._result_cache = None
        return updated

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_update(
        self, objs: Iterable[ModelT], fields: Iterable[str], batch_size: int | None = None
    ) -> int:
        """Write these fields of the objects, as Django does, in one transaction for all batches.

        Raises ConflictError, and writes nothing, when another task holds one of the objects.
        """
        alias = self._alias_to_write()
        objs, fields = tuple(objs), tuple(fields)
        has_keys = all(obj._is_pk_set() for obj in objs)  # type: ignore[attr-defined]
        if self._goes_by_django(alias) or not has_keys:
            return super().bulk_update(objs, fields, batch_size)
        keys: set[ObjectKey] = set()
        if guard.is_on(alias):
            parents = self._parents_with(fields)
            for obj in objs:
                keys.add(ObjectKey.from_pk(self.model, obj.pk))
                keys.update(ObjectKey.from_pk(each, getattr(obj, name)) for each, name in parents)
        updated, rows = 0, self.all()
        rows._guard_is_held = True
        for attempt in attempts(alias):
            with attempt, guard.writing_rows(keys, alias, self._said("bulk_update")):
                updated = super(AsyncQuerySet, rows).bulk_update(objs, fields, batch_size)
        return updated

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows and all that Django deletes with them.

        Raises ConflictError, and deletes nothing, when another task holds any of it.
        """
        alias = self._alias_to_write()
        refused = self.query.distinct_fields or self._fields is not None  # type: ignore[attr-defined]
        if refused or self._goes_by_django(alias):
            return super().delete()
        if not guard.is_on(alias):
            with guard.writing((), alias, self._said("delete")):
                return super().delete()
        deleted: tuple[int, dict[str, int]] = (0, {})
        rows = self if has_one_writer(alias) else self._only(self._keys(alias)[0], alias)
        for attempt in attempts(alias):
            with (
                attempt,
                deleting(partial(taken_with_all, rows, alias), alias, self._said("delete")),
            ):
                deleted = super(AsyncQuerySet, rows).delete()
        self._result_cache = None
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        if self._guard_is_held:
            clone._guard_is_held = True
        return clone

    def _alias_to_write(self) -> str:
        self._for_write = True  # as Django's own writes do
        return self.db

    def _goes_by_django(self, alias: str) -> bool:
        """Whether there is nothing to guard, or nothing that Django would write."""
        query = self.query
        refused = query.combinator or query.is_sliced
        return bool(refused or self._guard_is_held or not (guard.is_on(alias) or current_run()))

    @contextmanager
    def _guarding_update(
        self, alias: str, parents: Sequence[tuple[type[Model], str]]
    ) -> Iterator[Self]:
        """The rows that may be updated in this block."""
        said_by = self._said("update")
        if not guard.is_on(alias):
            with guard.writing((), alias, said_by):
                yield self
            return
        pks, keys = self._keys(alias, parents)
        if has_one_writer(alias):
            with guard.writing(keys, alias, said_by):
                guard.look(self._keys(alias, parents)[1], alias)  # from here on nobody else writes
                yield self
        else:
            with guard.writing_rows(keys, alias, said_by):
                yield self._only(pks, alias)

    def _keys(
        self, alias: str, parents: Sequence[tuple[type[Model], str]] = ()
    ) -> tuple[list[Any], set[ObjectKey]]:
        """The primary keys of the rows, and what a write of them and of these parents locks."""
        rows = self.using(alias).order_by()
        rows.query.select_for_update = False
        rows.query.distinct_fields = ()  # Django 5.2 updates them all; later ones refuse to
        pks: list[Any] = []
        keys: set[ObjectKey] = set()
        for pk, *pks_of_parents in rows.values_list("pk", *(name for _, name in parents)):
            pks.append(pk)
            keys.add(ObjectKey.from_pk(self.model, pk))
            for (parent, _), parent_pk in zip(parents, pks_of_parents, strict=True):
                keys.add(ObjectKey.from_pk(parent, parent_pk))
        return pks, keys

    def _only(self, pks: Sequence[Any], alias: str) -> Self:
        """These rows, as far as they are among its own."""
        rows = self.all()
        if rows.query.where.contains_over_clause:  # it counts rows: among fewer it finds others
            rows.query.clear_where()
        return rows.filter(pk__in=among(self.model, pks, alias))

    def _parents_with(self, fields: Iterable[str]) -> list[tuple[type[Model], str]]:
        """The parents to whose tables these fields belong."""
        meta = self.model._meta
        written = {meta.get_field(name).model._meta.concrete_model for name in fields}
        return [
            each
            for each in parents_of(self.model)
            if each[0] in written and each[0] is not meta.concrete_model
        ]

    def _said(self, method: str) -> str:
        return f"{type(self).__name__}.{method} of {self.model._meta.verbose_name_plural}"
