"""Settings for a measurement: one database, which the benchmark makes and drops."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
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
) -> None:
    """Set Django up for "sqlite", as a file in this folder, or for "postgresql".

    ``name``: of a database that is there. ``broker``: "orm" or "redis". ``q_cluster`` and
    ``powercrud``: what is to be added to the settings of the queue, and of the package.
    ``synchronous``: whether a commit on SQLite waits for the disk (FULL) or not (NORMAL).
    """
    engine = _sqlite(folder, synchronous) if database == "sqlite" else _postgresql()
    settings.configure(
        # As for a worker: a connection that stays open.
        DATABASES={"default": {"CONN_MAX_AGE": None, **engine, **({"NAME": name} if name else {})}},
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
    )


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
