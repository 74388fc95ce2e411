"""A real qcluster on the database of the running tests, in a process group of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from django.core.management import execute_from_command_line
from django.db import connection
from django.db.models import Model
from django.utils import timezone

from tests.gates import ALL_OPEN, FOLDER, Gate, until

ROOT = Path(__file__).resolve().parent.parent

STOP_SECONDS = 10
"""How long a cluster may take to end in order before it is killed."""


class Cluster:
    """It is started and killed by the test, and ended by ``stop`` in any case.

    Should this process die without a word, the cluster does too: see ``_end_with_parent``.
    """

    def __init__(self, folder: Path) -> None:
        self._gates = folder / "gates"
        self._log = folder / "qcluster.log"
        self._log.touch()
        self._process: subprocess.Popen[bytes] | None = None
        self._lease_seconds = 0
        self._lost: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Close every gate, and forget who has come to it."""
        shutil.rmtree(self._gates, ignore_errors=True)
        self._gates.mkdir()
        self._lost = set()

    def gate(self, obj: Model, point: object = "") -> Gate:
        return Gate(self._gates, obj, point)

    def open_all_gates(self) -> None:
        (self._gates / ALL_OPEN).touch()

    def start(self, *, lease_seconds: int = 60) -> None:
        """Start it, unless one with this lease is running, and wait until a worker works.

        Open the gates first that queued tasks will come to: a worker that waits is not ready.
        """
        from django_q.tasks import async_task

        if self.is_running and self._lease_seconds == lease_seconds:
            return
        self.stop()
        self._lease_seconds = lease_seconds
        environment = {
            "CLUSTER_DATABASE": str(connection.settings_dict["NAME"]),
            "CLUSTER_LEASE_SECONDS": str(lease_seconds),
            "DJANGO_SETTINGS_MODULE": "tests.cluster_settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sample_project")]),
            "PYTHONUNBUFFERED": "1",
            FOLDER: str(self._gates),
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        ready = self._gates / f"ready-{self._process.pid}"
        async_task("pathlib.Path.touch", ready, q_options={"save": False})
        until(lambda: ready.exists() or not self.is_running, "the cluster was ready")
        if not self.is_running:
            raise RuntimeError(f"The cluster ended while it started:\n{self.log()}")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL everything at once: workers, sentinel, monitor, pusher."""
        from django_q.models import OrmQ

        assert self.is_running, self.log()
        self._kill_group()
        # What it had pulled is locked for longer than any test takes.
        self._lost = set(OrmQ.objects.filter(lock__gt=timezone.now()).values_list("pk", flat=True))

    def stop(self) -> None:
        """End it in order, or else by force; afterwards no process of it is left."""
        if self._process is not None:
            if self.is_running:
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_SECONDS)
            self._kill_group()

    def wait_until_idle(self, *, but_for: int = 0) -> None:
        """Wait until it has acknowledged every message (but for so many that are being run).

        From then on it leaves the database alone.
        """
        from django_q.models import OrmQ

        unacknowledged = OrmQ.objects.exclude(pk__in=self._lost)
        until(
            lambda: unacknowledged.count() <= but_for or not self.is_running,
            "the cluster had nothing left to do",
        )

    def log(self, start: int = 0) -> str:
        """What it has printed, from this byte on."""
        return self._log.read_bytes()[start:].decode(errors="replace")

    @property
    def log_size(self) -> int:
        return self._log.stat().st_size

    def _kill_group(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        with suppress(ProcessLookupError):  # all of them have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()
        until(lambda: not processes_of_group(process.pid), "the cluster's processes were gone")


def processes_of_group(group: int) -> list[int]:
    """The living processes of a process group; those that only wait to be reaped do not count."""
    if not Path("/proc/self/stat").exists():
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):  # the latter: only dead ones are left
            return []
        return [group]
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state not in "ZX":
                found.append(int(stat.parent.name))
    return found


def _end_with_parent() -> None:
    """Kill this process group when the other end of the pipe is closed, even by a SIGKILL."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    execute_from_command_line(["manage.py", "qcluster"])
