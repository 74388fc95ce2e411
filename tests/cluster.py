"""A real qcluster on the database of the running tests, in a process group of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from django.core.management import execute_from_command_line
from django.db import connection
from django.db.models import Model
from django.utils import timezone

from tests.brokers import MessageBroker, OrmBroker
from tests.gates import ALL_OPEN, FOLDER, Gate, have_met, until
from tests.processes import parent_of, processes_of_group

ROOT = Path(__file__).resolve().parent.parent

STOP_SECONDS = 10
"""How long a cluster may take to end in order before it is killed."""
WORKERS = 2
"""How many it has: see the sample project."""


class Cluster:
    """It is started and killed by the test, and ended by ``stop`` in any case.

    Should this process die without a word, the cluster does too: see ``_end_with_parent``.
    """

    def __init__(self, folder: Path) -> None:
        self._gates = folder / "gates"
        self._log = folder / "qcluster.log"
        self._log.touch()
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._environment: dict[str, str] = {}
        self._lost: set[int] = set()
        self._numbers = count()
        self.broker: MessageBroker = OrmBroker()
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

    def environment(
        self,
        *,
        lease_seconds: int = 60,
        settings: Mapping[str, Any] | None = None,
        q_cluster: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        """What tells a process to work as one of this cluster does; for the arguments, see start.

        The server is the one that this process is connected to, whatever its settings say.
        """
        server = connection.settings_dict
        engine, address = {
            "sqlite": ("sqlite", ()),
            "postgresql": ("postgresql", ("PGHOST", "PGPORT", "PGUSER")),
            "mysql": ("mariadb", ("MYSQL_HOST", "MYSQL_TCP_PORT", "MYSQL_USER")),
        }[connection.vendor]
        return {
            "CLUSTER_DATABASE": str(server["NAME"]),
            "CLUSTER_LEASE_SECONDS": str(lease_seconds),
            "CLUSTER_POWERCRUD_SETTINGS": json.dumps(dict(settings or {})),
            "CLUSTER_Q_CLUSTER": json.dumps({**self.broker.q_cluster, **(q_cluster or {})}),
            "DJANGO_SETTINGS_MODULE": "tests.cluster_settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sample_project")]),
            "PYTHONUNBUFFERED": "1",
            "SAMPLE_ENGINE": engine,
            FOLDER: str(self._gates),
            **{
                name: str(server[part])
                for name, part in zip(address, ("HOST", "PORT", "USER"), strict=False)
            },
        }

    def start(
        self,
        *,
        lease_seconds: int = 60,
        settings: Mapping[str, Any] | None = None,
        q_cluster: Mapping[str, Any] | None = None,
    ) -> None:
        """Start it, unless one like it is running, and wait until a worker works.

        ``settings`` and ``q_cluster`` are laid over its POWERCRUD_SETTINGS and Q_CLUSTER. Open the
        gates first that queued tasks will come to: a worker that waits is not ready.
        """
        from django_q.tasks import async_task

        environment = self.environment(
            lease_seconds=lease_seconds, settings=settings, q_cluster=q_cluster
        )
        if self.is_running and self._environment == environment:
            return
        self.stop()
        self._environment = environment
        self._log_start = self.log_size
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

    @property
    def main(self) -> int:
        """The id of the process that was started; its group bears the same number."""
        assert self._process is not None
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The ids of those that live, in the order in which they were started."""
        return self._living("ready for work at")

    @property
    def pusher(self) -> int:
        return self._living("pushing tasks at")[-1]

    @property
    def monitor(self) -> int:
        return self._living("monitoring at")[-1]

    @property
    def sentinel(self) -> int:
        return parent_of(self.pusher)

    def _living(self, said: str) -> list[int]:
        """Those that have said so in the log of the cluster that runs now."""
        group = processes_of_group(self.main)
        told = re.findall(rf"{said} (\d+)", self.log(self._log_start))
        return [pid for pid in map(int, told) if pid in group]

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to one process of it, and to no other: stop it, let it go on, kill it."""
        assert pid in processes_of_group(self.main), f"{pid} is no process of this cluster"
        os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL everything at once: workers, sentinel, monitor, pusher."""
        from django_q.models import OrmQ

        assert self.is_running, self.log()
        self._kill_group()
        # What it had pulled is locked for longer than any test takes.
        self._lost = set(OrmQ.objects.filter(lock__gt=timezone.now()).values_list("pk", flat=True))

    def wait_until_ended(self) -> None:
        """Wait for one that was told to end; no process of it is left, because none may be."""
        assert self._process is not None
        self._process.wait(STOP_SECONDS * 2)
        self._kill_group()

    def stop(self) -> None:
        """End it in order, or else by force; afterwards no process of it is left."""
        if self._process is not None:
            if self.is_running:
                self.resume()
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_SECONDS)
            self._kill_group()

    def resume(self) -> None:
        """Let all go on that were stopped."""
        with suppress(ProcessLookupError):
            os.killpg(self.main, signal.SIGCONT)

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

    def wait_until_workers_meet(self) -> None:
        """Wait until no worker is at work, and none has anything to do that was sent before.

        A broker like Redis does not know what has been done.
        """
        from django_q.tasks import async_task

        place = self._gates / f"meeting-{next(self._numbers)}"
        for _ in range(WORKERS):
            async_task("tests.gates.meet", str(place), WORKERS, q_options={"save": False})
        until(
            lambda: have_met(place, WORKERS) or not self.is_running,
            "the workers had nothing to do",
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


def _end_with_parent() -> None:
    """Kill this process group when the other end of the pipe is closed, even by a SIGKILL."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    execute_from_command_line(["manage.py", "qcluster"])
