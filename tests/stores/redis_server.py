"""The Redis servers of these tests: the shared one, and those that a test may stop and empty."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.brokers import refuse
from tests.gates import until

URL = os.environ.get("TEST_REDIS_STORE_URL", "redis://127.0.0.1:6379/10")
"""A Redis database in which other things may be, too: the names bear the number of this process."""
PREFIX = f"powercrud_models_{os.getpid()}"
BACKENDS = {
    "redis": "django.core.cache.backends.redis.RedisCache",
    "django_redis": "django_redis.cache.RedisCache",
}


def caches(backend: str, url: str = URL, **options: Any) -> dict[str, Any]:
    """CACHES with a cache of Redis, beside one that is none."""
    if backend == "django_redis":
        options = {name.upper(): value for name, value in options.items()}
    return {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        "shared": {
            "BACKEND": BACKENDS[backend],
            "LOCATION": url,
            "KEY_PREFIX": PREFIX,
            "VERSION": 3,
            "OPTIONS": {"socket_timeout": 5, **options}
            if backend == "redis"
            else {"SOCKET_TIMEOUT": 5, **options},
        },
    }


def names() -> list[bytes]:
    """All keys of this process, on the shared server."""
    return list(redis.from_url(URL).scan_iter(f"*{PREFIX}*"))


def remove_all() -> None:
    for name in names():
        redis.from_url(URL).unlink(name)


def _free_port() -> int:
    """One that leaves room for a cluster's other port, which is higher by 10,000."""
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        if port < 55_000:
            return port


class OwnServer:
    """A Redis server of a test's own, which keeps nothing on disk unless it is told to."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = _free_port()
        self._folder, self._options = folder, options
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Any:
        return redis.from_url(self.url, socket_timeout=10)

    def start(self) -> None:
        """Start it; with an empty memory, or what it saved last."""
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            refuse("no redis-server is installed")
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        quiet = ["--save", "", "--appendonly", "no", "--logfile", "redis.log"]
        self._process = subprocess.Popen([binary, *place, *quiet, *self._options])
        until(self._answers, "the server of the test answers")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    @contextmanager
    def away(self) -> Iterator[None]:
        """For the length of the block it cannot be reached."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """For the length of the block it takes connections, and answers nobody."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)
