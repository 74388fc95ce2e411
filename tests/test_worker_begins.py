"""Which processes are workers of django-q2: it says so of others, too, when it calls in sync."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.cluster import ROOT

SCRIPT = """
import json
import multiprocessing
import threading

import django

django.setup()

from django_q.signals import post_spawn
from django_q.tasks import async_task
from django_q.worker import worker

from powercrud_models.queues.django_q2 import when_a_worker_begins

post_spawn.disconnect(dispatch_uid="powercrud_models")  # that of the app
begun = []
when_a_worker_begins(begun.append)
fork = multiprocessing.get_context("fork")
counts = fork.SimpleQueue()


def call_in_sync():
    async_task("math.sqrt", 4, sync=True, save=False)


def tell():
    counts.put(len(begun))


def other_process():
    call_in_sync()
    tell()


def process_with_thread():
    thread = threading.Thread(target=call_in_sync)
    thread.start()
    thread.join()
    tell()


def tasks(*calls):
    queue = fork.SimpleQueue()
    for call in calls:
        queue.put({"id": "1", "name": "one", "func": call, "args": (), "kwargs": {}})
    queue.put("STOP")
    return queue


def count(target, *args):
    process = fork.Process(target=target, args=args)
    if target is worker:
        process.timer = args[2]  # as a cluster's sentinel does
    process.start()
    process.join()
    assert process.exitcode == 0
    return counts.get()


call_in_sync()
web_process = len(begun)
found = {
    "web process": web_process,
    "process of a pool": count(other_process),
    "thread": count(process_with_thread),
    "worker": count(worker, tasks(tell), fork.SimpleQueue(), fork.Value("f", -1)),
    "worker that calls": count(
        worker, tasks(call_in_sync, tell), fork.SimpleQueue(), fork.Value("f", -1)
    ),
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How often a worker began, by the kind of process."""
    environment = {
        "SAMPLE_ENGINE": "sqlite",
        "SAMPLE_DATABASE": str(tmp_path_factory.mktemp("begun") / "empty.sqlite3"),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sample_project")]),
    }
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def test_a_call_in_sync_makes_no_worker_of_an_ordinary_process(begun: dict[str, Any]) -> None:
    assert begun["web process"] == 0


def test_nor_of_one_that_another_package_has_started(begun: dict[str, Any]) -> None:
    """Such as those of ``test --parallel``."""
    assert begun["process of a pool"] == 0


def test_nor_of_a_thread(begun: dict[str, Any]) -> None:
    assert begun["thread"] == 0


def test_a_worker_begins_when_its_process_does(begun: dict[str, Any]) -> None:
    assert begun["worker"] == 1


def test_a_call_in_sync_by_a_worker_does_not_make_it_begin_again(begun: dict[str, Any]) -> None:
    assert begun["worker that calls"] == 1
