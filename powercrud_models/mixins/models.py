"""``AsyncModelMixin``: the model whose ``save()`` sets work in motion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import models, router
from django.db.models.base import ModelBase

from powercrud_models import asked_for, conflicts, guard, hot_path, items, lifecycle, runner
from powercrud_models.changes import comparison
from powercrud_models.context import Mode, current_run, decide
from powercrud_models.creation import creates, new_again_on_error
from powercrud_models.deadlocks import attempts
from powercrud_models.declarations import works_of
from powercrud_models.guarded_delete import deleting, taken_with
from powercrud_models.models import AsyncTask
from powercrud_models.querysets import AsyncQuerySet
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey, Said, WorkDeclaration


class AsyncModelMixin(models.Model):
    """A model whose declared work runs after each save, in the background, under locks.

    It is an abstract model, so ``class Book(AsyncModelMixin)`` is enough.

    >>> class Book(AsyncModelMixin):
    ...     @async_save
    ...     @descendants("scenes")
    ...     def recount(self): ...
    """

    _powercrud_guarded = True  # see `resolution.is_guarded`
    _async_task_key: str | None = None
    _guarded_key: ObjectKey | None = None
    _row_was_there: bool | None = None

    objects = AsyncQuerySet.as_manager()

    class Meta:
        abstract = True

    def __getstate__(self) -> dict[str, Any]:
        """A pickle or a copy is not the instance that was saved: it has no task."""
        state = super().__getstate__()
        state.pop("_async_task_key", None)
        return state

    def save(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
        skip_async: bool | None = None,
    ) -> None:
        """Save the row, lock what its work touches, and queue the work on commit.

        ``skip_async=True``: no task of its own; the work runs now, in this transaction, and its
        locks join the current task's. None decides by itself: inline inside a task and with
        async off, else queued. The other arguments are Django's.

        Raises ConflictError, and writes nothing, when another task holds the object or a
        descendant; PowerCRUDError for ``skip_async=False`` inside a task.

        >>> book.save()
        >>> book.async_task.status
        'pending'
        """
        alias = using or router.db_for_write(type(self), instance=self)
        said_by = Said(self, "save")
        update_fields = None if update_fields is None else frozenset(update_fields)
        save_row = partial(
            super().save,
            force_insert=force_insert,
            force_update=force_update,
            using=alias,
            update_fields=update_fields,
        )
        works = self._works_set_in_motion(update_fields)
        nothing_to_decide = not works and skip_async is None
        mode = Mode.INLINE if nothing_to_decide else decide(skip_async, said_by=said_by)
        watched = guard.watched(self, alias)
        self.__dict__.pop("_async_task_key", None)
        if update_fields == frozenset():
            save_row()
        elif not (works or watched or current_run()):
            guard.refuse_broken_transaction(alias, said_by)
            save_row()
        elif not (works or current_run()) and hot_path.is_open(self, watched):
            [key] = watched
            hot_path.update(self, key, save_row, alias, said_by)
        else:
            for attempt in attempts(alias, repeatable=mode is Mode.QUEUED):
                with (
                    attempt,
                    new_again_on_error(self),
                    guard.writing(watched, alias, said_by),
                ):
                    changed = comparison(self, works, update_fields, alias)
                    created = creates(self, save_row)
                    started = [
                        work
                        for work in changed()
                        if work.starts_on(created) and work.applies_to(self)
                    ]
                    self._start(started, mode, watched, alias)

    def _start(
        self, works: Sequence[WorkDeclaration], mode: Mode, watched: set[ObjectKey], alias: str
    ) -> None:
        """Queue what the save set in motion, or run it; without work, look for locks again."""
        if works and len(watched) > 1:
            guard.lock_parents(self, alias)  # not each save writes the rows of all
        if works and mode is Mode.QUEUED:
            self._async_task_key = lifecycle.launch([(self, works)], alias)
        elif works or current_run():
            with runner.inline_run(self, works, alias) as run:
                for work in works:
                    items.call(run, self, work)
        else:
            guard.look(watched, alias)

    def _do_update(  # type: ignore[override]
        self, base_qs: models.QuerySet[Any], using: str, *rest: Any
    ) -> Any:
        """Django's UPDATE of the row; it finds none that another task holds, where that is asked.

        What it returns, and is given, is Django's own affair and differs between its versions.
        """
        by_django = super()._do_update
        updated = hot_path.update_row(
            self, lambda rows: by_django(rows, using, *rest), base_qs, using
        )
        if self._row_was_there is not None:
            self._row_was_there = bool(updated)
        return updated

    async def asave(
        self,
        *,
        force_insert: bool | tuple[ModelBase, ...] = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
        skip_async: bool | None = None,
    ) -> None:
        """``save()`` for async code."""
        await sync_to_async(self.save)(
            force_insert=force_insert,
            force_update=force_update,
            using=using,
            update_fields=update_fields,
            skip_async=skip_async,
        )

    def delete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """Delete the object and all that Django deletes with it.

        Raises ConflictError, and deletes nothing, when another task holds one of them.
        """
        alias = using or router.db_for_write(type(self), instance=self)
        said_by = Said(self, "delete")
        guard.refuse_broken_transaction(alias, said_by)
        if not guard.watched(self, alias):
            with guard.writing((), alias, said_by):
                return super().delete(using=using, keep_parents=keep_parents)
        taken = partial(taken_with, self, alias, keep_parents=keep_parents)
        deleted: tuple[int, dict[str, int]] = (0, {})
        for attempt in attempts(alias):
            with attempt, deleting(taken, alias, said_by):
                deleted = super().delete(using=using, keep_parents=keep_parents)
        return deleted

    async def adelete(
        self, using: str | None = None, keep_parents: bool = False
    ) -> tuple[int, dict[str, int]]:
        """``delete()`` for async code."""
        return await sync_to_async(self.delete)(using=using, keep_parents=keep_parents)

    def full_clean(
        self,
        exclude: Iterable[str] | None = None,
        validate_unique: bool = True,
        validate_constraints: bool = True,
    ) -> None:
        """Django's validation; what a save would run into is an error, too, with code "conflict".

        So forms and the admin show it. Descendants are looked at when nothing else is wrong.
        """
        errors: dict[str, Any] = {}
        try:
            super().full_clean(exclude, validate_unique, validate_constraints)
        except ValidationError as error:
            errors = error.update_error_dict(errors)
        works = [] if errors else self._works_set_in_motion(None)
        try:
            conflicts.refuse_held(self, works, self._alias())
        except ValidationError as error:
            errors = error.update_error_dict(errors)
        if errors:
            raise ValidationError(errors)

    @property
    def async_task(self) -> AsyncTask | None:
        """The task that the last ``save()`` of this instance launched; None if it ran inline."""
        if self._async_task_key is None:
            return None
        tasks = AsyncTask.objects.using(lifecycle.tasks_alias())
        return tasks.filter(pk=self._async_task_key).first()

    @property
    def holder(self) -> AsyncTask | None:
        """The task that holds this object, or None."""
        alias = lifecycle.tasks_alias()
        held = get_store().holders(ObjectKey.all_of(self), alias)
        return AsyncTask.objects.using(alias).filter(pk__in=held.values()).first()

    def _works_set_in_motion(self, update_fields: frozenset[str] | None) -> list[WorkDeclaration]:
        """The works that this save may start."""
        declared = works_of(type(self))
        if not declared or update_fields == frozenset():
            return []
        is_created = {self.pk is None, self._state.adding or self.pk is None}
        works = [
            work
            for work in declared.values()
            if any(work.starts_on(created) for created in is_created)
        ]
        run = current_run()
        if run is not None and works and self.pk is not None:
            key = ObjectKey.of(self)
            works = [work for work in works if run.starts(key, work)]
        return works

    def _run_work(self, method: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any:
        """What ``book.recount()`` does."""
        return asked_for.run(self, method, args, kwargs, self._alias())

    def _enqueue_work(self, method: str) -> AsyncTask:
        """What ``book.recount.enqueue()`` does."""
        return asked_for.enqueue(self, method, self._alias())

    def _alias(self) -> str:
        return router.db_for_write(type(self), instance=self)
