"""Hands the task to django-q2's ``qcluster``: the only file that imports django-q2.

It does so inside functions: importing ``django_q`` without its settings raises or warns.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from multiprocessing import current_process
from types import FrameType
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from powercrud_models.conf import get_conf
from powercrud_models.queues.base import RUN_TASK, Queue, WorkerProcess


@cache
def _installed() -> bool:
    return find_spec("django_q") is not None


def missing() -> str | None:
    """What keeps django-q2 from being used, with what to do about it; None when nothing does."""
    if not _installed():
        return 'django-q2 is not installed: pip install "django-powercrud-models[q2]".'
    if not apps.is_installed("django_q"):
        return "'django_q' is not in INSTALLED_APPS: add it, and run migrate."
    if not hasattr(settings, "Q_CLUSTER"):
        return "Q_CLUSTER is not in the settings: add it, for example {'orm': 'default'}."
    return None


class DjangoQ2Queue(Queue):
    """A message with the key; django-q2's own record of the task is not needed, so not kept."""

    def __init__(self) -> None:
        reason = missing()
        if reason is not None:
            queue = get_conf().QUEUE
            raise ImproperlyConfigured(f"POWERCRUD_SETTINGS['QUEUE'] is {queue!r}, but {reason}")

    def send(self, task_key: str) -> None:
        from django_q.tasks import async_task

        options = {"save": False, "ack_failure": True, "broker": _broker()}
        async_task(RUN_TASK, task_key, q_options=options)

    def has_messages(self) -> bool:
        return bool(_broker().queue_size())

    def commits_with(self, alias: str) -> bool:
        from django_q.conf import Conf

        other_broker = Conf.BROKER_CLASS or Conf.IRON_MQ or Conf.SQS or Conf.SYNC
        return bool(alias == Conf.ORM and not other_broker)


def _broker() -> Any:
    """The broker; that of Redis is kept, with its pool of connections."""
    from django_q.brokers import get_broker
    from django_q.conf import Conf

    other_broker = Conf.BROKER_CLASS or Conf.IRON_MQ or Conf.SQS or Conf.ORM or Conf.MONGO
    return get_broker() if other_broker else _redis_broker(repr(Conf.REDIS), Conf.CLUSTER_NAME)


@cache
def _redis_broker(server: str, name: str) -> Any:
    from django_q.brokers import get_broker

    return get_broker(name)


def when_a_worker_begins(call: Callable[[WorkerProcess], None]) -> None:
    """Have this called in each worker process that a ``qcluster`` starts."""
    from django_q.signals import post_spawn

    begun: set[int] = set()

    def tell(**_: Any) -> None:
        # with its option `sync` django-q2 sends the signal in any process, for each call; but only
        # to its workers it gives a timer
        if not hasattr(current_process(), "timer") or os.getpid() in begun:
            return
        begun.add(os.getpid())
        call(WorkerProcess(_cluster_stops(), _is_out_of_time))

    post_spawn.connect(tell, weak=False, dispatch_uid="powercrud_models")


def _cluster_stops() -> Callable[[], bool]:
    """How to ask whether the cluster stops.

    Its sentinel, which knows, does not tell the workers. But they are forked from it: it stands
    on their stacks. Where they are not, they learn of it when they are told to stop themselves.
    """
    from django_q.cluster import Sentinel

    frame: FrameType | None = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, Sentinel):
            return partial(_is_set, caller.stop_event)
        frame = frame.f_back
    return lambda: False


def _is_set(event: Any) -> bool:
    """Whether it is set, without the lock that ``is_set()`` takes: all processes share that one.

    Who is killed with it in hand would stop the cluster for ever. Where the event is made in
    another way, it is asked by its own method.
    """
    flag: Any = getattr(getattr(event, "_flag", None), "_semlock", None)
    return not flag._is_zero() if hasattr(flag, "_is_zero") else bool(event.is_set())


def _is_out_of_time() -> bool:
    """Whether the alarm that django-q2 sets for each call has gone off.

    It then ends the process soon, by SIGTERM.
    """
    from django_q.conf import Conf

    return bool(Conf.TIMEOUT) and not signal.getitimer(signal.ITIMER_REAL)[0]
