"""Several processes sweep while a worker that was taken for dead comes back."""

from __future__ import annotations

import pytest

from powercrud_models.lifecycle.claiming import expired
from powercrud_models.models import AsyncTask, ObjectLock
from tests import scripts
from tests.cluster import Cluster
from tests.faults import child
from tests.faults.conftest import StartChild
from tests.faults.test_stopped import outcome, stop
from tests.gates import PATIENCE, until
from tests.kinds.models import Machine
from tests.machines import new_machine, saved

pytestmark = pytest.mark.cluster

SWEEPS = 2


def test_two_sweeps_and_a_late_worker_at_once_finish_the_task_once(
    mortal_cluster: Cluster, start_child: StartChild
) -> None:
    machine, meeting = new_machine(scripts.write_late), new_machine()
    sweeps = [start_child(child.sweep_once, meeting.pk) for _ in range(SWEEPS)]
    mortal_cluster.gate(meeting, child.ARRIVED).wait_for_arrival(times=SWEEPS)
    task = saved(machine)
    gate = mortal_cluster.gate(machine)
    gate.wait_for_arrival()
    for worker in mortal_cluster.workers:  # the idle one, too: nobody is to sweep before the two
        stop(mortal_cluster, worker)
    mine = AsyncTask.objects.filter(expired("default"), pk=task.key)
    until(mine.exists, "its lease ran out")

    mortal_cluster.open_all_gates()
    mortal_cluster.resume()
    sent = sum(int(sweep.communicate(timeout=PATIENCE)[0]) for sweep in sweeps)
    returned = task.result(timeout=PATIENCE)
    ended = outcome()
    mortal_cluster.wait_until_workers_meet()

    assert sent <= 1
    assert outcome() == ended
    # Whoever came first has done it, and nobody else.
    name = Machine.objects.get(pk=machine.pk).name
    assert (returned, name, task.attempts) in [
        (scripts.SECOND, "new", 2),
        (scripts.LATE, scripts.LATE, 1),
    ]
    assert not ObjectLock.objects.exists()
