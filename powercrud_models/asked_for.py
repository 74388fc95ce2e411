"""Work that is asked for by name: called, or enqueued, without a save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db.models import Model
from django.utils.translation import gettext

from powercrud_models import guard, items, lifecycle, runner
from powercrud_models.context import Mode, current_run, decide
from powercrud_models.deadlocks import attempts
from powercrud_models.declarations import work_by_method
from powercrud_models.exceptions import PowerCRUDError
from powercrud_models.models import AsyncTask
from powercrud_models.types import Said


def run(
    obj: Model, method: Callable[..., Any], args: Sequence[Any], kwargs: Any, alias: str
) -> Any:
    """Run the work now, under the locks of a save; ``method`` is the function bound to the object.

    Raises ConflictError when another task holds what it touches.
    """
    work = work_by_method(type(obj), method.__name__)
    run = current_run()
    if work is None or (run is not None and run.is_calling(obj, work)):
        return method(*args, **kwargs)  # called by the runner, or as super().recount()
    with (
        _locked_row(obj, alias, method.__name__),
        runner.inline_run(obj, [work], alias) as run,
    ):
        return items.call(run, obj, work, args, kwargs)


def enqueue(obj: Model, method: str, alias: str) -> AsyncTask:
    """Queue this work alone; with async off, run it and return a task that has ended.

    Raises ConflictError when another task holds what it touches.
    """
    mode = decide(skip_async=False, said_by=Said(obj, f"{method}.enqueue"))
    work = work_by_method(type(obj), method)
    assert work is not None, "the wrapper that calls this was found under the method's name"
    task_key = ""
    for attempt in attempts(alias, repeatable=mode is Mode.QUEUED):
        with attempt, _locked_row(obj, alias, f"{method}.enqueue"):
            if mode is Mode.QUEUED:
                task_key = lifecycle.launch([(obj, [work])], alias)
            else:
                task_key = runner.run_recorded(obj, work, alias)
    return AsyncTask.objects.using(alias).get(pk=task_key)


@contextmanager
def _locked_row(obj: Model, alias: str, method: str) -> Iterator[None]:
    """Lock the object's row, as a save would."""
    said_by = Said(obj, method)
    if obj.pk is None:
        raise PowerCRUDError(
            gettext("%(call)s: save the object first, nobody else can see it yet.")
            % {"call": said_by}
        )
    with guard.writing(guard.watched(obj, alias), alias, said_by):
        if not guard.lock_row(obj, alias):
            raise PowerCRUDError(
                gettext("%(call)s: the object has been deleted.") % {"call": said_by}
            )
        yield
