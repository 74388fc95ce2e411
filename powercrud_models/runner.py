"""What happens between claim and finish, and how work runs inline."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from django.db import Error, connections
from django.db.models import Model

from powercrud_models import lifecycle
from powercrud_models.conf import get_conf
from powercrud_models.context import Run, Steps, current_run, fenced, running
from powercrud_models.exceptions import LeaseLost, TaskCancelled
from powercrud_models.fields import new_key
from powercrud_models.heartbeat import Heartbeat
from powercrud_models.items import SessionLost, call, run_item
from powercrud_models.launches import open_launch
from powercrud_models.models import AsyncTask, TaskItem
from powercrud_models.sessions import end_if_lost
from powercrud_models.stopping import stopping
from powercrud_models.stores import get_store
from powercrud_models.sweeper import Sweeper
from powercrud_models.types import ObjectKey, WorkDeclaration, model_label

logger = logging.getLogger("powercrud_models")


def run_task(task_key: str) -> None:
    """Claim the task and do what is left of it; a duplicate delivery finds nothing to claim.

    Then a task whose worker has died is taken up, without a way through the queue: so long as
    this call has not taken long, for the queue may limit its time.
    """
    in_time = time.monotonic() + get_conf().LEASE_SECONDS
    _run(task_key)

    def take_up(orphan: AsyncTask) -> bool:
        return time.monotonic() < in_time and not stopping.is_due and _run(orphan.key)

    Sweeper.after_a_task(take_up)


def _run(task_key: str) -> bool:
    """Whether the task could be claimed; then it has been run, or left to others."""
    claim = lifecycle.claim(task_key)
    if claim is None:
        return False
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
    except SessionLost:
        logger.exception("Task %s is left until its lease runs out", task_key)
    except Exception:  # not what is to stop the process: the queue tells of it, the lease recovers
        raise
    except BaseException:  # what is to stop the process, which may be done with it soon
        _give_up(claim, traceback.format_exc())
        raise
    return True


def _run_items(claim: lifecycle.Claim, run: Run) -> None:
    pauses: list[float] = []
    try:
        for item in claim.items:
            # a first claim has just made the pulse: it is too early to ask whether to cancel
            is_untouched = claim.fence == 1 and item is claim.items[0]
            if not is_untouched and lifecycle.is_cancelled(claim):
                raise TaskCancelled(claim.task)
            if stopping.is_due:
                lifecycle.give_back(claim)
                return
            run.live.steps = Steps(item=item.pk)
            is_last = item is claim.items[-1] and not pauses
            pause = run_item(claim, item, run, ends_task=is_last)
            if pause is not None:
                pauses.append(pause)
    except TaskCancelled:
        lifecycle.cancel_rest(claim)
    else:
        if any(pauses):
            lifecycle.put_off(claim, max(pauses))
        elif pauses:  # there is no pause, but the process is to stop
            lifecycle.give_back(claim)


def _give_up(claim: lifecycle.Claim, error: str) -> None:
    end_if_lost(connections[claim.alias])  # it may have been interrupted in a query
    try:
        lifecycle.give_up(claim, error)
    except (Error, LeaseLost):
        logger.exception("Task %s is left until its lease runs out", claim.task.key)


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
    lifecycle.end_item(
        claim, claim.items[0], TaskItem.Status.DONE, returned=returned, ends_task=True
    )
    return task_key
