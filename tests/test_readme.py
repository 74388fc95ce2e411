"""What the README shows is what happens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from powercrud_models import conf, inline
from powercrud_models.models import AsyncTask, ObjectLock

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
MODELS, USE, ERRORS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


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
    assert AsyncTask.objects.filter(status="success", label__startswith="recount").count() >= 2
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
