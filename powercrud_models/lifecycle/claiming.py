"""Claim: one worker takes the task, raises its fence, and looks again at what it touches."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet
from django.utils.translation import gettext_noop

from powercrud_models.clock import DatabaseClock, clock_plus
from powercrud_models.compiled import together
from powercrud_models.conf import get_conf
from powercrud_models.deadlocks import attempts
from powercrud_models.declarations import works_of
from powercrud_models.exceptions import ConflictError
from powercrud_models.lifecycle import statements
from powercrud_models.lifecycle.ending import Claim, finish
from powercrud_models.lifecycle.launching import lock_rows, tasks_alias
from powercrud_models.lifecycle.limits import MAX_CONFLICTS, options_of, reason_to_give_up, work_of
from powercrud_models.lifecycle.returning import put_back
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask, TaskItem, TaskPulse
from powercrud_models.resolution import Target
from powercrud_models.sessions import wait_for_commit
from powercrud_models.signals import announce, task_recovered, task_started
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey, WorkDeclaration, python_pk

logger = logging.getLogger("powercrud_models")

Status = AsyncTask.Status


def claim(task_key: str) -> Claim | None:
    """Take the task, or return None: another worker has it, it has ended, or must wait.

    Descendants are looked up again: what came since the launch joins the locks; what another
    task holds sends this one back to wait.
    """
    alias, taken = tasks_alias(), None
    for attempt in attempts(alias):
        with attempt:
            taken = _claim(task_key, alias)
    return taken


def _claim(task_key: str, alias: str) -> Claim | None:
    connection = connections[alias]
    # by a crash of the server; not where others have written in the same transaction
    may_be_forgotten = not connection.in_atomic_block and connection.get_autocommit()
    with transaction.atomic(using=alias):
        task, items, is_orphan = _take(task_key, alias, may_be_forgotten=may_be_forgotten)
        if task is None:
            return None
        start_pulse(task, alias)
        if may_be_forgotten and not all(options_of(item).atomic for item in items):
            wait_for_commit(alias)  # only atomic items cannot end twice: see `end_item`
        taken = Claim(task=task, fence=task.fence, items=items, alias=alias)
        error = ""
        if is_orphan:
            announce(task_recovered, task_key, alias)
            error = reason_to_give_up(task_key, items, task.recoveries - 1, alias)
        announce(task_started, task_key, alias)
        if task.payload_version != AsyncTask.PAYLOAD_VERSION:
            error = _wrong_version(task)
        if error or not items:
            finish(taken, error=error)
            return None
        return taken if _joins_what_came(taken) else None


def _joins_what_came(taken: Claim) -> bool:
    """Lock the descendants that came since the launch; False when the task cannot run for them.

    Where locks may get lost, those of the launch are looked after as well.
    """
    task, alias = taken.task, taken.alias
    may_be_lost = not get_store().keeps_rows
    touching = [item for item in taken.items if may_be_lost or _touches_others(item)]
    if not touching:
        return True
    try:
        with transaction.atomic(using=alias):
            targets = targets_of(touching, alias)
            get_store().acquire(task.key, lock_rows(targets, alias, task.key), alias)
    except ConflictError as conflict:
        if task.conflicts >= MAX_CONFLICTS:  # two tasks may each hold what the other needs
            finish(taken, error=conflict.as_message())
        else:
            put_back(taken, reason=conflict.as_message())
    except DatabaseError:
        raise
    except Exception:  # a method that returns descendants may raise anything
        logger.exception("Task %s cannot be claimed", task.key)
        finish(taken, error=traceback.format_exc())
    else:
        return True
    return False


def expired(alias: str) -> Q:
    """Tasks whose worker's lease has run out."""
    alive = TaskPulse.objects.using(alias).filter(
        task_id=OuterRef("pk"), lease_until__gte=DatabaseClock()
    )
    return Q(~Exists(alive), status=Status.IN_PROGRESS)


def _take(
    task_key: str, alias: str, *, may_be_forgotten: bool
) -> tuple[AsyncTask | None, list[TaskItem], bool]:
    """Take a pending task, or that of a dead worker, with what is left to do.

    The last value is whether it was that of a dead worker.
    """
    todo = statements.TODO.bind(alias, may_be_forgotten, key=task_key)
    taken, rows = statements.take(alias, task_key, todo)
    if taken:
        key, label, *rest = taken[0]
        label = AsyncTask._meta.get_field("label").from_db_value(label)
        task = AsyncTask.from_db(alias, statements.OF_TASK, [key, label, *rest])
        return task, _items(rows, alias), False
    orphan = AsyncTask.objects.using(alias).filter(expired(alias), pk=task_key)
    if at_work(orphan, alias):
        return None, [], False
    if not orphan.update(**statements.BEGUN, recoveries=F("recoveries") + 1):
        return None, [], False
    [rows] = together(alias, todo)  # nobody else can end one of them any more
    return AsyncTask.objects.using(alias).get(pk=task_key), _items(rows, alias), True


def _items(rows: list[tuple[Any, ...]], alias: str) -> list[TaskItem]:
    names = statements.OF_ITEM
    return [TaskItem.from_db(alias, names, row[: len(names)]) for row in rows]


def at_work(rows: QuerySet[AsyncTask], alias: str) -> bool:
    """Whether a worker has the task's row locked; if not, this transaction has it from now on.

    Waiting for the row would be waiting for the worker, which may be a stopped process.
    """
    if not connections[alias].features.has_select_for_update_skip_locked:
        return False
    return not rows.select_for_update(skip_locked=True).values_list("pk", flat=True).first()


def start_pulse(task: AsyncTask, alias: str) -> None:
    """Give the first sign of life of whoever has the task in hand from now on."""
    if task.fence == 1:
        statements.FIRST_PULSE.change(alias, get_conf().LEASE_SECONDS, key=task.key)
        return
    new = {
        "fence": task.fence,
        "lease_until": clock_plus(get_conf().LEASE_SECONDS),
        "beat_at": DatabaseClock(),
        "item_id": None,
        "current": 0,
        "total": None,
    }
    pulses = TaskPulse.objects.using(alias)
    if not pulses.filter(pk=task.key).update(**new):
        pulses.create(task_id=task.key, **new)


def _touches_others(item: TaskItem) -> bool:
    """Whether there may be descendants by now that were not there at the launch."""
    work = work_of(item)
    return work is not None and work.has_descendants


def targets_of(items: Sequence[TaskItem], alias: str) -> list[Target]:
    """The objects of the items with their works; those that are gone are left out."""
    wanted: dict[type[Model], dict[str, list[WorkDeclaration]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for item in items:
        model = item.model_class
        if model is not None and item.work in works_of(model):
            wanted[model][item.object_id].append(works_of(model)[item.work])
    return [
        (obj, wanted[model][ObjectKey.of(obj).pk])
        for model, pks in wanted.items()
        for obj in model._base_manager.using(alias)
        .in_bulk([python_pk(model, pk) for pk in pks])
        .values()
    ]


def _wrong_version(task: AsyncTask) -> Message:
    if task.payload_version > AsyncTask.PAYLOAD_VERSION:
        said = gettext_noop(
            "Launched with payload version %(launched)s; this worker reads version %(reads)s. "
            "Upgrade powercrud_models on the side of the worker."
        )
    else:
        said = gettext_noop(
            "Launched with payload version %(launched)s; this worker reads version %(reads)s. "
            "Upgrade powercrud_models on the side of the launching process."
        )
    return Message(said, launched=task.payload_version, reads=AsyncTask.PAYLOAD_VERSION)
