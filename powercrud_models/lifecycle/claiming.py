"""Claim: one worker takes the task, raises its fence, and looks again at what it touches."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Sequence

from django.db import DatabaseError, connections, transaction
from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet
from django.utils.translation import gettext_noop

from powercrud_models.clock import DatabaseClock, clock_plus
from powercrud_models.conf import get_conf
from powercrud_models.declarations import works_of
from powercrud_models.exceptions import ConflictError
from powercrud_models.lifecycle.ending import Claim, finish
from powercrud_models.lifecycle.launching import lock_rows, tasks_alias
from powercrud_models.lifecycle.limits import MAX_CONFLICTS, reason_to_give_up, todo_of
from powercrud_models.lifecycle.returning import put_back
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask, TaskItem, TaskPulse
from powercrud_models.resolution import Target
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
    alias = tasks_alias()
    with transaction.atomic(using=alias):
        taken_from = _take(task_key, alias)
        if taken_from is None:
            return None
        task = AsyncTask.objects.using(alias).get(pk=task_key)
        start_pulse(task, alias)
        items = list(todo_of(task_key, alias).order_by("pk"))
        taken = Claim(task=task, fence=task.fence, items=items, alias=alias)
        error = ""
        if taken_from == Status.IN_PROGRESS:
            announce(task_recovered, task_key, alias)
            error = reason_to_give_up(task_key, items, task.recoveries - 1, alias)
        announce(task_started, task_key, alias)
        if task.payload_version != AsyncTask.PAYLOAD_VERSION:
            error = _wrong_version(task)
        if error or not items:
            finish(taken, error=error)
            return None
        try:
            touching = [item for item in items if _touches_others(item)]
            if touching:
                with transaction.atomic(using=alias):
                    targets = targets_of(touching, alias)
                    get_store().acquire(task_key, lock_rows(targets, alias, task_key), alias)
        except ConflictError as conflict:
            if task.conflicts >= MAX_CONFLICTS:  # two tasks may each hold what the other needs
                finish(taken, error=conflict.as_message())
            else:
                put_back(taken, reason=conflict.as_message())
            return None
        except DatabaseError:
            raise
        except Exception:  # a method that returns descendants may raise anything
            logger.exception("Task %s cannot be claimed", task_key)
            finish(taken, error=traceback.format_exc())
            return None
        return taken


def expired(alias: str) -> Q:
    """Tasks whose worker's lease has run out."""
    alive = TaskPulse.objects.using(alias).filter(
        task_id=OuterRef("pk"), lease_until__gte=DatabaseClock()
    )
    return Q(~Exists(alive), status=Status.IN_PROGRESS)


def _take(task_key: str, alias: str) -> AsyncTask.Status | None:
    """Take a pending task, or that of a dead worker; return its status before, None for neither."""
    rows = AsyncTask.objects.using(alias).filter(pk=task_key)
    if at_work(rows, alias):
        return None
    begun = {
        "status": Status.IN_PROGRESS,
        "fence": F("fence") + 1,
        "attempts": F("attempts") + 1,
        "sends": 0,
        "started_at": DatabaseClock(),
        "resend_at": DatabaseClock(),
    }
    if rows.filter(status=Status.PENDING).update(**begun):
        return Status.PENDING
    if rows.filter(expired(alias)).update(**begun, recoveries=F("recoveries") + 1):
        return Status.IN_PROGRESS
    return None


def at_work(rows: QuerySet[AsyncTask], alias: str) -> bool:
    """Whether a worker has the task's row locked; if not, this transaction has it from now on.

    Waiting for the row would be waiting for the worker, which may be a stopped process.
    """
    if not connections[alias].features.has_select_for_update_skip_locked:
        return False
    return not rows.select_for_update(skip_locked=True).values_list("pk", flat=True).first()


def start_pulse(task: AsyncTask, alias: str) -> None:
    """Give the first sign of life of whoever has the task in hand from now on."""
    new = {
        "fence": task.fence,
        "lease_until": clock_plus(get_conf().LEASE_SECONDS),
        "beat_at": DatabaseClock(),
        "item_id": None,
        "current": 0,
        "total": None,
    }
    pulses = TaskPulse.objects.using(alias)
    is_first = task.fence == 1
    if is_first or not pulses.filter(pk=task.key).update(**new):
        pulses.create(task_id=task.key, **new)


def _touches_others(item: TaskItem) -> bool:
    """Whether there may be descendants by now that were not there at the launch."""
    work = works_of(item.model_class).get(item.work) if item.model_class else None
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
