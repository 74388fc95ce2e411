"""Who runs the tasks of a test: nobody yet, this process, or a real cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kinds.models import Project


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
    """What a test gave to ``Project.script`` is gone when it ends."""
    yield
    Project.script = None
