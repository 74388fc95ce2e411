"""Messages come too often, or not at all; what they call for is gone, or from another version."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial

import pytest
from django.db import connection, transaction

from powercrud_models.exceptions import TaskFailed
from powercrud_models.lifecycle import send
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from tests import scripts
from tests.brokers import MessageBroker, RedisBroker, both_brokers
from tests.cluster import WORKERS, Cluster
from tests.gates import PATIENCE, until
from tests.kinds.models import Gear
from tests.machines import effects, keys, locks, new_gear, new_machine, saved

pytestmark = pytest.mark.cluster

Status = AsyncTask.Status

QUEUED = 50


@both_brokers
def test_five_messages_at_once_start_a_task_once(cluster: Cluster, broker: MessageBroker) -> None:
    machine, gears = new_machine(scripts.wait), [new_gear() for _ in range(6)]
    tasks = []
    for obj in (machine, *gears):
        with transaction.atomic():
            tasks.append(saved(obj))
            for _ in range(4):  # beside the one that the save sends
                transaction.on_commit(partial(send, tasks[-1].key))

    cluster.gate(machine).wait_for_arrival()
    until(lambda: broker.size() == 0, "the other worker had all the messages")
    assert cluster.gate(machine).arrivals == 1
    cluster.gate(machine).open()
    for task in tasks:
        task.result(timeout=PATIENCE)
    cluster.wait_until_workers_meet()

    assert effects(machine, *gears) == [1] * len(tasks)
    assert set(AsyncTask.objects.values_list("attempts", "fence")) == {(1, 1)}


@both_brokers
def test_what_an_emptied_broker_has_lost_is_sent_again(
    idle_cluster: Cluster, short_leases: None, broker: MessageBroker
) -> None:
    idle_cluster.stop()
    gears = [new_gear() for _ in range(QUEUED)]
    tasks = [saved(gear) for gear in gears]
    assert broker.size() == QUEUED
    broker.empty()
    assert broker.size() == 0

    idle_cluster.start(lease_seconds=2)
    for task in tasks:
        task.result(timeout=PATIENCE)
    assert effects(*gears) == [1] * QUEUED
    assert set(AsyncTask.objects.values_list("status", flat=True)) == {Status.SUCCESS}
    assert AsyncTask.objects.count() == QUEUED
    assert not ObjectLock.objects.exists()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens at, and nobody else is given."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_save_succeeds_though_its_broker_is_down_and_is_sent_later(
    idle_cluster: Cluster,
    short_leases: None,
    broker: MessageBroker,
    closed_port: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gear = new_gear()
    gear.name = "saved"
    with pytest.MonkeyPatch.context() as patch:
        RedisBroker(f"redis://127.0.0.1:{closed_port}/9").use(patch)
        gear.save()

    task = gear.async_task
    assert (Gear.objects.get(pk=gear.pk).name, task.status) == ("saved", Status.PENDING)
    assert task.queue_error.startswith("ConnectionError: ")
    assert f"Task {task.key} is saved but could not be sent" in caplog.text
    assert set(locks()) == keys(gear)
    assert broker.size() == 0
    idle_cluster.start(lease_seconds=2)
    task.result(timeout=PATIENCE)
    assert effects(gear) == [1]


@pytest.mark.parametrize("version", [0, 99])
def test_a_payload_of_another_version_is_refused(cluster: Cluster, version: int) -> None:
    gear = new_gear(teeth=1)
    with transaction.atomic():
        task = saved(gear)
        AsyncTask.objects.filter(pk=task.key).update(payload_version=version)

    with pytest.raises(TaskFailed, match=f"payload version {version}; this worker reads"):
        task.result(timeout=PATIENCE)
    assert effects(gear) == [0]
    assert list(task.items.values_list("status", flat=True)) == ["skipped"]
    assert not ObjectLock.objects.exists()
    saved(Gear.objects.get(pk=gear.pk)).result(timeout=PATIENCE)


def test_an_object_that_was_deleted_by_raw_sql_while_queued_fails_alone(cluster: Cluster) -> None:
    busy = [new_machine(scripts.wait) for _ in range(WORKERS)]
    for machine in busy:
        saved(machine)
    for machine in busy:
        cluster.gate(machine).wait_for_arrival()
    deleted, kept = new_gear(), new_gear()
    task = saved(deleted, kept)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM kinds_gear WHERE id = %s", [deleted.pk])
    cluster.open_all_gates()

    with pytest.raises(TaskFailed, match="was deleted before “turn” could run on it"):
        task.result(timeout=PATIENCE)
    statuses = TaskItem.objects.filter(task=task).values_list("object_id", "status")
    assert dict(statuses) == {str(deleted.pk): "failed", str(kept.pk): "done"}
    assert effects(kept) == [1]
    until(lambda: not ObjectLock.objects.exists(), "all locks were free")
