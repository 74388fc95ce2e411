"""A PostgreSQL server of a test's own, which the test may start and stop as it likes."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 60
"""How long the server may take to start, or to stop."""


class Server:
    """It listens at a socket in its own folder, and nowhere else.

    It refuses to be root: then it is the user ``postgres`` to whom it belongs.
    """

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self.folder = folder
        self.port = _free_port()
        self._owner = "postgres" if os.geteuid() == 0 else None
        if self._owner:
            entry = pwd.getpwnam(self._owner)
            os.chown(folder, entry.pw_uid, entry.pw_gid)

    @property
    def address(self) -> dict[str, str]:
        """What stands in DATABASES for it."""
        return {
            "NAME": "postgres",
            "HOST": str(self.folder),
            "PORT": str(self.port),
            "USER": "postgres",
            "PASSWORD": "",
        }

    def create(self) -> None:
        data = str(self.folder / "data")
        self._run("initdb", "--no-sync", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses='' -c fsync=off"
        self._control("start", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        """End it at once: open transactions are undone, and their sessions lost."""
        self._control("stop", "-m", "fast")

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """Stop it in any case; afterwards no process of it is left."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self._control("stop", "-m", "immediate")

    def _control(self, *arguments: str) -> None:
        data = str(self.folder / "data")
        self._run("pg_ctl", "-D", data, "-w", "-t", str(SECONDS), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        printed = self.folder / f"{program}.out"
        with printed.open("ab") as out:  # a pipe would be held open by the server
            done = subprocess.run(
                [str(self._binaries / program), *arguments],
                cwd=self.folder,
                user=self._owner,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=SECONDS * 2,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"{program} {arguments}: {printed.read_text(errors='replace')}")


def binaries() -> Path | None:
    """Where the programs of a server are; None when there are none."""
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    told = shutil.which("pg_config")
    if told:
        done = subprocess.run([told, "--bindir"], capture_output=True, text=True, check=True)
        candidates.insert(0, Path(done.stdout.strip()))
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "pg_ctl").exists():
            return folder
    return None


@contextmanager
def server_of_its_own(found: Path) -> Iterator[Server]:
    """A server that runs, in a folder that goes with it.

    The folder's name is short, because that of a socket must be.
    """
    with tempfile.TemporaryDirectory(prefix="pcm_") as folder:
        server = Server(found, Path(folder))
        try:
            server.create()
            server.start()
            yield server
        finally:
            server.kill()


def _free_port() -> int:
    """Nobody listens there: the number is part of the socket's name, and of a lock's."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number: int = taken.getsockname()[1]
        return number
