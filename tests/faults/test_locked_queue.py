"""An idle worker is killed: the queue between django-q2's processes stays locked, by nobody."""

from __future__ import annotations

import signal

import pytest

from powercrud_models.models import ObjectLock
from tests import scripts
from tests.brokers import MessageBroker, both_brokers
from tests.cluster import Cluster
from tests.gates import PATIENCE, until
from tests.kinds.models import Scripted
from tests.machines import effects, items, new_gear, saved

pytestmark = pytest.mark.cluster


def lock_the_queue(cluster: Cluster, first: Scripted) -> int:
    """Kill the worker that waits for messages, then the one that is at work, and return that."""
    busy = cluster.gate(first).wait_for_visitor()
    [idle] = {*cluster.workers} - {busy}
    for worker in (idle, busy):
        cluster.signal(worker, signal.SIGKILL)
        until(lambda: worker not in cluster.workers, "it was dead")  # noqa: B023  # used at once
    return busy


@both_brokers
def test_workers_run_what_a_locked_queue_does_not_bring(
    mortal_cluster: Cluster, broker: MessageBroker
) -> None:
    gear = new_gear(scripts.wait)
    mortal_cluster.wait_until_workers_meet()
    task = saved(gear)
    victim = lock_the_queue(mortal_cluster, gear)
    gate = mortal_cluster.gate(gear)
    gate.open()

    assert task.result(timeout=PATIENCE) == 1
    assert effects(gear) == [1]
    assert victim not in gate.visitors[1:]
    assert task.recoveries == 1
    assert not ObjectLock.objects.exists()
    mortal_cluster.kill()


def test_a_worker_that_does_so_ends_its_item_when_it_is_told_to_end(
    mortal_cluster: Cluster,
) -> None:
    first, second = new_gear(scripts.wait_until_told_to_end), new_gear(scripts.wait)
    mortal_cluster.wait_until_workers_meet()
    task = saved(first, second)
    lock_the_queue(mortal_cluster, first)
    gate = mortal_cluster.gate(first)
    until(lambda: gate.arrivals > 1, "another worker had taken it up")
    helper = gate.visitors[-1]
    mortal_cluster.signal(helper, signal.SIGTERM)

    until(lambda: helper not in mortal_cluster.workers, "it had ended")
    assert [status for *_, status in items(task)] == ["done", "todo"]
    assert helper not in mortal_cluster.gate(second).visitors
    mortal_cluster.kill()
    mortal_cluster.open_all_gates()
    mortal_cluster.start(lease_seconds=2)
    assert task.result(timeout=PATIENCE) == [None, 1]
    assert effects(first, second) == [1, 1]
