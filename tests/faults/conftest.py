"""A cluster to be hurt, with either broker, and child processes beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import MessageBroker, OrmBroker, RedisBroker, refuse_without_redis
from tests.cluster import ROOT, Cluster

FOLDER = Path(__file__).parent
Child = subprocess.Popen[str]
StartChild = Callable[..., Child]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a cluster follow each other: to start one takes seconds."""
    places = [place for place, item in enumerate(items) if FOLDER in item.path.parents]
    ours = sorted((items[place] for place in places), key=_cluster_of)
    for place, item in zip(places, ours, strict=True):
        items[place] = item


def _cluster_of(item: pytest.Item) -> tuple[bool, list[str]]:
    """The broker, and the fixtures that start one."""
    assert isinstance(item, pytest.Function)
    on_redis = hasattr(item, "callspec") and item.callspec.params.get("broker") == "redis"
    starts = {"cluster", "mortal_cluster", "short_leases"}.intersection(item.fixturenames)
    return on_redis, sorted(starts)


@pytest.fixture(scope="package")
def shared_cluster(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("faults"))
    yield cluster
    cluster.stop()


@pytest.fixture
def broker(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MessageBroker]:
    """django-q2's ORM broker, or the one that the test's parameter names."""
    if getattr(request, "param", "orm") == "orm":
        yield OrmBroker()
        return
    refuse_without_redis()
    redis = RedisBroker()
    redis.use(monkeypatch)
    redis.empty()
    yield redis
    redis.empty()


@pytest.fixture
def idle_cluster(
    shared_cluster: Cluster, broker: MessageBroker, transactional_db: None, queued: None
) -> Iterator[Cluster]:
    """A cluster to be started; what it printed is shown when the test fails."""
    start = shared_cluster.log_size
    if type(shared_cluster.broker) is not type(broker):
        shared_cluster.stop()
    shared_cluster.broker = broker
    shared_cluster.reset()
    yield shared_cluster
    shared_cluster.open_all_gates()
    try:
        if shared_cluster.is_running:
            shared_cluster.resume()
            shared_cluster.wait_until_workers_meet()
    except TimeoutError:
        shared_cluster.stop()
        raise
    finally:
        sys.stdout.write(shared_cluster.log(start))


@pytest.fixture
def cluster(idle_cluster: Cluster) -> Cluster:
    """A cluster whose leases last longer than any test takes."""
    idle_cluster.start()
    return idle_cluster


@pytest.fixture
def short_leases(settings: Any, queued: None) -> None:
    """Leases last two seconds, for tasks launched by the test as well."""
    settings.POWERCRUD_SETTINGS = {
        **settings.POWERCRUD_SETTINGS,
        "LEASE_SECONDS": 2,
        "HEARTBEAT_SECONDS": 1,
    }


@pytest.fixture
def mortal_cluster(idle_cluster: Cluster, short_leases: None) -> Cluster:
    """A cluster that soon takes up what a worker of it leaves behind."""
    idle_cluster.start(lease_seconds=2)
    return idle_cluster


@pytest.fixture
def start_child(idle_cluster: Cluster) -> Iterator[StartChild]:
    """Start a process that does what ``child.py`` names; none outlives the test."""
    children: list[Child] = []
    # What it prints is its answer: django-q2 would tell of each message.
    environment = idle_cluster.environment(lease_seconds=2, q_cluster={"log_level": "WARNING"})

    def start(function: Callable[..., object], *args: object) -> Child:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.child", function.__name__, *map(str, args)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        children.append(child)
        return child

    yield start
    for child in children:
        with suppress(ProcessLookupError):
            child.kill()
        child.communicate()
