"""One cluster for all that is hurt here, and child processes beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster import ROOT, Cluster
from tests.conftest import new_cluster

FOLDER = Path(__file__).parent
Child = subprocess.Popen[str]
StartChild = Callable[..., Child]

shared_cluster = pytest.fixture(new_cluster, scope="package")
"""It outlives the file whose test has started it."""


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
