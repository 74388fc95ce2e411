"""django-q2 stops what takes too long: first with an exception, then with a signal."""

from __future__ import annotations

import pytest

from powercrud_models.models import ObjectLock
from tests import scripts
from tests.cluster import Cluster
from tests.gates import PATIENCE, until
from tests.machines import effects, new_gear, new_machine, saved

pytestmark = pytest.mark.cluster

# Three seconds later comes the hard one, when its guard meets the end of them exactly.
SECONDS = {"timeout": 4, "retry": 600, "guard_cycle": 0.5}


def test_work_that_the_soft_time_out_stops_is_undone_and_begun_again(
    idle_cluster: Cluster,
) -> None:
    idle_cluster.start(q_cluster=SECONDS)
    done, slow, todo = new_gear(), new_gear(scripts.dawdle_once), new_gear()
    task = saved(done, slow, todo)

    assert task.result(timeout=PATIENCE) == [None, scripts.SECOND, None]
    assert effects(done, slow, todo) == [1, 1, 1]
    assert task.attempts == 2
    [first, second] = idle_cluster.gate(slow, scripts.VISITS).visitors
    assert first != second
    until(lambda: first not in idle_cluster.workers, "the slow worker was gone")
    assert not ObjectLock.objects.exists()


def test_a_worker_that_swallows_the_soft_time_out_dies_of_the_hard_one(
    idle_cluster: Cluster, short_leases: None
) -> None:
    idle_cluster.start(lease_seconds=2, q_cluster=SECONDS)
    swallows, todo = new_machine(scripts.swallow_everything_once), new_gear()
    task = saved(swallows, todo)
    visits = idle_cluster.gate(swallows, scripts.VISITS)
    visits.wait_for_arrival()
    [deaf] = visits.visitors

    until(lambda: deaf not in idle_cluster.workers, "the worker died")
    assert task.result(timeout=PATIENCE) == [scripts.SECOND, None]
    assert deaf not in visits.visitors[1:]
    assert effects(todo) == [1]
    assert task.attempts > 1
    assert not ObjectLock.objects.exists()
