"""What a test can say about queued work, locks and refusals; a failure says what it found."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from django.db.models import Model

from powercrud_models import lifecycle
from powercrud_models.declarations import works_of
from powercrud_models.exceptions import Conflict, ConflictError
from powercrud_models.models import AsyncTask, TaskItem
from powercrud_models.stores import get_store
from powercrud_models.testing.running import NOT_STARTED
from powercrud_models.types import ObjectKey, model_label

MOST_SHOWN = 20
"""How many tasks or objects a message lists."""


def assert_queued(obj: Model, work: str | None = None) -> None:
    """Assert that work on the object waits for a worker: this work, or any.

    What has run is queued no more; ``run_queued()`` returns it.

    Raises AssertionError, and ValueError when the model declares no such work.

    >>> assert_queued(shelf, "recount")
    """
    if not _queued_items(obj, work):
        raise AssertionError(f"{_wanted(obj, work)} is not queued. {_what_is_queued()}")


def assert_not_queued(obj: Model | None = None, work: str | None = None) -> None:
    """Assert that no such work waits for a worker; without an object, that none does at all.

    >>> assert_not_queued(shelf, "recount")
    >>> assert_not_queued()
    """
    if _queued_items(obj, work):
        wanted = _wanted(obj, work) if obj else "A task"
        raise AssertionError(f"{wanted} is queued. {_what_is_queued()}")


def _queued_items(obj: Model | None, work: str | None) -> list[TaskItem]:
    alias = lifecycle.tasks_alias()
    items = TaskItem.objects.using(alias).filter(task__status__in=NOT_STARTED).order_by("pk")
    if obj is None:
        return list(items)
    key = ObjectKey.of(obj)
    if work is not None:
        items = items.filter(work=_stored_name(obj, work))
    return [
        item
        for item in items.filter(object_id=key.pk)
        if item.model_class and model_label(item.model_class) == key.model
    ]


def _stored_name(obj: Model, work: str) -> str:
    """The name under which this work is stored, given that or the method's; a slip is named."""
    works = works_of(type(obj)).values()
    for each in works:
        if work in (each.name, each.method):
            return each.name
    declared = ", ".join(each.name for each in works) or "none"
    raise ValueError(f"{type(obj).__name__} declares no work named {work!r}; it has: {declared}.")


def _wanted(obj: Model, work: str | None) -> str:
    return f"{work or 'Work'} of {_named(ObjectKey.of(obj))}"


def _what_is_queued() -> str:
    shown = [f"{item.work} of {item.model} {item.object_id}" for item in _queued_items(None, None)]
    return f"Queued is: {_listed(shown)}."


def assert_locked(*objects: Model, by: AsyncTask | None = None) -> None:
    """Assert that each of the objects is held, by this task if one is given.

    >>> shelf.save()
    >>> assert_locked(shelf, *shelf.volumes.all(), by=shelf.async_task)
    """
    if not objects:
        raise TypeError("assert_locked() takes the objects that are to be locked: there are none.")
    holders = _holders(objects)
    free = [_named(key) for key in map(ObjectKey.of, objects) if key not in holders]
    if free:
        raise AssertionError(f"Not locked: {_listed(free)}. {_what_is_locked()}")
    others = {key: holder for key, holder in holders.items() if by and holder != by.key}
    if by and others:
        raise AssertionError(f"Held by others than {by.describe()}: {_held(others)}.")


def assert_not_locked(*objects: Model) -> None:
    """Assert that none of the objects is held; without objects, that nothing is held at all.

    >>> run_queued()
    >>> assert_not_locked()
    """
    holders = _holders(objects) if objects else _all_holders()
    if holders:
        raise AssertionError(f"Locked: {_held(holders)}.")


def _holders(objects: Collection[Model]) -> dict[ObjectKey, str]:
    alias = lifecycle.tasks_alias()
    return get_store().holders({ObjectKey.of(obj) for obj in objects}, alias)


def _all_holders() -> dict[ObjectKey, str]:
    alias = lifecycle.tasks_alias()
    unfinished = AsyncTask.objects.using(alias).filter(status__in=AsyncTask.UNFINISHED)
    store = get_store()
    return {key: task.key for task in unfinished for key in sorted(store.held(task.key, alias))}


def _what_is_locked() -> str:
    return f"Locked is: {_held(_all_holders())}."


def _held(holders: Mapping[ObjectKey, str]) -> str:
    labels = AsyncTask.objects.using(lifecycle.tasks_alias()).in_bulk(set(holders.values()))
    return _listed(
        [f"{_named(key)} by “{labels.get(holder, holder)}”" for key, holder in holders.items()]
    )


class Refusal:
    """What ``assert_refused`` has caught, once its block has ended."""

    error: ConflictError

    @property
    def conflicts(self) -> list[Conflict]:
        return self.error.conflicts


@contextmanager
def assert_refused(*objects: Model) -> Iterator[Refusal]:
    """Assert that the block raises ConflictError, for these objects if any are given.

    >>> with assert_refused(volume) as refusal:
    ...     volume.save()
    >>> refusal.conflicts[0].holder.label
    'recount shelf 1'
    """
    refusal = Refusal()
    try:
        yield refusal
    except ConflictError as error:
        refusal.error = error
    else:
        raise AssertionError(f"Nothing was refused. {_what_is_locked()}")
    refused = {ObjectKey.from_pk(each.model, each.pk) for each in refusal.conflicts}
    others = [_named(key) for key in map(ObjectKey.of, objects) if key not in refused]
    if others:
        raise AssertionError(
            f"Refused, but not for {_listed(others)}: {refusal.error}"
        ) from refusal.error


def _named(key: ObjectKey) -> str:
    return f"{key.model} {key.pk}"


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_SHOWN
    shown = ", ".join(names[:MOST_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown or "nothing"
