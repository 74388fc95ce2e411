"""A worker is stopped for longer than its lease, or hangs, and then goes on."""

from __future__ import annotations

import signal

import pytest
from django.db import connection

from powercrud_models.models import AsyncTask, ObjectLock
from tests import scripts
from tests.cluster import Cluster
from tests.deliveries import rows
from tests.gates import PATIENCE, Gate, until
from tests.kinds.models import Machine
from tests.machines import effects, new_gear, new_machine, saved
from tests.processes import is_stopped
from tests.stage import write_lock_is_free

pytestmark = pytest.mark.cluster

TAKEN_OVER = "was taken over by another worker"
"""What a worker logs that is refused."""


def stop(cluster: Cluster, pid: int) -> None:
    """Stop it, but not while its heartbeat writes: on SQLite that would keep all others out."""
    while True:
        cluster.signal(pid, signal.SIGSTOP)
        until(lambda: is_stopped(pid), "it was stopped")
        if connection.vendor != "sqlite" or write_lock_is_free():
            return
        cluster.signal(pid, signal.SIGCONT)


def stop_visitor(cluster: Cluster, gate: Gate) -> int:
    """Stop the worker whose work waits at this gate, and return its id."""
    visitor = gate.wait_for_visitor()
    stop(cluster, visitor)
    return visitor


def outcome() -> dict[str, list[object]]:
    """All that is said of tasks; messages come and go for as long as the cluster runs."""
    return {table: stored for table, stored in rows().items() if table != "OrmQ"}


def let_go(cluster: Cluster, gate: Gate) -> str:
    """Let the first worker go on, and return what the cluster has printed when it has ended."""
    start = cluster.log_size
    gate.open()
    cluster.resume()
    cluster.wait_until_workers_meet()
    return cluster.log(start)


def test_a_stopped_worker_is_refused_what_it_writes_in_autocommit(mortal_cluster: Cluster) -> None:
    machine = new_machine(scripts.write_late)
    task = saved(machine)
    gate = mortal_cluster.gate(machine)
    late = stop_visitor(mortal_cluster, gate)

    assert task.result(timeout=PATIENCE) == scripts.SECOND
    ended = outcome()
    assert TAKEN_OVER in let_go(mortal_cluster, gate)
    assert late in mortal_cluster.workers
    assert outcome() == ended
    assert Machine.objects.get(pk=machine.pk).name == "new"
    assert AsyncTask.objects.get().attempts > 1


def test_a_worker_that_was_stopped_between_two_items_does_not_begin_the_second(
    mortal_cluster: Cluster,
) -> None:
    first, second = new_gear(scripts.wait_after_commit), new_gear(scripts.tell)
    task = saved(first, second)
    gate = mortal_cluster.gate(first)
    late = stop_visitor(mortal_cluster, gate)

    [_, by] = task.result(timeout=PATIENCE)
    assert by != late
    ended = outcome()
    assert TAKEN_OVER in let_go(mortal_cluster, gate)
    assert outcome() == ended
    assert effects(first, second) == [1, 1]


@pytest.mark.skipif(
    connection.vendor == "sqlite",
    reason="on SQLite a process that is stopped in its transaction keeps all others from writing",
)
def test_the_transaction_of_a_stopped_worker_is_undone_and_its_task_finished_once(
    mortal_cluster: Cluster,
) -> None:
    gear = new_gear(scripts.write_late)
    task = saved(gear)
    gate = mortal_cluster.gate(gear)
    stop_visitor(mortal_cluster, gate)

    assert task.result(timeout=PATIENCE) == scripts.SECOND
    ended = outcome()
    let_go(mortal_cluster, gate)
    assert outcome() == ended
    gear.refresh_from_db()
    assert (gear.name, gear.effects) == ("new", 1)
    assert AsyncTask.objects.get().attempts > 1
    assert not ObjectLock.objects.exists()


def test_work_that_hangs_is_taken_over_though_its_worker_gives_signs_of_life(
    idle_cluster: Cluster, short_leases: None
) -> None:
    idle_cluster.start(lease_seconds=2, settings={"MAX_TASK_DURATION": 3})
    machine = new_machine(scripts.write_late)
    task = saved(machine)
    gate, visits = idle_cluster.gate(machine), idle_cluster.gate(machine, scripts.VISITS)

    assert task.result(timeout=PATIENCE) == scripts.SECOND
    [hanging, second] = visits.visitors
    assert hanging != second
    assert hanging in idle_cluster.workers
    ended = outcome()
    assert TAKEN_OVER in let_go(idle_cluster, gate)
    assert outcome() == ended
    assert Machine.objects.get(pk=machine.pk).name == "new"
    assert not ObjectLock.objects.exists()
