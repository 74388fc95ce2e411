"""Who runs tasks. A queue is a wake-up call that carries a task's key."""

from __future__ import annotations

from powercrud_models.conf import get_conf
from powercrud_models.queues.base import Queue
from powercrud_models.queues.django_q2 import DjangoQ2Queue, missing
from powercrud_models.queues.immediate import ImmediateQueue
from powercrud_models.queues.testing import SilentQueue


def async_enabled() -> bool:
    """Whether anything runs in the background: with ``ASYNC_ENABLED``, and a queue to run it."""
    conf = get_conf()
    if not conf.ASYNC_ENABLED or conf.QUEUE == "inline":
        return False
    return conf.QUEUE != "auto" or missing() is None


def get_queue() -> Queue:
    """The queue in force while ``async_enabled()``.

    Raises ImproperlyConfigured when the settings name django-q2 and it cannot be used.
    """
    if get_conf().QUEUE == "immediate":
        return ImmediateQueue()
    if get_conf().QUEUE == "testing":
        return SilentQueue()
    return DjangoQ2Queue()
