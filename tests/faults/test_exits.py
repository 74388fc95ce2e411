"""Work ends in ways that work should not, and returns or raises what nobody can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from powercrud_models.exceptions import PowerCRUDError, TaskFailed
from powercrud_models.models import AsyncTask, ObjectLock
from tests import scripts
from tests.cluster import Cluster
from tests.gates import PATIENCE, until
from tests.machines import effects, items, new_gear, new_machine, saved

pytestmark = pytest.mark.cluster

Status = AsyncTask.Status


@pytest.mark.parametrize(
    ("script", "says"),
    [
        pytest.param(scripts.exit_in_order, "SystemExit: out of order", id="sys.exit"),
        pytest.param(scripts.run_out_of_memory, "MemoryError: no memory left", id="MemoryError"),
        pytest.param(scripts.raise_unspeakable, "Unspeakable: ", id="unspeakable"),
    ],
)
@pytest.mark.parametrize("new_object", [new_machine, new_gear])
def test_what_work_raises_fails_its_item_and_the_worker_goes_on(
    cluster: Cluster,
    new_object: Callable[..., Any],
    script: Callable[..., Any],
    says: str,
) -> None:
    workers = cluster.workers
    before, broken, after = new_gear(), new_object(script), new_gear()
    task = saved(before, broken, after)

    with pytest.raises(TaskFailed, match=says):
        task.result(timeout=PATIENCE)
    assert [status for *_, status in items(task)] == ["done", "failed", "done"]
    failed = task.items.get(status="failed")
    assert f"in {script.__name__}\n" in failed.error
    assert effects(before, after) == [1, 1]
    assert effects(broken) == [0 if new_object is new_gear else 1]
    assert (task.attempts, task.recoveries) == (1, 0)
    assert not ObjectLock.objects.exists()
    cluster.wait_until_workers_meet()
    assert cluster.workers == workers


@pytest.mark.parametrize("new_object", [new_machine, new_gear])
def test_a_return_value_that_cannot_be_told_fails_its_item(
    cluster: Cluster, new_object: Callable[..., Any]
) -> None:
    before, broken, after = new_gear(), new_object(scripts.return_unspeakable), new_gear()
    task = saved(before, broken, after)
    with pytest.raises(TaskFailed, match="RuntimeError: not to be told"):
        task.result(timeout=PATIENCE)
    assert [status for *_, status in items(task)] == ["done", "failed", "done"]
    assert effects(before, after) == [1, 1]
    assert not ObjectLock.objects.exists()


def test_a_return_value_that_json_cannot_carry_fails_nothing(cluster: Cluster) -> None:
    gear, after = new_gear(scripts.return_what_json_cannot_carry), new_gear()
    task = saved(gear, after)
    with pytest.raises(PowerCRUDError, match=r"returned \{1j\}, which JSON cannot carry"):
        task.result(timeout=PATIENCE)
    assert (task.status, task.error) == (Status.SUCCESS, "")
    assert [status for *_, status in items(task)] == ["done", "done"]
    assert effects(gear, after) == [1, 1]
    assert not ObjectLock.objects.exists()


def test_work_that_is_interrupted_is_undone_and_begun_again_at_once(cluster: Cluster) -> None:
    done, interrupted, todo = new_gear(), new_gear(scripts.interrupt_once), new_gear()
    task = saved(done, interrupted, todo)

    assert task.result(timeout=PATIENCE) == [None, scripts.SECOND, None]
    assert effects(done, interrupted, todo) == [1, 1, 1]
    assert task.attempts == 2
    [first, second] = cluster.gate(interrupted, scripts.VISITS).visitors
    assert first != second
    until(lambda: first not in cluster.workers, "the interrupted worker was gone")
    assert not ObjectLock.objects.exists()


def test_work_that_is_interrupted_each_time_fails(cluster: Cluster) -> None:
    interrupted, todo = new_gear(scripts.interrupt), new_gear()
    task = saved(interrupted, todo)

    with pytest.raises(TaskFailed, match="KeyboardInterrupt"):
        task.result(timeout=PATIENCE)
    assert cluster.gate(interrupted, scripts.VISITS).arrivals == 4  # once, and three recoveries
    assert effects(interrupted) == [0]
    assert not ObjectLock.objects.exists()
    cluster.wait_until_workers_meet()


def test_work_that_ends_its_process_is_taken_up_by_another(mortal_cluster: Cluster) -> None:
    done, ends, todo = new_gear(), new_gear(scripts.exit_at_once), new_gear()
    task = saved(done, ends, todo)

    assert task.result(timeout=PATIENCE) == [None, scripts.SECOND, None]
    assert effects(done, ends, todo) == [1, 1, 1]
    assert task.attempts > 1
    [first, second] = mortal_cluster.gate(ends, scripts.VISITS).visitors
    assert first != second
    assert first not in mortal_cluster.workers
    assert not ObjectLock.objects.exists()
