"""Processes are killed: one worker, the whole group, the one that has just committed a save."""

from __future__ import annotations

import signal

import pytest

from powercrud_models.lifecycle import sweep
from powercrud_models.models import AsyncTask, ObjectLock
from tests import scripts
from tests.brokers import MessageBroker, OrmBroker, both_brokers
from tests.cluster import Cluster
from tests.faults import child
from tests.faults.conftest import StartChild
from tests.gates import PATIENCE, until
from tests.kinds.models import Tooth
from tests.machines import effects, items, keys, locks, new_gear, new_machine, saved
from tests.processes import processes_of_group

pytestmark = pytest.mark.cluster

Status = AsyncTask.Status


def sweep_until_finished(*tasks: AsyncTask) -> None:
    """The workers sweep, too; whoever comes first."""

    def all_have_finished() -> bool:
        sweep()
        for task in tasks:
            task.refresh_from_db()
        return all(task.is_finished for task in tasks)

    until(all_have_finished, "every task was finished after sweeps")


@both_brokers
def test_a_worker_that_is_killed_at_work_is_replaced_and_its_task_finished_once(
    mortal_cluster: Cluster,
) -> None:
    done, halfway, todo = new_gear(), new_gear(scripts.wait), new_gear()
    task = saved(done, halfway, todo)
    gate = mortal_cluster.gate(halfway)
    victim = gate.wait_for_visitor()
    others = {*processes_of_group(mortal_cluster.main)} - {victim}
    mortal_cluster.signal(victim, signal.SIGKILL)
    until(lambda: victim not in mortal_cluster.workers, "it was dead")
    assert [status for *_, status in items(task)] == ["done", "todo", "todo"]
    assert locks() == dict.fromkeys(keys(done, halfway, todo), task.key)
    gate.open()

    assert task.result(timeout=PATIENCE) == [None, 1, None]
    assert effects(done, halfway, todo) == [1, 1, 1]
    assert task.attempts > 1
    assert victim not in gate.visitors[1:]
    assert not ObjectLock.objects.exists()
    assert mortal_cluster.sentinel in others
    assert others <= {*processes_of_group(mortal_cluster.main)}


@both_brokers
def test_what_a_killed_cluster_had_running_and_queued_the_next_one_finishes_once(
    mortal_cluster: Cluster,
) -> None:
    busy = [new_machine(scripts.wait), new_machine(scripts.wait)]
    running = [saved(machine) for machine in busy]
    for machine in busy:  # as many as there are workers
        mortal_cluster.gate(machine).wait_for_arrival()
    gears = [new_gear() for _ in range(6)]
    waiting = [saved(gear) for gear in gears]
    mortal_cluster.kill()

    pending = AsyncTask.objects.filter(status=Status.PENDING)
    assert {task.key for task in pending} == {task.key for task in waiting}
    assert set(locks().values()) == {task.key for task in (*running, *waiting)}
    mortal_cluster.open_all_gates()
    mortal_cluster.start(lease_seconds=2)
    for task in (*running, *waiting):
        task.result(timeout=PATIENCE)

    assert {(task.status, task.error) for task in (*running, *waiting)} == {(Status.SUCCESS, "")}
    assert effects(*gears) == [1] * len(gears)
    assert [task.attempts > 1 for task in running] == [True, True]
    assert AsyncTask.objects.count() == len(running) + len(waiting)
    assert not ObjectLock.objects.exists()


def test_a_task_whose_cluster_is_killed_is_finished_once(mortal_cluster: Cluster) -> None:
    done, halfway, todo = new_gear(), new_gear(scripts.wait, teeth=1), new_gear()
    task = saved(done, halfway, todo)
    mortal_cluster.gate(halfway).wait_for_arrival()
    mortal_cluster.kill()

    assert [status for *_, status in items(task)] == ["done", "todo", "todo"]
    assert effects(done, halfway, todo) == [1, 0, 0]
    assert locks() == dict.fromkeys(keys(done, halfway, todo, *Tooth.objects.all()), task.key)
    mortal_cluster.gate(halfway).open()
    mortal_cluster.start(lease_seconds=2)
    sweep_until_finished(task)

    assert task.result() == [None, 1, None]
    assert mortal_cluster.gate(halfway).arrivals > 1
    assert task.attempts > 1
    assert effects(done, halfway, todo) == [1, 1, 1]
    assert AsyncTask.objects.count() == 1
    assert not ObjectLock.objects.exists()
    for gear in (done, halfway, todo):
        gear.refresh_from_db()
        gear.save()


def test_work_that_was_committed_when_the_cluster_is_killed_is_not_repeated(
    mortal_cluster: Cluster,
) -> None:
    committed, todo = new_gear(scripts.wait_after_commit), new_gear()
    task = saved(committed, todo)
    mortal_cluster.gate(committed).wait_for_arrival()
    mortal_cluster.kill()

    assert effects(committed, todo) == [1, 0]
    mortal_cluster.gate(committed).open()
    mortal_cluster.start(lease_seconds=2)
    sweep_until_finished(task)

    assert task.status == Status.SUCCESS
    assert effects(committed, todo) == [1, 1]
    assert not ObjectLock.objects.exists()


@both_brokers
def test_what_a_process_has_saved_that_is_killed_before_it_can_send_is_done(
    idle_cluster: Cluster, short_leases: None, broker: MessageBroker, start_child: StartChild
) -> None:
    idle_cluster.stop()
    gear = new_gear(teeth=1)
    killed = start_child(child.save_and_die, gear.pk)
    assert killed.wait(PATIENCE) == -signal.SIGKILL, killed.communicate()[0]

    task = AsyncTask.objects.get()
    assert (task.status, task.queue_error) == (Status.PENDING, "")
    assert set(locks()) == keys(gear, *gear.teeth.all())
    # The rows of the ORM broker commit with the save; to Redis nothing was sent.
    assert broker.size() == (1 if isinstance(broker, OrmBroker) else 0)
    idle_cluster.start(lease_seconds=2)
    task.result(timeout=PATIENCE)
    assert effects(gear) == [1]
    assert not ObjectLock.objects.exists()
