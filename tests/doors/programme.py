"""Rows for the tests, tasks that hold them, and what became of both."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model

from powercrud_models.models import AsyncTask
from powercrud_models.types import ObjectKey
from tests.deliveries import deliver, held_by, lose_messages
from tests.doors.models import Concert, Festival, Musician, Named, Piece

N = TypeVar("N", bound=Named)


def new(model: type[N], name: str = "new", **fields: Any) -> N:
    """A row that no save has written, so that no work has been started for it."""
    [obj] = model._base_manager.bulk_create([model(name=name, **fields)])
    return obj


def new_concert(
    *, festival: Festival | None = None, musicians: list[Musician] | None = None
) -> Any:
    concert = new(Concert, "opening", festival=festival or new(Festival, "spring"))
    concert.musicians.set(musicians or [])
    return concert


def new_programme() -> tuple[Festival, Concert, Piece]:
    """A festival with one concert of one piece."""
    festival = new(Festival, "spring")
    concert = new_concert(festival=festival)
    return festival, concert, new(Piece, "overture", concert=concert, minutes=8)


def held(obj: Named) -> AsyncTask:
    """A task that holds this object alone, and waits for a worker that does not come."""
    task = obj.check_in.enqueue()
    lose_messages()
    return task


def keys(*objects: Model) -> set[ObjectKey]:
    return {ObjectKey.of(obj) for obj in objects}


def works(task: AsyncTask | None) -> list[tuple[str, str]]:
    """The works that the task does, each with the name of its object's model."""
    assert task is not None
    items = task.items.order_by("pk").values_list("model", "work")
    return [(model.removeprefix("doors."), work) for model, work in items]


def the_task() -> AsyncTask:
    """The one task that there is."""
    return AsyncTask.objects.get()


def finished(task: AsyncTask | None) -> Any:
    """Let a worker take the task up; return what its works returned."""
    assert task is not None
    deliver()
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.SUCCESS, task.error
    assert not held_by(task.key)
    return task.result(timeout=0)


def names(model: type[Named]) -> list[str]:
    """The names in the database."""
    return list(model._base_manager.order_by("pk").values_list("name", flat=True))


def nothing_started() -> bool:
    return not AsyncTask.objects.exists()
