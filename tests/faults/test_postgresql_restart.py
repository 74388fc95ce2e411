"""The database server is restarted while workers are at work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from powercrud_models.models import ObjectLock
from tests import scripts
from tests.brokers import OrmBroker
from tests.cluster import Cluster
from tests.faults.postgresql import Server, binaries, server_of_its_own
from tests.gates import PATIENCE
from tests.machines import effects, new_gear, new_machine, saved

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has no server"),
]


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own: others work on the one that the settings name."""
    found = binaries()
    if found is None:
        reason = "the programs of a PostgreSQL server are not installed"
        if os.environ.get("REQUIRE_SERVICES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with server_of_its_own(found) as server:
        yield server


@pytest.fixture
def on_its_own_server(
    server: Server, django_db_setup: None, django_db_blocker: Any
) -> Iterator[None]:
    """This thread's default connection goes there, and all tables are there."""
    usual: BaseDatabaseWrapper = connections["default"]
    address: Any = {**usual.settings_dict, **server.address}
    with django_db_blocker.unblock():
        connections["default"] = type(usual)(address, "default")
        try:
            call_command("migrate", run_syncdb=True, verbosity=0)
            yield
        finally:
            connections["default"].close()
            connections["default"] = usual


@pytest.fixture
def cluster_there(
    on_its_own_server: None, short_leases: None, shared_cluster: Cluster
) -> Iterator[Cluster]:
    shared_cluster.stop()
    shared_cluster.broker = OrmBroker()
    shared_cluster.reset()
    start = shared_cluster.log_size
    shared_cluster.start(lease_seconds=2)
    yield shared_cluster
    shared_cluster.open_all_gates()
    shared_cluster.stop()
    sys.stdout.write(shared_cluster.log(start))


def test_what_runs_when_the_server_is_restarted_is_finished_once(
    cluster_there: Cluster, server: Server
) -> None:
    done, halfway, todo = new_gear(), new_gear(scripts.wait), new_gear()
    machine = new_machine(scripts.wait)
    tasks = [saved(done, halfway, todo), saved(machine)]
    for obj in (halfway, machine):
        cluster_there.gate(obj).wait_for_arrival()
    server.restart()
    connection.close()
    cluster_there.open_all_gates()

    assert tasks[0].result(timeout=PATIENCE) == [None, 1, None]
    tasks[1].result(timeout=PATIENCE)
    assert effects(done, halfway, todo) == [1, 1, 1]
    assert effects(machine)[0] in (1, 2)  # in autocommit: at least once
    assert {item.tries for task in tasks for item in task.items.all()} <= {0, 1}
    assert not ObjectLock.objects.exists()
    again = new_gear()
    saved(again).result(timeout=PATIENCE)
