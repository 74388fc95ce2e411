"""Where locks are kept."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.core.signals import setting_changed

from powercrud_models.conf import get_conf
from powercrud_models.stores.base import Store, refuse_others
from powercrud_models.stores.database import DatabaseStore

__all__ = ["Store", "get_store", "refuse_others"]


def get_store() -> Store:
    """The store in force.

    Raises ImproperlyConfigured when STORE is "redis", and CACHE_NAME names no cache of Redis.
    """
    conf = get_conf()
    return DatabaseStore() if conf.STORE == "database" else _redis_store(conf.CACHE_NAME)


@cache
def _redis_store(cache_name: str) -> Store:
    from powercrud_models.stores.redis import RedisStore

    return RedisStore(cache_name)


def _forget(*, setting: str, **_: Any) -> None:
    if setting in ("POWERCRUD_SETTINGS", "CACHES"):
        _redis_store.cache_clear()


setting_changed.connect(_forget, dispatch_uid="powercrud_models.stores")
