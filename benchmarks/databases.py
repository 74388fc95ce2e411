"""A database of its own for a measurement, in a process of its own: settings are set once."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from django.utils.module_loading import import_string

from benchmarks.settings import configure


class DoesNotAnswer(Exception):
    """There is no server, or no driver for it."""


def in_fresh_database(database: str, measure: str, *args: object, **options: Any) -> Any:
    """Import ``measure`` by its dotted path and call it where Django has an empty database.

    ``options`` are those of ``benchmarks.settings.configure``.

    Raises DoesNotAnswer when the database cannot be reached.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measure, database, measure, args, options).result()


def stop_in_order() -> None:
    """Let SIGTERM end this process as Ctrl-C does: with all that it made taken down."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))


def _measure(
    database: str, measure: str, args: tuple[object, ...], options: dict[str, Any]
) -> object:
    stop_in_order()
    over = threading.Event()
    threading.Thread(target=_end_with_parent, args=[over], daemon=True).start()
    try:
        with tempfile.TemporaryDirectory(prefix="powercrud_models_") as folder:
            configure(database, Path(folder), **options)
            with _fresh_database():
                return import_string(measure)(*args)
    finally:
        over.set()


def _end_with_parent(over: threading.Event) -> None:
    """A parent that was killed waits for no result: drop the database, and end."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    over.wait()
    os._exit(1)  # the pool would wait for more to do


@contextmanager
def _fresh_database() -> Iterator[None]:
    """Django's test database: made with all tables, and dropped."""
    try:
        django.setup()
        connection.ensure_connection()
    except (ImproperlyConfigured, OperationalError) as error:
        raise DoesNotAnswer(str(error)) from None
    name = connection.settings_dict["NAME"]
    try:
        connection.creation.create_test_db(verbosity=0)
        yield
    finally:
        if connection.settings_dict["NAME"] != name:  # it has been made, if not filled
            connection.creation.destroy_test_db(name, verbosity=0)
