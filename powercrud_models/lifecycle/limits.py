"""Limits: how often a task is taken up again before it has failed."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet
from django.utils.translation import gettext_noop

from powercrud_models.declarations import works_of
from powercrud_models.messages import Message
from powercrud_models.models import TaskItem
from powercrud_models.types import DEFAULT_OPTIONS, WorkDeclaration, WorkOptions

MAX_CONFLICTS = 12
"""How often a task is put back because another holds a descendant that it did not have before."""
HOLDER_DIED = gettext_noop(
    "The process that held these objects has died, or was stopped for too long."
)
"""What becomes of a task without items, a ``hold``, that gives no more sign of life."""


def todo_of(task_key: str, alias: str) -> QuerySet[TaskItem]:
    """What is left of a task, in the database that is written to: a replica may lag behind."""
    return TaskItem.objects.using(alias).filter(task_id=task_key, status=TaskItem.Status.TODO)


def reason_to_give_up(task_key: str, items: Sequence[TaskItem], recoveries: int, alias: str) -> str:
    """Why nobody shall take up the task of a process that died with these items left.

    Empty when somebody shall. ``recoveries``: how often that was done since an item ended.
    """
    if not items:
        is_hold = not TaskItem.objects.using(alias).filter(task_id=task_key).exists()
        return Message(HOLDER_DIED) if is_hold else ""
    if recoveries < min(options_of(item).recoveries for item in items):
        return ""
    said = gettext_noop(
        "The workers died that were at work on this task, or got no further: %(workers)s of them."
    )
    return Message(said, workers=recoveries + 1)


def options_of(item: TaskItem) -> WorkOptions:
    """How its work is run, as declared by now."""
    work = work_of(item)
    return work.options if work else DEFAULT_OPTIONS


def work_of(item: TaskItem) -> WorkDeclaration | None:
    """Its work; None when it is declared no more, or cannot be: whoever runs it says so."""
    try:
        return works_of(item.model_class).get(item.work) if item.model_class else None
    except ImproperlyConfigured:
        return None
