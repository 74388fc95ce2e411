"""Settings for a measurement: one database, which the benchmark makes and drops."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings


def configure(database: str, folder: Path) -> None:
    """Set Django up for "sqlite", as a file in this folder, or for "postgresql"."""
    engine = _sqlite(folder) if database == "sqlite" else _postgresql()
    settings.configure(
        # As for a worker: a connection that stays open.
        DATABASES={"default": {"CONN_MAX_AGE": None, **engine}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django_q",
            "powercrud_models",
            "benchmarks.shop",
        ],
        POWERCRUD_SETTINGS={"ASYNC_ENABLED": True, "QUEUE": "django-q2"},
        Q_CLUSTER={
            "name": "benchmark",
            "orm": "default",
            # No cluster runs, but django-q2 warns of any that could not.
            "timeout": 60,
            "retry": 120,
            # Its line for each message would drown the table.
            "log_level": "WARNING",
        },
        SECRET_KEY="benchmark",
        USE_TZ=True,
    )


def _sqlite(folder: Path) -> dict[str, Any]:
    """As in the sample project, which says why; but a commit waits for the disk."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": folder / "none.sqlite3",
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
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
