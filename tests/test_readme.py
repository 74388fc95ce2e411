"""What the README shows is what happens."""

from __future__ import annotations

import re
import sys
import unittest
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from inspect import unwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test import TestCase

from powercrud_models import conf, inline, testing
from powercrud_models.models import AsyncTask, ObjectLock

ROOT = Path(__file__).parent.parent
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS, USE, ERRORS = PYTHON.findall(README)
HOW_TO = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
UNITTEST, SETTINGS, FIXTURE, CONFLICT, CRASH = PYTHON.findall(HOW_TO)


@pytest.fixture
def namespace(transactional_db) -> Iterator[dict[str, Any]]:
    """The models of the first block, as if they stood in an app, with a shelf of two volumes."""
    namespace: dict[str, Any] = {"__name__": "tests.kinds.readme"}
    exec(MODELS, namespace)
    models = namespace["Shelf"], namespace["Volume"]
    with connection.schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    with inline():
        shelf = namespace["Shelf"].objects.create(title="Novels")
        for text in ("x" * 100, "x" * 5000):
            namespace["Volume"].objects.create(shelf=shelf, text=text)
    yield namespace
    with connection.schema_editor() as editor:
        for model in reversed(models):
            editor.delete_model(model)
    for model in models:
        del apps.all_models["kinds"][model._meta.model_name]
    apps.clear_cache()


@pytest.mark.usefixtures("immediate")
def test_the_example_does_what_it_says(namespace):
    exec(USE, namespace)

    shelf = namespace["shelf"]
    assert namespace["task"].result() == 1 + 3
    shelf.refresh_from_db()
    assert shelf.pages == 4
    assert AsyncTask.objects.filter(status="success", items__work="recount").count() >= 2
    assert not ObjectLock.objects.exists()


@pytest.mark.usefixtures("queued")
def test_a_held_object_is_refused_with_the_message_that_is_shown(namespace, capsys):
    namespace["shelf"] = namespace["Shelf"].objects.get()
    exec(ERRORS, namespace)

    volume = namespace["Volume"].objects.first()
    shown = (
        f"volume {volume.pk} is held by the task “recount shelf {namespace['shelf'].pk}”, started"
    )
    assert capsys.readouterr().out.startswith(shown)
    assert "volume 1 is held by the task “recount shelf 1”, started" in ERRORS


def test_every_setting_is_in_the_table_with_its_default():
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", README, re.MULTILINE))

    assert rows == {
        field.name: str(field.default).join('""' if isinstance(field.default, str) else ("", ""))
        for field in fields(conf.Conf)
    }


@pytest.fixture
def shelves(namespace, monkeypatch):
    """The models of the README, in the module that docs/testing.md imports them from."""
    module = ModuleType("shelves.models")
    vars(module).update(Shelf=namespace["Shelf"], Volume=namespace["Volume"])
    monkeypatch.setitem(sys.modules, "shelves", ModuleType("shelves"))
    monkeypatch.setitem(sys.modules, "shelves.models", module)
    return module


def passed(case: type[unittest.TestCase]) -> int:
    """How many tests there are, all of which must pass."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.errors + result.failures == []
    return result.testsRun


def test_the_how_to_with_unittest(shelves):
    names: dict[str, Any] = {}
    exec(UNITTEST, names)
    assert passed(names["ShelfTests"]) == 1


@pytest.mark.parametrize("block", [FIXTURE, CONFLICT, CRASH])
def test_the_how_to_with_pytest(shelves, block):
    """pytest-django's ``db`` is a TestCase; pytest's fixture is a generator."""
    names: dict[str, Any] = {}
    exec(block, names)
    around = contextmanager(unwrap(names["_queue"])) if "_queue" in names else nullcontext
    [test] = [each for name, each in names.items() if name.startswith("test_")]

    class Case(TestCase):
        def test(self):
            with around():
                test(db=None)

    assert passed(Case) == 1


def test_the_how_tos_settings(shelves, settings):
    names: dict[str, Any] = {}
    exec(SETTINGS, names)
    settings.POWERCRUD_SETTINGS = names["POWERCRUD_SETTINGS"]
    shelf = shelves.Shelf.objects.get()
    shelf.save()
    assert testing.queued_tasks() == [shelf.async_task]
    assert [task.result() for task in testing.run_queued()] == [4]


def test_the_how_to_names_the_whole_kit():
    assert {name for name in testing.__all__ if f"{name}(" not in HOW_TO} == {
        "CrashReport",
        "Refusal",
    }
