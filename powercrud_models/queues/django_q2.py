"""Hands the task to django-q2's ``qcluster``: the only file that imports django-q2.

It does so inside functions: importing ``django_q`` without its settings raises or warns.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections import deque
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

logger = logging.getLogger("powercrud_models")


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

    has_begun = False

    def tell(**_: Any) -> None:
        nonlocal has_begun
        # with its option `sync` django-q2 sends the signal in any process, for each call; but only
        # to its workers it gives a timer
        if has_begun or not hasattr(current_process(), "timer"):
            return
        has_begun = True  # for what this process forks, too
        call(WorkerProcess(_cluster_stops(), _is_out_of_time, _caller_while_waiting()))

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


def _caller_while_waiting() -> Callable[[Callable[[], None]], None]:
    """For `WorkerProcess.while_waiting`; call this in the main thread."""
    waiting: deque[Callable[[], None]] = deque(maxlen=1)
    main_thread, sentinel = threading.get_ident(), os.getppid()

    def answer(number: int, frame: FrameType | None) -> None:
        call = waiting.pop() if waiting else None
        if call is not None and _waits_for_its_turn(frame):
            _call_as_a_task(call)

    def ask(call: Callable[[], None]) -> None:
        if os.getppid() != sentinel:
            return  # it has died: nobody stops this process any more, nor looks after its time
        waiting.append(call)
        signal.pthread_kill(main_thread, signal.SIGURG)

    # of all signals the one that does no harm where it is not expected
    signal.signal(signal.SIGURG, answer)
    return ask


def _waits_for_its_turn(frame: FrameType | None) -> bool:
    """Whether a worker was interrupted that waits for the lock of its queue, and has not got it.

    Another one has it, or has died with it. Whoever has it himself must not keep it for long.
    """
    from multiprocessing import queues
    from multiprocessing.synchronize import SemLock

    from django_q.queues import Queue as CountingQueue
    from django_q.worker import worker

    waits_in = frame
    for function in (SemLock.__enter__, queues.Queue.get, CountingQueue.get, worker):
        if frame is None or frame.f_code is not function.__code__:
            return False
        frame = frame.f_back
    assert waits_in is not None, "it is one of these functions"
    return not waits_in.f_locals["self"]._semlock._is_mine()


def _call_as_a_task(call: Callable[[], None]) -> None:
    """Call it within the limits of time that a task has, the alarm's and the sentinel's."""
    from django_q.conf import Conf
    from django_q.exceptions import TimeoutException
    from django_q.timeout import TimeoutHandler
    from django_q.utils import close_old_django_connections

    timer = current_process().timer  # type: ignore[attr-defined]  # by django-q2: see `tell`
    close_old_django_connections()
    if Conf.TIMEOUT:
        timer.value = Conf.TIMEOUT + 3  # as it does: the alarm comes first
    try:
        with TimeoutHandler(Conf.TIMEOUT or -1):
            call()
    except TimeoutException:
        raise SystemExit(0) from None  # such a process is done with
    except Exception:  # as for a task: whatever it raises, the worker goes on
        logger.exception("What this worker did beside its queue has failed")
    finally:
        timer.value = -1
