"""Settings for a measurement: one database, which the benchmark makes and drops."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings

FOR_CHILDREN = "POWERCRUD_BENCHMARK"
"""The environment variable that tells a child of the measuring process what to work on."""
NAME_OF_QUEUE = "benchmark"
REDIS_DATABASE = 9
QUEUE_OF_REDIS: dict[str, Any] = {
    "host": os.environ.get("REDIS_HOST", "127.0.0.1"),
    "port": int(os.environ.get("REDIS_PORT", "6379")),
    "db": REDIS_DATABASE,
}

NAME_OF_CACHE = "locks"

chosen: dict[str, Any] = {}
"""With what ``configure`` was called in this process."""


def configure(
    database: str,
    folder: Path,
    *,
    name: str = "",
    broker: str = "orm",
    q_cluster: Mapping[str, Any] | None = None,
    powercrud: Mapping[str, Any] | None = None,
    synchronous: str = "FULL",
    caches: Mapping[str, Any] | None = None,
) -> None:
    """Set Django up for "sqlite", as a file in this folder, for "postgresql" or for "mariadb".

    ``name``: of a database that is there. ``broker``: "orm" or "redis". ``q_cluster`` and
    ``powercrud``: what is to be added to the settings of the queue, and of the package.
    ``synchronous``: whether a commit on SQLite waits for the disk (FULL) or not (NORMAL).
    ``caches``: those of the project.
    """
    engines: dict[str, Callable[[], dict[str, Any]]] = {
        "sqlite": partial(_sqlite, folder, synchronous),
        "postgresql": _postgresql,
        "mariadb": _mariadb,
    }
    settings.configure(
        **({"CACHES": dict(caches)} if caches else {}),
        # As for a worker: a connection that stays open.
        DATABASES={
            "default": {
                "CONN_MAX_AGE": None,
                **engines[database](),
                **({"NAME": name} if name else {}),
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django_q",
            "powercrud_models",
            "benchmarks.shop",
        ],
        POWERCRUD_SETTINGS={"ASYNC_ENABLED": True, "QUEUE": "django-q2", **(powercrud or {})},
        Q_CLUSTER={
            "name": NAME_OF_QUEUE,
            **({"orm": "default"} if broker == "orm" else {"redis": QUEUE_OF_REDIS}),
            # Where no cluster runs, too: django-q2 warns of any that could not.
            "timeout": 60,
            "retry": 120,
            # Its line for each message would drown the table.
            "log_level": "WARNING",
            **(q_cluster or {}),
        },
        SECRET_KEY="benchmark",
        USE_TZ=True,
    )
    chosen.update(
        database=database,
        folder=str(folder),
        broker=broker,
        q_cluster=dict(q_cluster or {}),
        powercrud=dict(powercrud or {}),
        synchronous=synchronous,
        caches=dict(caches or {}),
    )


def cache_of(server: str) -> dict[str, Any]:
    """Options of ``configure``: locks of both packages are kept by this server.

    django-powercrud keeps them in a cache, which is large enough for all of them.
    """
    path = "django.core.cache.backends"
    cache: dict[str, Any] = {
        "BACKEND": f"{path}.db.DatabaseCache",
        "LOCATION": "benchmark_cache",
        "OPTIONS": {"MAX_ENTRIES": 10_000_000},
    }
    if server == "redis":
        url = "redis://{host}:{port}/{db}".format(**QUEUE_OF_REDIS)
        prefix = f"powercrud_benchmark_{os.getpid()}"
        cache = {"BACKEND": f"{path}.redis.RedisCache", "LOCATION": url, "KEY_PREFIX": prefix}
    powercrud = {"CACHE_NAME": NAME_OF_CACHE, "STORE": "redis" if server == "redis" else "database"}
    return {"caches": {"default": cache, NAME_OF_CACHE: cache}, "powercrud": powercrud}


def environment_of_child(q_cluster: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The environment of a child that calls ``configure_as_child``."""
    from django.db import connection

    given = {
        **chosen,
        "name": str(connection.settings_dict["NAME"]),
        "q_cluster": {**chosen["q_cluster"], **(q_cluster or {})},
    }
    return {**os.environ, FOR_CHILDREN: json.dumps(given)}


def configure_as_child() -> None:
    """Set Django up for the database and the queue of the process that started this one."""
    given = json.loads(os.environ[FOR_CHILDREN])
    configure(given.pop("database"), Path(given.pop("folder")), **given)


def _sqlite(folder: Path, synchronous: str) -> dict[str, Any]:
    """As in the sample project, which says why; but a commit may wait for the disk."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": folder / "none.sqlite3",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};",
        },
        "TEST": {"NAME": folder / "benchmark.sqlite3"},
    }


def _mariadb() -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": "",
        "HOST": os.environ.get("MYSQL_HOST", "127.0.0.1"),
        "PORT": os.environ.get("MYSQL_TCP_PORT", ""),
        "USER": os.environ.get("MYSQL_USER", "root"),
        "PASSWORD": os.environ.get("MYSQL_PWD", ""),
        "OPTIONS": {"connect_timeout": 3, "isolation_level": "read committed"},
        "TEST": {"NAME": f"powercrud_models_benchmark_{os.getpid()}"},
    }


def _postgresql() -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "HOST": os.environ.get("PGHOST", "127.0.0.1"),
        "PORT": os.environ.get("PGPORT", ""),
        "USER": os.environ.get("PGUSER", "postgres"),
        "PASSWORD": os.environ.get("PGPASSWORD", ""),
        "OPTIONS": {"connect_timeout": 3},
        "TEST": {"NAME": f"powercrud_models_benchmark_{os.getpid()}"},
    }
