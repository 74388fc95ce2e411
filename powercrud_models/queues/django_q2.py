"""Hands the task to django-q2's ``qcluster``: the only file that imports django-q2.

It does so inside functions: importing ``django_q`` without its settings raises or warns.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from powercrud_models.conf import get_conf
from powercrud_models.queues.base import RUN_TASK, Queue


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

        async_task(RUN_TASK, task_key, q_options={"save": False, "ack_failure": True})

    def commits_with(self, alias: str) -> bool:
        from django_q.conf import Conf

        other_broker = Conf.BROKER_CLASS or Conf.IRON_MQ or Conf.SQS or Conf.SYNC
        return bool(alias == Conf.ORM and not other_broker)
