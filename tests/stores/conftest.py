"""Every store, each with what it needs; and Redis servers that a test may stop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from powercrud_models.stores import Store, get_store
from tests.brokers import refuse_without_redis
from tests.stores.redis_server import OwnServer, caches, remove_all


@pytest.fixture(params=["redis", "django_redis"])
def redis_cache(request, settings) -> Iterator[str]:
    """Locks are in the shared Redis, through Django's own cache or django_redis."""
    refuse_without_redis()
    settings.CACHES = caches(request.param)
    settings.POWERCRUD_SETTINGS = {"STORE": "redis", "CACHE_NAME": "shared"}
    yield request.param
    remove_all()


@pytest.fixture(params=["database", "redis", "django_redis"])
def store(request, transactional_db, settings) -> Iterator[Store]:
    """Each store in turn."""
    if request.param == "database":
        yield get_store()
        return
    refuse_without_redis()
    settings.CACHES = caches(request.param)
    settings.POWERCRUD_SETTINGS = {"STORE": "redis", "CACHE_NAME": "shared"}
    yield get_store()
    remove_all()


@pytest.fixture(params=["redis", "django_redis"])
def server(request, transactional_db, settings, tmp_path: Path) -> Iterator[OwnServer]:
    """A server of the test's own, which keeps the locks."""
    refuse_without_redis()
    marker = request.node.get_closest_marker("redis_options")
    server = OwnServer(tmp_path, *(marker.args if marker else ()))
    settings.CACHES = caches(request.param, server.url, **(marker.kwargs if marker else {}))
    settings.POWERCRUD_SETTINGS = {
        "ASYNC_ENABLED": True,
        "QUEUE": "django-q2",
        "STORE": "redis",
        "CACHE_NAME": "shared",
        "HEARTBEAT_SECONDS": 1,
    }
    yield server
    server.kill()
