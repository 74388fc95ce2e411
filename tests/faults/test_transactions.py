"""Transactions that are undone, and four processes that write to one database."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
from django.db import OperationalError, connection, transaction

from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from tests.brokers import both_brokers
from tests.cluster import Cluster
from tests.faults import child
from tests.faults.conftest import StartChild
from tests.gates import PATIENCE, until
from tests.kinds.models import Gear, Tag
from tests.machines import effects, new_gear
from tests.stage import Stage

pytestmark = pytest.mark.cluster

Status = AsyncTask.Status

WRITERS = 4
SAVES = 8


@both_brokers
def test_a_transaction_that_rolls_back_leaves_nothing_for_the_cluster(cluster: Cluster) -> None:
    undone, undone_in_savepoint, kept = new_gear(), new_gear(), new_gear()
    with suppress(KeyError), transaction.atomic():
        undone.save()
        raise KeyError
    with transaction.atomic():
        with suppress(KeyError), transaction.atomic():
            undone_in_savepoint.save()
            raise KeyError
        kept.save()
    assert undone.async_task is undone_in_savepoint.async_task is None

    start = cluster.log_size
    kept.async_task.result(timeout=PATIENCE)
    cluster.wait_until_workers_meet()
    assert cluster.log(start).count("powercrud_models.tasks.run_task") <= 2  # begun, done
    assert effects(undone, undone_in_savepoint, kept) == [0, 0, 1]
    assert [each.key for each in AsyncTask.objects.all()] == [kept.async_task.key]
    assert TaskItem.objects.count() == 1
    assert not ObjectLock.objects.exists()


def test_four_writers_beside_two_workers_lose_nothing(
    cluster: Cluster, start_child: StartChild
) -> None:
    gears = [[new_gear() for _ in range(SAVES)] for _ in range(WRITERS)]
    writers = [start_child(child.save_each, *(gear.pk for gear in own)) for own in gears]
    for own in gears:
        arrivals = cluster.gate(own[0], child.ARRIVED)
        until(lambda here=arrivals: here.arrivals, "all writers were ready")  # type: ignore[misc]
    cluster.open_all_gates()
    printed = [writer.communicate(timeout=PATIENCE)[0] for writer in writers]

    assert [(writer.returncode, text) for writer, text in zip(writers, printed, strict=True)] == [
        (0, "")
    ] * WRITERS
    for task in AsyncTask.objects.all():
        task.result(timeout=PATIENCE)
    everything = [gear for own in gears for gear in own]
    assert effects(*everything) == [1] * len(everything)
    assert AsyncTask.objects.filter(status=Status.SUCCESS).count() == len(everything)
    assert Tag.objects.count() == len(everything)
    assert Gear.objects.filter(name="new").count() == 0
    assert not ObjectLock.objects.exists()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer")
def test_of_two_transactions_in_a_deadlock_one_is_undone_and_the_other_runs(
    cluster: Cluster, stage: Stage
) -> None:
    gears = [new_gear(teeth=1), new_gear(teeth=1)]
    have_saved = [stage.stop(), stage.stop()]

    def save_both(number: int) -> AsyncTask | None:
        with transaction.atomic():
            first, second = (Gear.objects.get(pk=gears[n].pk) for n in (number, 1 - number))
            first.name = second.name = f"saved by {number}"
            first.save()
            have_saved[number].wait_here()
            second.save()
        return second.async_task

    actors = [stage.act(partial(save_both, n), f"transaction {n}") for n in range(2)]
    for stop in have_saved:
        stop.wait_until_reached()
    for stop in have_saved:
        stop.let_go()
    errors = [actor.error() for actor in actors]

    [winner] = [number for number, error in enumerate(errors) if error is None]
    loser = errors[1 - winner]
    assert isinstance(loser, OperationalError), loser
    assert "deadlock" in str(loser).lower()
    task = actors[winner].result()
    assert [each.key for each in AsyncTask.objects.all()] == [task.key]
    task.result(timeout=PATIENCE)
    assert effects(*gears) == [1, 1]
    assert {gear.name for gear in Gear.objects.all()} == {f"saved by {winner}"}
    assert TaskItem.objects.count() == len(gears)
    assert not ObjectLock.objects.exists()
