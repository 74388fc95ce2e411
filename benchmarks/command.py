"""What the commands that run clusters have in common: how they are called, where they measure."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from benchmarks.databases import in_fresh_database

BROKERS = ("orm", "redis")
DATABASES = ("sqlite", "postgresql")


def new_parser(benchmark: str, description: str | None) -> argparse.ArgumentParser:
    """For ``python -m benchmarks.…``, with a description whose lines stay as they are."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def in_fresh_queue(
    database: str,
    broker: str,
    measure: str,
    *args: object,
    q_cluster: Mapping[str, Any] | None = None,
    powercrud: Mapping[str, Any] | None = None,
) -> Any:
    """As ``in_fresh_database``, with a queue that bears the number of this process.

    So another run with the same broker is left alone.
    """
    return in_fresh_database(
        database,
        measure,
        *args,
        broker=broker,
        q_cluster={**(q_cluster or {}), "name": f"powercrud_benchmark_{os.getpid()}"},
        powercrud=powercrud,
        synchronous="NORMAL",
    )
