"""The cache that CACHE_NAME names: one that all processes share, or none at all."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

PRIVATE: dict[type[Any], str] = {
    LocMemCache: "each process has one of its own",
    DummyCache: "it keeps nothing",
    FileBasedCache: "it loses what two processes write at the same time, and other machines have "
    "none of it",
}
"""Caches that cannot be shared, and why."""


def refuse_private_cache(name: str) -> None:
    """Raise ImproperlyConfigured for the name of a cache that processes cannot share."""
    backend = backend_of(name)
    for private, reason in PRIVATE.items():
        if backend is not None and issubclass(backend, private):
            raise ImproperlyConfigured(
                f"POWERCRUD_SETTINGS['CACHE_NAME'] names the cache {name!r}, a {backend.__name__}: "
                f"{reason}. Name a DatabaseCache, Memcached or Redis, which the web processes and "
                "the workers share, or leave CACHE_NAME out: nothing needs it."
            )


def backend_of(name: str) -> Any:
    """The class of a cache; None for one that cannot be imported, which its first use tells.

    Raises ImproperlyConfigured when there is no such cache.
    """
    if name not in settings.CACHES:
        raise ImproperlyConfigured(
            f"POWERCRUD_SETTINGS['CACHE_NAME'] is {name!r}, but CACHES has no such cache: it has "
            f"{', '.join(map(repr, sorted(settings.CACHES)))}. Add it, or leave CACHE_NAME out."
        )
    try:
        return import_string(settings.CACHES[name].get("BACKEND", ""))
    except ImportError:
        return None
