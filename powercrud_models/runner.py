"""What happens between claim and finish, and how work runs inline."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import connections, transaction
from django.db.models import Model
from django.utils.translation import gettext_noop

from powercrud_models import lifecycle
from powercrud_models.context import Run, Steps, current_run, fenced, running
from powercrud_models.deadlocks import attempts
from powercrud_models.declarations import works_of
from powercrud_models.exceptions import LeaseLost, TaskCancelled
from powercrud_models.fields import new_key
from powercrud_models.heartbeat import Heartbeat
from powercrud_models.launches import open_launch
from powercrud_models.messages import Message
from powercrud_models.models import TaskItem
from powercrud_models.stores import get_store
from powercrud_models.timeouts import call_limited
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
            _run_items(claim, run)
    except LeaseLost as lost:
        logger.warning("%s It is left to that one.", lost)
    lifecycle.sweep(thorough=False)


def _run_items(claim: lifecycle.Claim, run: Run) -> None:
    try:
        for item in claim.items:
            if lifecycle.is_cancelled(claim):
                raise TaskCancelled(claim.task)
            run.live.steps = Steps(item=item.pk)
            _run_item(claim, item, run)
    except TaskCancelled:
        lifecycle.cancel_rest(claim)


def _run_item(claim: lifecycle.Claim, item: TaskItem, run: Run) -> None:
    """Do the item, as often as its work may be tried, and record how it ended."""
    tries = 0
    while not _try_item(claim, item, run, is_last=tries >= _retries_of(item)):
        tries += 1


def _try_item(claim: lifecycle.Claim, item: TaskItem, run: Run, *, is_last: bool) -> bool:
    """Whether the item has ended: it is done, or it failed for the last time."""
    try:
        _do(claim, item, run)
    except LeaseLost:
        raise
    except TaskCancelled:
        if lifecycle.has_ended(claim, item):  # an on_commit callback raised it
            return True
        raise
    except CannotRun as error:
        _fail(claim, item, error.message)
    except Exception:  # the outermost frame of work, which may raise anything
        if lifecycle.has_ended(claim, item):  # it raised after the commit
            logger.exception("%s is done, but an on_commit callback of its work failed", item)
            return True
        logger.exception("%s failed%s", item, "" if is_last else "; it is tried again")
        if not is_last:
            return False
        _fail(claim, item, f"{item}\n{traceback.format_exc()}")
    return True


def _fail(claim: lifecycle.Claim, item: TaskItem, error: str) -> None:
    with transaction.atomic(using=claim.alias):
        lifecycle.hold_fence(claim)
        lifecycle.end_item(claim, item, TaskItem.Status.FAILED, error=error)


def _do(claim: lifecycle.Claim, item: TaskItem, run: Run) -> None:
    obj, work = _load(item, claim.alias)
    if work.options.atomic:
        for attempt in attempts(claim.alias):
            # the callbacks that follow the commit are no part of the run
            with attempt, transaction.atomic(using=claim.alias):
                lifecycle.hold_fence(claim)
                with running(run), fenced(claim):
                    returned = _call_in_time(run, obj, work, item)
                lifecycle.end_item(claim, item, TaskItem.Status.DONE, returned=returned)
            if attempt.is_to_be_repeated:  # what it did to the object is undone
                obj, work = _load(item, claim.alias)
    else:
        with running(run):
            returned = _call_in_time(run, obj, work, item)
        with transaction.atomic(using=claim.alias):
            lifecycle.hold_fence(claim)
            lifecycle.end_item(claim, item, TaskItem.Status.DONE, returned=returned)


def _call_in_time(run: Run, obj: Model, work: WorkDeclaration, item: TaskItem) -> Any:
    return call_limited(work.options.timeout, str(item), partial(call, run, obj, work))


def _retries_of(item: TaskItem) -> int:
    work = works_of(item.model_class).get(item.work) if item.model_class else None
    return work.options.retries if work else 0


def _load(item: TaskItem, alias: str) -> tuple[Model, WorkDeclaration]:
    model = item.model_class
    work = works_of(model).get(item.work) if model else None
    if model is None or work is None:
        said = gettext_noop(
            "%(model)s declares no work named “%(work)s” any more. If the method was renamed, keep "
            "its identity: @async_save(name='%(work)s')."
        )
        raise CannotRun(Message(said, model=item.model, work=item.work))
    try:
        return model._base_manager.using(alias).get(pk=python_pk(model, item.object_id)), work
    except ObjectDoesNotExist:
        said = gettext_noop("%(model)s %(pk)s was deleted before “%(work)s” could run on it.")
        name = Message.of(model._meta.verbose_name or "")
        raise CannotRun(Message(said, model=name, pk=item.object_id, work=item.work)) from None


class CannotRun(Exception):
    """No try can do this item; the message says why."""

    def __init__(self, message: Message) -> None:
        super().__init__(message)
        self.message = message


def call(
    run: Run, obj: Model, work: WorkDeclaration, args: Sequence[Any] = (), kwargs: Any = None
) -> Any:
    """Call the work as part of this run."""
    step = (ObjectKey.of(obj), work.name)
    run.active.append(step)
    try:
        return getattr(obj, work.method)(*args, **(kwargs or {}))
    finally:
        run.active.remove(step)


@contextmanager
def inline_run(obj: Model, works: Sequence[WorkDeclaration], alias: str) -> Iterator[Run]:
    """Hold locks on all that these works of one object touch, and run them in the block.

    Inside a task the locks join the task's. Outside they last for the block; when the open
    transaction has launched a task, they join that one's.

    Raises ConflictError when another task holds one of the objects.
    """
    run, launch = current_run(), open_launch(alias)
    if run is not None and run.is_joined_by(connections[alias]):
        _lock(run, obj, works, alias)
        with run.planning(obj, works):
            yield run
        return
    owner = launch.task_key if launch else new_key()
    if run is None:
        run = Run(owner=owner, connection=connections[alias])
    else:  # on a connection of its own: its locks go with that one's transaction
        run = replace(run, owner=owner, connection=connections[alias])
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
    with running(run), fenced(claim):
        returned = call(run, obj, work)
    lifecycle.end_item(claim, claim.items[0], TaskItem.Status.DONE, returned=returned)
    return task_key
