"""Eight processes want overlapping sets of the same objects, and some of them are killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from powercrud_models.lifecycle import sweep
from powercrud_models.models import AsyncTask
from powercrud_models.stores import Store
from powercrud_models.types import ObjectKey
from tests.cluster import ROOT, Cluster
from tests.gates import until
from tests.kinds.models import Bolt, Part, Project

pytestmark = pytest.mark.cluster

PROCESSES, OBJECTS, TIMES = 8, 20, 8
ENDLESS = 1_000_000
PATIENCE = 120

Contender = subprocess.Popen[str]
Contend = Callable[..., list[Contender]]


@pytest.fixture
def bolts(store: Store) -> list[int]:
    project = Project(name="bridge")
    project.save(skip_async=True)
    part = Part(name="arch", project=project)
    part.save(skip_async=True)
    Bolt._base_manager.bulk_create(Bolt(name=str(number), part=part) for number in range(OBJECTS))
    return list(Bolt._base_manager.values_list("pk", flat=True))


@pytest.fixture
def contend(bolts: list[int], tmp_path: Path) -> Iterator[Contend]:
    """Start the processes; none outlives the test."""
    started: list[Contender] = []
    marks = tmp_path / "marks"
    marks.mkdir()

    def start(lease_seconds: int, times: Sequence[int]) -> list[Contender]:
        own = {
            **django_settings.POWERCRUD_SETTINGS,
            "ASYNC_ENABLED": False,
            "LEASE_SECONDS": lease_seconds,
            "HEARTBEAT_SECONDS": 1,
        }
        environment = {**os.environ, **Cluster(tmp_path / "cluster").environment()}
        for seed, often in enumerate(times):
            given: dict[str, Any] = {
                "settings": {"CACHES": django_settings.CACHES, "POWERCRUD_SETTINGS": own},
                "folder": str(marks),
                "pks": bolts,
                "times": often,
                "seed": seed,
            }
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.stores.contender", json.dumps(given)],
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        return started

    (tmp_path / "cluster").mkdir()
    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended_well(process: Contender) -> dict[str, Any]:
    """What it says at its end."""
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    said: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return said


def nothing_is_held(store: Store, bolts: list[int]) -> bool:
    keys = [ObjectKey("kinds.bolt", str(pk)) for pk in bolts]
    return not store.holders(keys, "default")


def test_no_object_is_held_by_two_and_each_process_gets_its_turn(
    store: Store, bolts: list[int], contend: Contend
) -> None:
    said = [ended_well(process) for process in contend(60, [TIMES] * PROCESSES)]

    assert [each["held"] for each in said] == [TIMES] * PROCESSES
    assert any(each["refused"] for each in said)
    assert not any(each["met"] for each in said)
    assert nothing_is_held(store, bolts)
    assert set(AsyncTask.objects.values_list("status", flat=True)) == {"success"}


def test_what_killed_processes_held_is_free_for_the_others_after_the_lease(
    store: Store, bolts: list[int], contend: Contend, tmp_path: Path, settings: Any
) -> None:
    settings.POWERCRUD_SETTINGS = {
        **settings.POWERCRUD_SETTINGS,
        "LEASE_SECONDS": 5,
        "HEARTBEAT_SECONDS": 1,
    }
    half = PROCESSES // 2
    processes = contend(5, [*[ENDLESS] * half, *[TIMES] * half])
    victims, others = processes[:half], processes[half:]
    chance = random.Random(1)
    for victim in victims:
        until(lambda: any((tmp_path / "marks").glob("[0-9]*")), "somebody held something")
        until(lambda: chance.random() < 0.2, "its time has come")
        victim.kill()
        victim.wait()

    def all_ended() -> bool:
        sweep()
        return all(process.poll() is not None for process in others)

    until(all_ended, "the others ended", PATIENCE)
    said = {process.pid: ended_well(process) for process in others}
    assert [each["held"] for each in said.values()] == [TIMES] * len(others)
    met = {pid for each in said.values() for pid in each["met"]} - {each.pid for each in victims}
    assert all(said[pid]["lost"] for pid in met)  # a machine may stand still for a whole lease
    until(lambda: sweep() and nothing_is_held(store, bolts), "nothing was held any more")
