"""What is seen of a task while a worker of a real qcluster has it in hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from django.contrib.auth.models import User
from django.db import connection

from powercrud_models import ConflictError, acting_user
from powercrud_models.lifecycle.claiming import expired
from powercrud_models.models import AsyncTask, TaskPulse
from tests import scripts
from tests.cluster import Cluster
from tests.gates import PATIENCE, until
from tests.kinds.models import Gear, Machine
from tests.machines import effects, new_gear, new_machine, new_tooth, saved

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("new_object", [new_machine, new_gear])
def test_a_running_task_can_be_watched_and_names_itself_to_who_is_refused(
    cluster: Cluster, new_object: Callable[..., Machine | Gear]
) -> None:
    obj = new_object(scripts.step_by_step)
    if isinstance(obj, Gear) and connection.vendor == "sqlite":
        pytest.skip("a transaction that is open keeps the heartbeat out: SQLite has one writer")
    descendant = new_gear(machine=obj) if isinstance(obj, Machine) else new_tooth(obj)
    ada = User.objects.create_user("ada")
    with acting_user(ada):
        task = saved(obj)
    names_it = f"{obj._meta.verbose_name} {obj.pk}”, started by ada at .*in progress"
    seen = []

    def has_shown(step: int) -> bool:
        progress = task.progress
        assert progress.total is None or progress.current <= progress.total
        seen.append((progress.current, progress.fraction))
        return (progress.current, progress.total) == (step, scripts.STEPS)

    for step in range(scripts.STEPS):
        cluster.gate(obj, step).wait_for_arrival()
        until(partial(has_shown, step), f"step {step} was shown")
        for held in (obj, descendant):
            assert held.holder == task
            with pytest.raises(ConflictError, match=names_it) as refused:
                type(held)._base_manager.get(pk=held.pk).save()
            [conflict] = refused.value.conflicts
            assert (conflict.model, conflict.pk, conflict.holder) == (type(held), held.pk, task)
        with pytest.raises(TimeoutError):
            task.result(timeout=0)
        cluster.gate(obj, step).open()

    task.result(timeout=PATIENCE)
    assert seen == sorted(seen)
    assert all(fraction < 1 for _, fraction in seen)
    assert (task.progress.items_done, task.progress.fraction) == (1, 1.0)
    assert task.user == ada
    assert obj.holder is descendant.holder is None
    assert effects(obj) == [1]
    obj.script = ""
    saved(obj).result(timeout=PATIENCE)
    descendant.save()


def test_the_steps_of_one_item_are_not_counted_for_the_next(cluster: Cluster) -> None:
    first, second = new_machine(scripts.step_by_step), new_machine(scripts.wait)
    task = saved(first, second)

    def has_shown(step: int) -> bool:
        return task.progress.current == step

    for step in range(scripts.STEPS):
        cluster.gate(first, step).wait_for_arrival()
        until(partial(has_shown, step), f"step {step} was shown")
        cluster.gate(first, step).open()

    def second_has_begun() -> bool:
        progress = task.progress
        assert progress.fraction <= 0.5, progress
        return cluster.gate(second).arrivals > 0 and progress.items_done == 1

    until(second_has_begun, "the second item was at work")
    assert task.progress.fraction == 0.5
    cluster.gate(second).open()
    task.result(timeout=PATIENCE)


def test_a_heartbeat_renews_the_lease(mortal_cluster: Cluster) -> None:
    machine = new_machine(scripts.wait)
    task = saved(machine)
    mortal_cluster.gate(machine).wait_for_arrival()
    lease = TaskPulse.objects.get(task=task).lease_until
    until(lambda: TaskPulse.objects.get(task=task).lease_until > lease, "the lease was renewed")
    mortal_cluster.gate(machine).open()
    assert task.result(timeout=PATIENCE) == 1


def test_who_is_refused_by_silent_work_is_told_so(mortal_cluster: Cluster) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only where one transaction writes at a time, the heartbeat falls silent")
    gear = new_gear(scripts.wait)
    task = saved(gear)
    mortal_cluster.gate(gear).wait_for_arrival()
    mine = AsyncTask.objects.filter(expired("default"), pk=task.pk)
    until(mine.exists, "the lease ran out")

    with pytest.raises(ConflictError) as refused:
        gear.save()

    assert [conflict.holder for conflict in refused.value.conflicts] == [task]
    mortal_cluster.gate(gear).open()
    assert task.result(timeout=PATIENCE) == 1
