"""Who runs the tasks of a test: nobody yet, this process, or a real cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
from django.conf import settings as django_settings

from powercrud_models.models import AsyncTask
from tests.databases import delete_instead_of_truncate
from tests.deliveries import lose_messages, task_of
from tests.kinds.declared import Attempt
from tests.kinds.models import Clock, Crew, Part, Project
from tests.stage import Stage
from tests.witness import Witness

delete_instead_of_truncate()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the server that TEST_DATABASE asks for, skip; with REQUIRE_SERVICES=1, fail."""
    if os.environ.get("TEST_DATABASE") != "postgresql" or os.environ.get("REQUIRE_SERVICES") == "1":
        return
    server = django_settings.DATABASES["default"]
    try:
        psycopg.connect(
            host=server["HOST"],
            port=server["PORT"] or None,
            user=server["USER"],
            password=server["PASSWORD"] or None,
            dbname="postgres",
            connect_timeout=10,
        ).close()
    except psycopg.OperationalError as error:
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"PostgreSQL does not answer: {error}"))


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
