"""What happens between claim and finish, and how work runs inline."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import Model

from powercrud_models import lifecycle
from powercrud_models.context import Run, Steps, current_run, running
from powercrud_models.deadlocks import attempts
from powercrud_models.declarations import works_of
from powercrud_models.exceptions import LeaseLost
from powercrud_models.fields import new_key
from powercrud_models.heartbeat import Heartbeat
from powercrud_models.launches import open_launch
from powercrud_models.models import TaskItem
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey, WorkDeclaration, model_label, python_pk

logger = logging.getLogger("powercrud_models")


def run_task(task_key: str) -> None:
    """Claim the task and do what is left of it; a duplicate delivery finds nothing to claim."""
    claim = lifecycle.claim(task_key)
    if claim is None:
        return
    run = Run(owner=task_key, claim=claim)
    run.planned.update(
        (ObjectKey(model_label(item.model_class), item.object_id), item.work)
        for item in claim.items
        if item.model_class
    )
    try:
        with Heartbeat(claim, run.live):
            for item in claim.items:
                run.live.steps = Steps(item=item.pk)
                _run_item(claim, item, run)
    except LeaseLost as lost:
        logger.warning("%s It is left to that one.", lost)
    lifecycle.sweep(thorough=False)


def _run_item(claim: lifecycle.Claim, item: TaskItem, run: Run) -> None:
    try:
        obj, work = _load(item, claim.alias)
        run.fenced = work.options.atomic
        if work.options.atomic:
            for attempt in attempts(claim.alias):
                # the callbacks that follow the commit are no part of the run
                with attempt, transaction.atomic(using=claim.alias):
                    lifecycle.hold_fence(claim)
                    with running(run):
                        returned = call(run, obj, work)
                    lifecycle.end_item(claim, item, TaskItem.Status.DONE, returned=returned)
                if attempt.is_to_be_repeated:  # what it did to the object is undone
                    obj, work = _load(item, claim.alias)
        else:
            with running(run):
                returned = call(run, obj, work)
            with transaction.atomic(using=claim.alias):
                lifecycle.hold_fence(claim)
                lifecycle.end_item(claim, item, TaskItem.Status.DONE, returned=returned)
    except LeaseLost:
        raise
    except Exception:  # the outermost frame of work, which may raise anything
        if lifecycle.has_ended(claim, item):  # it raised after the commit
            logger.exception("%s is done, but an on_commit callback of its work failed", item)
            return
        logger.exception("%s failed", item)
        with transaction.atomic(using=claim.alias):
            lifecycle.hold_fence(claim)
            lifecycle.end_item(
                claim, item, TaskItem.Status.FAILED, error=f"{item}\n{traceback.format_exc()}"
            )


def _load(item: TaskItem, alias: str) -> tuple[Model, WorkDeclaration]:
    model = item.model_class
    work = works_of(model).get(item.work) if model else None
    if model is None or work is None:
        raise LookupError(
            f"{item.model} declares no work named {item.work!r} any more. If the method was "
            f"renamed, keep its identity: @async_save(name={item.work!r})."
        )
    try:
        return model._base_manager.using(alias).get(pk=python_pk(model, item.object_id)), work
    except ObjectDoesNotExist:
        raise LookupError(
            f"{model._meta.verbose_name} {item.object_id} was deleted before {item.work!r} could "
            "run on it."
        ) from None


def call(
    run: Run, obj: Model, work: WorkDeclaration, args: Sequence[Any] = (), kwargs: Any = None
) -> Any:
    """Call the work as part of this run."""
    step = (ObjectKey.of(obj), work.name)
    run.active.append(step)
    try:
        return getattr(obj, work.method)(*args, **(kwargs or {}))
    finally:
        run.active.pop()


@contextmanager
def inline_run(obj: Model, works: Sequence[WorkDeclaration], alias: str) -> Iterator[Run]:
    """Hold locks on all that these works of one object touch, and run them in the block.

    Inside a task the locks join the task's. Outside they last for the block; when the open
    transaction has launched a task, they join that one's.

    Raises ConflictError when another task holds one of the objects.
    """
    run, launch = current_run(), open_launch(alias)
    if run is not None:
        _lock(run, obj, works, alias)
        with run.planning(obj, works):
            yield run
        return
    run = Run(owner=launch.task_key if launch else new_key())
    with running(run), run.planning(obj, works):
        _lock(run, obj, works, alias)
        yield run
    if launch is None and alias == lifecycle.tasks_alias():
        # an error has undone them with the caller's savepoint
        get_store().release(run.owner, alias)


def _lock(run: Run, obj: Model, works: Sequence[WorkDeclaration], alias: str) -> None:
    if alias != lifecycle.tasks_alias():
        return  # nobody can hold what is on another database: see `launch`
    keys = lifecycle.lock_rows([(obj, works)], alias, owner=run.owner)
    get_store().acquire(run.owner, keys, alias)


def run_recorded(obj: Model, work: WorkDeclaration, alias: str) -> str:
    """Run the work now, in the caller's transaction, as a task of which the record stays.

    This is ``enqueue`` with async off: its caller gets a task that has ended. Errors of the work
    are the caller's.
    """
    task_key = lifecycle.launch([(obj, [work])], alias, queued=False)
    claim = lifecycle.claim(task_key)
    assert claim is not None, "nobody else sees the task before this transaction commits"
    run = Run(owner=task_key, claim=claim)
    with running(run):
        returned = call(run, obj, work)
    lifecycle.end_item(claim, claim.items[0], TaskItem.Status.DONE, returned=returned)
    return task_key
