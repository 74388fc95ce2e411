"""A worker that waits is killed: the queue between the processes stays locked, by nobody."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from django_q.tasks import async_task

from powercrud_models.models import AsyncTask, ObjectLock
from tests import scripts
from tests.brokers import MessageBroker, both_brokers
from tests.cluster import WORKERS, Cluster
from tests.deliveries import die
from tests.gates import PATIENCE, have_met, meet, until
from tests.kinds.models import Scripted
from tests.machines import effects, items, new_gear, saved
from tests.processes import processes_of_group

pytestmark = pytest.mark.cluster


def lock_the_queue(cluster: Cluster, first: Scripted, message: Path) -> int:
    """Kill the worker that waits for messages, then the one that is at work, and return that."""
    busy = cluster.gate(first).wait_for_visitor()
    [idle] = {*cluster.workers} - {busy}
    for worker in (idle, busy):
        cluster.signal(worker, signal.SIGKILL)
        until(lambda: worker not in cluster.workers, "it was dead")  # noqa: B023  # used at once
    async_task("pathlib.Path.touch", message, q_options={"save": False})
    return busy


@pytest.fixture
def message(tmp_path: Path) -> Iterator[Path]:
    """A file that a worker makes when it gets a message; none may."""
    file = tmp_path / "message"
    yield file
    assert not file.exists(), "the queue was not locked"


@both_brokers
def test_workers_run_what_a_locked_queue_does_not_bring(
    mortal_cluster: Cluster, broker: MessageBroker, message: Path
) -> None:
    gear = new_gear(scripts.wait)
    mortal_cluster.wait_until_workers_meet()
    task = saved(gear)
    victim = lock_the_queue(mortal_cluster, gear, message)
    gate = mortal_cluster.gate(gear)
    gate.open()

    assert task.result(timeout=PATIENCE) == 1
    assert effects(gear) == [1]
    assert victim not in gate.visitors[1:]
    assert task.recoveries == 1
    assert not ObjectLock.objects.exists()
    mortal_cluster.kill()


def test_a_worker_that_does_so_ends_its_item_when_it_is_told_to_end(
    mortal_cluster: Cluster, message: Path
) -> None:
    first, second = new_gear(scripts.wait_until_told_to_end), new_gear(scripts.wait)
    mortal_cluster.wait_until_workers_meet()
    task = saved(first, second)
    lock_the_queue(mortal_cluster, first, message)
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


def test_the_time_out_of_the_queue_holds_for_what_a_worker_does_so(
    idle_cluster: Cluster, short_leases: None, message: Path
) -> None:
    idle_cluster.start(lease_seconds=2, q_cluster={"timeout": 4, "retry": 600})
    slow = new_gear(scripts.wait)
    idle_cluster.wait_until_workers_meet()
    task = saved(slow)
    lock_the_queue(idle_cluster, slow, message)
    gate = idle_cluster.gate(slow)
    until(lambda: gate.arrivals > 1, "another worker had taken it up")
    helper = gate.visitors[-1]

    until(lambda: helper not in idle_cluster.workers, "it had ended")
    task.refresh_from_db()
    assert (task.status, task.recoveries) == (AsyncTask.Status.PENDING, 2)
    idle_cluster.kill()


def test_workers_that_are_busy_with_other_messages_do_nothing_beside_them(
    mortal_cluster: Cluster, tmp_path: Path
) -> None:
    place = tmp_path / "meeting"
    for _ in range(WORKERS):
        async_task("tests.gates.meet", str(place), WORKERS + 1, q_options={"save": False})
    until(lambda: have_met(place, WORKERS), "all workers were busy")
    gear = new_gear()
    task = saved(gear)
    die(task)

    until(lambda: AsyncTask.objects.get().sends > 2, "it was sent in vain, again and again")
    assert effects(gear) == [0]
    meet(str(place), WORKERS + 1)
    task.result(timeout=PATIENCE)
    assert effects(gear) == [1]


def test_workers_whose_cluster_is_dead_begin_nothing(
    mortal_cluster: Cluster,
) -> None:
    mortal_cluster.wait_until_workers_meet()
    left = mortal_cluster.workers
    for pid in (
        mortal_cluster.main,
        mortal_cluster.sentinel,
        mortal_cluster.pusher,
        mortal_cluster.monitor,
    ):
        mortal_cluster.signal(pid, signal.SIGKILL)
    gear = new_gear()
    task = saved(gear)
    die(task)

    until(lambda: AsyncTask.objects.get().sends > 2, "it was sent in vain, again and again")
    assert set(left) <= set(processes_of_group(mortal_cluster.main))
    assert effects(gear) == [0]
