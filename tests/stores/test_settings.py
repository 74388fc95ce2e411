"""STORE and CACHE_NAME: what cannot work is named at once, with the way out."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection

from powercrud_models.conf import get_conf
from powercrud_models.exceptions import StoreUnavailable
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.stores import get_store
from powercrud_models.stores.database import DatabaseStore
from powercrud_models.stores.redis import RedisStore
from tests.brokers import refuse_without_redis
from tests.cluster import ROOT
from tests.deliveries import lose_messages
from tests.kinds.models import Project
from tests.promises.made import make_project
from tests.stores.asking import acquire, bolts, release
from tests.stores.redis_server import OwnServer, caches

PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
DUMMY = "django.core.cache.backends.dummy.DummyCache"
FILES = "django.core.cache.backends.filebased.FileBasedCache"
TABLE = "django.core.cache.backends.db.DatabaseCache"
MEMCACHED = "django.core.cache.backends.memcached.PyMemcacheCache"


def cache(settings, backend: str, location: object = "", **more: Any) -> None:
    default = {"BACKEND": LOCMEM}
    settings.CACHES = {
        "default": default,
        "shared": {"BACKEND": backend, "LOCATION": location, **more},
    }


def named(settings, **more: Any) -> None:
    settings.POWERCRUD_SETTINGS = {"CACHE_NAME": "shared", **more}


def found(*, deploy: bool = False) -> dict[str, str]:
    """The messages of ``check`` about settings, by their ids."""
    messages = checks.run_checks(
        tags=["powercrud_models"], include_deployment_checks=deploy, databases=["default"]
    )
    return {
        str(each.id).rpartition(".")[2]: f"{each.msg} {each.hint or ''}"
        for each in messages
        if not each.obj  # those of the models of the tests
    }


def test_without_a_word_locks_are_in_the_database(settings) -> None:
    assert isinstance(get_store(), DatabaseStore)
    settings.POWERCRUD_SETTINGS = {"STORE": "database"}
    assert isinstance(get_store(), DatabaseStore)
    assert found() == {}


def test_a_store_that_nobody_knows_is_named(settings) -> None:
    settings.POWERCRUD_SETTINGS = {"STORE": "memcached"}
    with pytest.raises(ImproperlyConfigured, match="must be 'database' or 'redis'"):
        get_conf()
    assert "'memcached'" in found()["E010"]


@pytest.mark.parametrize("backend", [LOCMEM, DUMMY, FILES])
def test_a_private_cache_by_name_is_refused(settings, tmp_path, backend: str) -> None:
    cache(settings, backend, tmp_path)
    named(settings)
    with pytest.raises(ImproperlyConfigured, match="Name a DatabaseCache, Memcached or Redis"):
        get_store()
    assert f"names the cache 'shared', a {backend.rpartition('.')[2]}" in found()["E010"]


def test_a_private_cache_that_nobody_names_is_no_fault(settings) -> None:
    settings.CACHES = {"default": {"BACKEND": LOCMEM}}
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": False}
    assert found() == {}


@pytest.mark.parametrize(
    "backend", [TABLE, MEMCACHED, "django.core.cache.backends.redis.RedisCache"]
)
def test_a_shared_cache_by_name_leaves_the_locks_in_the_database(settings, backend: str) -> None:
    cache(settings, backend, "somewhere")
    named(settings)
    assert isinstance(get_store(), DatabaseStore)
    assert found() == {}


def test_a_cache_that_is_not_there_is_named(settings) -> None:
    settings.CACHES = {"default": {"BACKEND": LOCMEM}}
    named(settings)
    with pytest.raises(ImproperlyConfigured, match="has no such cache: it has 'default'"):
        get_store()


@pytest.mark.parametrize("backend", [TABLE, MEMCACHED])
def test_locks_in_a_cache_that_is_not_redis_are_refused(settings, backend: str) -> None:
    if backend == MEMCACHED:
        pytest.importorskip("pymemcache")
    cache(settings, backend, "somewhere")
    named(settings, STORE="redis")
    with pytest.raises(ImproperlyConfigured, match="or leave out STORE") as error:
        get_store()
    assert found() == {"E018": f"{error.value} "}


def test_locks_in_the_default_cache_of_django_are_refused(settings) -> None:
    settings.CACHES = {"default": {"BACKEND": LOCMEM}}
    settings.POWERCRUD_SETTINGS = {"STORE": "redis"}
    with pytest.raises(ImproperlyConfigured, match=r"the cache 'default' is a .*LocMemCache"):
        get_store()


def test_locks_on_several_servers_are_refused(settings) -> None:
    settings.CACHES = caches("django_redis", client_class="django_redis.client.ShardClient")
    named(settings, STORE="redis")
    with pytest.raises(ImproperlyConfigured, match="no client of one Redis server"):
        get_store()


def test_a_cache_that_cannot_be_imported_is_named(settings) -> None:
    cache(settings, "not_installed.RedisCache")
    named(settings, STORE="redis")
    with pytest.raises(ImproperlyConfigured, match="not_installed"):
        get_store()


def test_a_client_that_is_not_installed_is_named(settings, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    settings.CACHES = caches("redis")
    named(settings, STORE="redis")
    with pytest.raises(
        ImproperlyConfigured, match=r"pip install 'django-powercrud-models\[redis\]"
    ):
        get_store()


def test_a_missing_table_of_the_cache_is_named_before_it_is_deployed(
    settings, transactional_db
) -> None:
    cache(settings, TABLE, "not_created")
    named(settings)
    assert "E020" not in found()
    assert "createcachetable" in found(deploy=True)["E020"]
    call_command("createcachetable", verbosity=0)
    try:
        assert "E020" not in found(deploy=True)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE not_created")


class TestDangers:
    """What ``check --deploy`` finds, and the log says once when locks are first taken."""

    def test_a_server_as_it_should_be(self, server: OwnServer) -> None:
        assert isinstance(get_store(), RedisStore)
        assert found(deploy=True) == {}

    @pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random", "volatile-lru"])
    def test_a_server_that_may_evict(self, server: OwnServer, policy: str, caplog) -> None:
        server.client.config_set("maxmemory-policy", policy)
        is_danger = policy.startswith("allkeys")
        assert ("W017" in found(deploy=True)) == is_danger
        assert "W017" not in found()
        with caplog.at_level(logging.WARNING, "powercrud_models"):
            acquire(get_store(), "a", bolts(1))
            acquire(get_store(), "a", bolts(2))
        assert caplog.text.count(f"its maxmemory-policy is '{policy}'") == is_danger

    def test_a_server_that_is_full(self, server: OwnServer) -> None:
        server.client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="memory"):
            acquire(get_store(), "a", bolts(1))

    def test_a_server_that_is_away(self, server: OwnServer) -> None:
        with server.away():
            messages = found(deploy=True)
        assert messages.keys() == {"E019"}
        assert "Redis does not answer" in messages["E019"]

    def test_a_server_that_may_hang(self, server: OwnServer, settings) -> None:
        settings.CACHES = caches("redis", server.url, socket_timeout=None)
        assert "socket_timeout" in found(deploy=True)["W018"]

    def test_a_store_switched_to_redis_with_tasks_in_flight(
        self, server: OwnServer, settings, caplog
    ) -> None:
        redis_settings = settings.POWERCRUD_SETTINGS
        settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": "django-q2"}
        make_project().save()
        lose_messages()
        assert found(deploy=True) == {}
        settings.POWERCRUD_SETTINGS = redis_settings
        assert "another store ('database')" in found(deploy=True)["W019"]
        acquire(get_store(), "a", bolts(1))
        assert "another store ('database')" in caplog.text
        AsyncTask.objects.get().cancel()
        ObjectLock.objects.all().delete()
        assert found(deploy=True) == {}

    def test_a_store_switched_to_the_database_with_tasks_in_flight(
        self, server: OwnServer, settings
    ) -> None:
        make_project().save()
        lose_messages()
        assert found(deploy=True) == {}
        settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": "django-q2"}
        assert "another store ('redis')" in found(deploy=True)["W019"]
        AsyncTask.objects.get().cancel()
        assert found(deploy=True) == {}
        assert Project.objects.exists()


class TestNames:
    """Locks are where the cache's settings say, and nowhere else."""

    def test_the_prefix_and_the_version_of_the_cache_are_part_of_them(
        self, server: OwnServer, settings
    ) -> None:
        acquire(get_store(), "a", bolts(1))
        prefix = settings.CACHES["shared"]["KEY_PREFIX"].encode()
        assert sorted(server.client.keys()) == [
            prefix + b":3:{powercrud}:" + name for name in (b"held:a", b"locks", b"tasks")
        ]

    def test_entries_do_not_expire(self, server: OwnServer) -> None:
        acquire(get_store(), "a", bolts(1))
        assert {server.client.ttl(name) for name in server.client.scan_iter()} == {-1}

    def test_nothing_is_left_but_the_epoch(self, server: OwnServer) -> None:
        acquire(get_store(), "a", bolts(*range(3_000)))
        release(get_store(), "a")
        [locks] = server.client.keys()
        assert server.client.hkeys(locks) == [b""]

    def test_another_prefix_is_another_store(self, server: OwnServer, settings) -> None:
        acquire(get_store(), "a", bolts(1))
        others = {**settings.CACHES["shared"], "KEY_PREFIX": "another project"}
        settings.CACHES = {**settings.CACHES, "shared": others}
        acquire(get_store(), "b", bolts(1))


def test_the_settings_in_the_docs_are_complete(settings, transactional_db) -> None:
    refuse_without_redis()
    shown: dict[str, Any] = {}
    [block] = PYTHON.findall((ROOT / "docs" / "locks.md").read_text(encoding="utf-8"))
    exec(block, shown)
    settings.CACHES = shown["CACHES"]
    settings.POWERCRUD_SETTINGS = shown["POWERCRUD_SETTINGS"]
    assert isinstance(get_store(), RedisStore)
    assert found(deploy=True).keys().isdisjoint({"E018", "E019", "W018"})
