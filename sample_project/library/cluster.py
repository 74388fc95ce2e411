"""A qcluster as a child process, which ends with the block that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from django.conf import settings

STOP_SECONDS = 120
"""How long a cluster may take to finish the tasks that it has in hand."""


class Cluster:
    """Start ``manage.py qcluster``; stop it at the end of the block.

    It has a process group of its own: Ctrl-C reaches only the parent, which then ends it in order.
    """

    def __enter__(self) -> Cluster:
        self._log = tempfile.NamedTemporaryFile(  # it lives as long as the cluster
            prefix="qcluster-", suffix=".log"
        )
        held: list[int] = []  # an interrupt inside Popen would leave a child that nobody knows
        handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        for each in handlers:
            signal.signal(each, lambda number, _: held.append(number))
        self._process = subprocess.Popen(
            [sys.executable, str(Path(settings.BASE_DIR) / "manage.py"), "qcluster"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            for each, handler in handlers.items():
                signal.signal(each, handler)
            if held:
                raise KeyboardInterrupt
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        try:
            self._process.terminate()
            self._process.wait(STOP_SECONDS)
        finally:  # whatever is left of the group, at a second Ctrl-C too
            self._kill_group()
            self._process.wait()
            self._log.close()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        """What it has printed so far."""
        return Path(self._log.name).read_text(errors="replace")

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError):  # it has ended in order
            os.killpg(self._process.pid, signal.SIGKILL)
