"""Say beside a model's method what a save sets in motion; queueing, locks and recovery follow.

All of it is loaded on first use: this module may be imported before Django's app registry is ready,
without django-q2, and costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from powercrud_models.context import acting_user, get_current_task, inline
    from powercrud_models.decorators import async_method, async_save, descendants
    from powercrud_models.exceptions import ConflictError, LeaseLost, PowerCRUDError, TaskCancelled
    from powercrud_models.holds import hold
    from powercrud_models.mixins.models import AsyncModelMixin
    from powercrud_models.progress_loop import progress
    from powercrud_models.querysets import AsyncQuerySet

_LAZY = {
    "AsyncModelMixin": "powercrud_models.mixins.models",
    "AsyncQuerySet": "powercrud_models.querysets",
    "ConflictError": "powercrud_models.exceptions",
    "LeaseLost": "powercrud_models.exceptions",
    "PowerCRUDError": "powercrud_models.exceptions",
    "TaskCancelled": "powercrud_models.exceptions",
    "acting_user": "powercrud_models.context",
    "async_method": "powercrud_models.decorators",
    "async_save": "powercrud_models.decorators",
    "descendants": "powercrud_models.decorators",
    "get_current_task": "powercrud_models.context",
    "hold": "powercrud_models.holds",
    "inline": "powercrud_models.context",
    "progress": "powercrud_models.progress_loop",
}

__all__ = [
    "AsyncModelMixin",
    "AsyncQuerySet",
    "ConflictError",
    "LeaseLost",
    "PowerCRUDError",
    "TaskCancelled",
    "acting_user",
    "async_method",
    "async_save",
    "descendants",
    "get_current_task",
    "hold",
    "inline",
    "progress",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
