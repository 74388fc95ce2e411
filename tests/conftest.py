"""Who runs the tasks of a test: nobody yet, this process, or a real cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pymysql
import pytest
from django.conf import settings as django_settings

from powercrud_models.models import AsyncTask
from tests.brokers import MessageBroker, OrmBroker, RedisBroker, refuse_without_redis
from tests.cluster import Cluster
from tests.databases import delete_instead_of_truncate, reach_server
from tests.deliveries import lose_messages, task_of
from tests.kinds.declared import Attempt
from tests.kinds.models import Clock, Crew, Part, Project
from tests.stage import Stage
from tests.witness import Witness

delete_instead_of_truncate()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the server that TEST_DATABASE asks for, skip; with REQUIRE_SERVICES=1, fail."""
    database = os.environ.get("TEST_DATABASE", "sqlite")
    if database == "sqlite" or os.environ.get("REQUIRE_SERVICES") == "1":
        return
    try:
        reach_server(django_settings.DATABASES["default"])
    except (psycopg.OperationalError, pymysql.OperationalError) as error:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"{database} does not answer: {error}"))


@pytest.fixture
def queued(settings) -> None:
    """Tasks stay in django-q2's ORM broker, as if its cluster were down."""
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": "django-q2"}


@pytest.fixture
def immediate(settings) -> None:
    """Tasks run in this process, right after the outermost commit."""
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": "immediate"}


@pytest.fixture
def async_off(settings) -> None:
    """A project that has configured nothing."""
    settings.POWERCRUD_SETTINGS = {}  # which tells `conf` of the change; `del` alone does not
    del settings.POWERCRUD_SETTINGS


@pytest.fixture(autouse=True)
def _no_script() -> Iterator[None]:
    """What a test gave to the ``script`` of a model is gone when it ends."""
    yield
    Project.script = None
    Crew.script = None
    Clock.script = None
    Attempt.script = None


@pytest.fixture
def stage(transactional_db: None) -> Iterator[Stage]:
    """Threads that stop at exact points; none of them outlives the test."""
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def witness(stage: Stage) -> Iterator[Witness]:
    """At the end of the test nothing has been written while a task held it."""
    witness = Witness()
    yield witness
    stage.close()
    witness.swear()


@pytest.fixture
def project(transactional_db: None, queued: None) -> Project:
    """A project with one part, held by a task that nobody has claimed, whose message is lost."""
    (project,) = Project.objects.bulk_create([Project(name="bridge")])
    Part.objects.bulk_create([Part(name="pier", project=project)])
    project.save()
    lose_messages()
    return project


@pytest.fixture
def task(project: Project) -> AsyncTask:
    """That task."""
    return task_of(project)


def new_cluster(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster for several tests: to start one takes seconds."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


shared_cluster = pytest.fixture(new_cluster, scope="module")


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
