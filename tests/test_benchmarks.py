"""The benchmarks run, and their exit status says what their tables say; how fast is not asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).resolve().parent.parent
MOST_SECONDS = 290
ON_SQLITE = ("--broker", "orm", "--database", "sqlite")
CHAOS = {
    "tasks whose effects were seen exactly once": ("4", "4"),
    "tasks with an effect more than once": ("0", "0"),
    "tasks with an effect never": ("0", "0"),
    "tasks that failed": ("0", "0"),
    "tasks that had not ended": ("0", "0"),
    "locks left": ("0", "0"),
    "false successes": ("0", "0"),
}


def run(benchmark: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{benchmark}", *ON_SQLITE, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MOST_SECONDS,
        check=False,
    )
    sys.stdout.write(ended.stdout + ended.stderr)
    return ended


def table(printed: str) -> dict[str, list[str]]:
    """The cells of each row by its first one; columns are two blanks apart."""
    lines = ([cell for cell in line.split("  ") if cell.strip()] for line in printed.splitlines())
    return {cells[0]: [cell.strip() for cell in cells[1:]] for cells in lines if cells}


def test_chaos_counts_each_effect_once():
    ended = run("chaos", "--tasks", "4", "--kill-every", "1", "--seed", "2")

    rows = table(ended.stdout)
    assert {what: tuple(rows[what]) for what in CHAOS} == {
        what: (*figures, "yes") for what, figures in CHAOS.items()
    }
    takeover = rows["longest that a dead worker kept a task, with a worker running"]
    assert takeover[-1] in {"yes", "NO"}
    assert ended.returncode == (takeover[-1] == "NO")
    assert "struck: nothing" not in ended.stdout


def test_throughput_compares_tasks_that_all_ended_well():
    ended = run("throughput", "--tasks", "20", "--rounds", "1")

    [broker, database, *_, met] = next(
        line.split() for line in ended.stdout.splitlines() if line.startswith("orm ")
    )
    assert (broker, database) == ("orm", "sqlite")
    assert met in {"aim", "must", "NO"}
    assert ended.returncode == (met == "NO")
    assert "'save_limit': -1" in ended.stdout
    assert "orm broker, sqlite:" not in ended.stdout  # how some task has not ended well
