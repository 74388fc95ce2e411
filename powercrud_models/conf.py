"""``POWERCRUD_SETTINGS``, read lazily through one typed object."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, get_args

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from powercrud_models.shared_cache import refuse_private_cache

StoreName = Literal["database", "redis"]
QueueName = Literal["auto", "inline", "immediate", "django-q2", "testing"]


@dataclass(frozen=True, kw_only=True)
class Conf:
    """The settings of this package; the names are the keys of ``POWERCRUD_SETTINGS``."""

    ASYNC_ENABLED: bool = False
    """Whether anything runs in the background. False: everything runs inline."""
    QUEUE: QueueName = "auto"
    """Who runs tasks; "auto" is django-q2 when it is installed and configured, else inline."""
    STORE: StoreName = "database"
    """Where locks are kept; "redis" is the server of the cache that CACHE_NAME names."""
    CACHE_NAME: str = "default"
    """A cache that all processes share: that of Redis, when STORE is "redis"."""
    GUARD_WRITES: bool = True
    """Whether ``save()`` and ``delete()`` refuse objects that another task holds."""
    LEASE_SECONDS: int = 60
    """Seconds without a sign of life after which a task may be taken over."""
    HEARTBEAT_SECONDS: int = 15
    """Seconds between two signs of life of a running task."""
    MAX_TASK_DURATION: int = 3600
    """Seconds without progress after which a task is taken over although its worker is alive."""
    CLEANUP_GRACE_PERIOD: int = 86400
    """Seconds for which the record of an ended task is kept."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            if type(value) is not type(default):
                raise ImproperlyConfigured(
                    f"POWERCRUD_SETTINGS[{field.name!r}] is {value!r}; "
                    f"it must be a {type(default).__name__}, such as {default!r}."
                )
        if self.QUEUE not in get_args(QueueName):
            raise ImproperlyConfigured(
                f"POWERCRUD_SETTINGS['QUEUE'] is {self.QUEUE!r}; "
                "it must be 'auto', 'inline', 'immediate', 'django-q2' or, in tests, 'testing'."
            )
        if self.STORE not in get_args(StoreName):
            raise ImproperlyConfigured(
                f"POWERCRUD_SETTINGS['STORE'] is {self.STORE!r}; it must be 'database' or 'redis'."
            )
        if self.MAX_TASK_DURATION <= 0:
            raise ImproperlyConfigured(
                f"POWERCRUD_SETTINGS['MAX_TASK_DURATION'] is {self.MAX_TASK_DURATION}; it must be "
                "above 0: seconds without progress, such as 3600."
            )
        if not 0 < self.HEARTBEAT_SECONDS < self.LEASE_SECONDS:
            raise ImproperlyConfigured(
                f"POWERCRUD_SETTINGS['HEARTBEAT_SECONDS'] is {self.HEARTBEAT_SECONDS}; it must be "
                f"above 0 and below LEASE_SECONDS ({self.LEASE_SECONDS}): a third of it is usual."
            )


@cache
def get_conf() -> Conf:
    """The settings in force.

    Raises ImproperlyConfigured when POWERCRUD_SETTINGS is no dict, a value has a wrong type, or the
    cache that it names is none that processes can share.
    """
    given: Any = getattr(settings, "POWERCRUD_SETTINGS", {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured(
            f"POWERCRUD_SETTINGS must be a dict, not {type(given).__name__}: {given!r}."
        )
    known = {field.name for field in fields(Conf)}
    conf = Conf(**{name: value for name, value in given.items() if name in known})
    if "CACHE_NAME" in given:
        refuse_private_cache(conf.CACHE_NAME)
    return conf


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("POWERCRUD_SETTINGS", "CACHES"):
        get_conf.cache_clear()


setting_changed.connect(_forget, dispatch_uid="powercrud_models.conf")
