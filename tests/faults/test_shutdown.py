"""A worker, or a whole cluster, is told to end while it is at work."""

from __future__ import annotations

import os
import signal
from functools import partial

import pytest

from powercrud_models.models import AsyncTask, ObjectLock
from tests import scripts
from tests.brokers import both_brokers
from tests.cluster import WORKERS, Cluster
from tests.gates import PATIENCE, until
from tests.machines import effects, items, keys, locks, new_gear, new_machine, saved

pytestmark = pytest.mark.cluster

Status = AsyncTask.Status


@both_brokers
def test_a_worker_that_is_told_to_end_ends_its_item_and_leaves_the_rest_to_others(
    cluster: Cluster,
) -> None:
    first, second, third = (new_gear(s) for s in (scripts.wait_and_tell, *[scripts.tell] * 2))
    task = saved(first, second, third)
    gate = cluster.gate(first)
    told = gate.wait_for_visitor()
    cluster.signal(told, signal.SIGTERM)
    gate.open()

    done_by = task.result(timeout=PATIENCE)
    until(lambda: told not in cluster.workers, "the worker had ended")
    assert done_by[0] == told
    assert told not in done_by[1:]
    assert effects(first, second, third) == [1, 1, 1]
    assert gate.visitors == [told]
    assert (task.attempts, task.recoveries) == (1, 0)
    assert not ObjectLock.objects.exists()
    until(lambda: len(cluster.workers) == WORKERS, "another worker had its place")


def test_a_worker_that_waits_for_tasks_ends_when_it_is_told_to(cluster: Cluster) -> None:
    # One of the two has the queue's lock in hand, without which no other ever gets a task.
    for told in cluster.workers:
        cluster.signal(told, signal.SIGTERM)
        until(lambda pid=told: pid not in cluster.workers, "the worker had ended")  # type: ignore[misc]
        until(lambda: len(cluster.workers) == WORKERS, "another worker had its place")
    for _ in range(WORKERS):
        saved(new_gear()).result(timeout=PATIENCE)


def test_a_worker_that_is_told_twice_dies_at_once(mortal_cluster: Cluster) -> None:
    gear = new_gear(scripts.write_late)
    task = saved(gear)
    told = mortal_cluster.gate(gear).wait_for_visitor()

    def is_dead() -> bool:
        if told in mortal_cluster.workers:
            mortal_cluster.signal(told, signal.SIGTERM)
        return told not in mortal_cluster.workers

    until(is_dead, "the worker was dead, though its gate was closed")
    assert task.result(timeout=PATIENCE) == scripts.SECOND
    assert effects(gear) == [1]


@both_brokers
def test_a_cluster_that_is_told_to_end_leaves_the_rest_to_the_next_one(cluster: Cluster) -> None:
    # Machines: a gear that waits keeps all others from writing where there is one writer.
    first, busy = new_machine(scripts.wait_and_tell), new_machine(scripts.wait_and_tell)
    rest = [new_machine(scripts.tell) for _ in range(2)]
    split, ending = saved(first, *rest), saved(busy)
    for machine in (first, busy):
        cluster.gate(machine).wait_for_arrival()
    queued = [new_gear(scripts.tell) for _ in range(4)]
    waiting = [saved(gear) for gear in queued]
    start = cluster.log_size
    os.kill(cluster.main, signal.SIGTERM)
    until(partial(_says, cluster, start, "stopping cluster processes"), "it was about to end")
    cluster.open_all_gates()
    cluster.wait_until_ended()

    ending.refresh_from_db()
    assert ending.status == Status.SUCCESS
    split.refresh_from_db()
    assert (split.status, split.attempts, split.recoveries) == (Status.PENDING, 0, 0)
    assert [status for *_, status in items(split)] == ["done", "todo", "todo"]
    assert effects(first, busy, *rest, *queued) == [1, 1, 0, 0, 0, 0, 0, 0]
    assert set(locks()) == keys(first, *rest, *queued)

    cluster.start()
    for task in (split, *waiting):
        task.result(timeout=PATIENCE)
        assert (task.attempts, task.recoveries) == (1, 0)
    assert effects(first, busy, *rest, *queued) == [1] * 8
    assert not ObjectLock.objects.exists()


def _says(cluster: Cluster, start: int, text: str) -> bool:
    return text in cluster.log(start)
