"""The sample project's demo, as the README starts it, on two plays."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

MANAGE = Path(__file__).parent.parent / "sample_project" / "manage.py"
SECONDS = 120

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        os.environ.get("TEST_DATABASE", "sqlite") != "sqlite", reason="the demo is on SQLite"
    ),
]


@contextmanager
def demo(database: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(MANAGE), "demo", "--limit", "2", *arguments]
    environment = {
        **os.environ,
        "SAMPLE_ENGINE": "sqlite",
        "SAMPLE_DATABASE": str(database),
        "PYTHONUNBUFFERED": "1",
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell that runs the tests in the background has them ignore Ctrl-C, and all they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def run_demo(database: Path, *arguments: str) -> str:
    with demo(database, *arguments) as process:
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    return output


def locks_and_tasks(database: Path) -> tuple[int, int]:
    """Locks that are left, and tasks that have not ended."""
    with closing(sqlite3.connect(database)) as connection:
        [locks] = connection.execute("SELECT count(*) FROM powercrud_models_objectlock").fetchone()
        [tasks] = connection.execute(
            "SELECT count(*) FROM powercrud_models_asynctask "
            "WHERE status NOT IN ('success', 'failed', 'cancelled')"
        ).fetchone()
    return locks, tasks


def processes_on(database: Path) -> list[str]:
    """Every process that was started for this database, from its environment."""
    variable = f"SAMPLE_DATABASE={database}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable in environment.read_bytes().split(b"\0"):
                found.append(environment.parent.name)
        except OSError:
            continue  # it has ended, or is none of ours
    return found


def test_it_ends_with_a_table_of_what_it_proved_and_can_run_again(tmp_path):
    database = tmp_path / "demo.sqlite3"
    for _ in range(2):
        output = run_demo(database)

        assert re.search(r"A save of “.*” was refused: scene \d+ is held by the task", output)
        assert "started by editor" in output
        assert re.search(r"success +\|#{40}\| 2 of 2 done, 100%", output)
        assert re.search(r"plays +2\n", output)
        assert re.search(r"counts that are wrong +0\n", output)
        assert re.search(r"locks left +0\n", output)
        assert locks_and_tasks(database) == (0, 0)
        assert processes_on(database) == []


def test_it_does_the_same_inline(tmp_path):
    database = tmp_path / "demo.sqlite3"

    output = run_demo(database, "--inline")

    assert re.search(r"counts that are wrong +0\n", output)
    assert locks_and_tasks(database) == (0, 0)
    with closing(sqlite3.connect(database)) as connection:
        tasks = connection.execute("SELECT count(*) FROM powercrud_models_asynctask").fetchone()
    assert tasks == (0,)


@pytest.mark.parametrize(
    ("when", "sent"),
    [
        ("Start a qcluster", signal.SIGINT),
        ("Save “", signal.SIGINT),
        ("Save every play", signal.SIGINT),
        ("of 2 done", signal.SIGINT),
        ("of 1 done", signal.SIGTERM),
    ],
)
def test_an_interrupt_leaves_no_process_and_no_lock(tmp_path, when, sent):
    database = tmp_path / "demo.sqlite3"
    with demo(database) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if when in line:
                break
        else:
            pytest.fail(f"The demo never said {when!r}.")
        process.send_signal(sent)
        output, _ = process.communicate(timeout=SECONDS)

    assert process.returncode == 130, output
    assert processes_on(database) == []
    assert locks_and_tasks(database) == (0, 0)
