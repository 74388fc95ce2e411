"""The doors that know rows, not objects: fixtures, and data migrations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core import serializers
from django.core.management import call_command
from django.db import connection, migrations
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.questioner import MigrationQuestioner
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter

from powercrud_models import AsyncModelMixin
from tests.deliveries import held_by
from tests.doors.models import Concert, Festival
from tests.doors.programme import held, keys, names, new, new_programme, nothing_started, the_task


def dumped(*arguments: str, tmp_path: Path) -> Path:
    """A fixture with what is in the database."""
    path = tmp_path / "programme.json"
    call_command("dumpdata", *arguments, output=str(path))
    return path


def labels_in(fixture: Path) -> set[str]:
    return {row["model"] for row in json.loads(fixture.read_text())}


@pytest.mark.door("dumpdata")
def test_dumpdata_writes_the_rows_and_looks_at_no_lock(tmp_path: Path) -> None:
    festival, *_ = new_programme()
    held(festival)
    rows = json.loads(dumped("doors", tmp_path=tmp_path).read_text())
    assert [row["model"] for row in rows] == ["doors.festival", "doors.concert", "doors.piece"]
    assert rows[0]["fields"] == {"name": "spring", "visits": 0, "minutes": 0}


@pytest.mark.door("dumpdata")
def test_dumpdata_of_everything_has_tasks_and_locks_in_it(tmp_path: Path) -> None:
    held(new(Festival, "spring"))
    ours = {"powercrud_models.asynctask", "powercrud_models.objectlock"}
    assert ours <= labels_in(dumped(tmp_path=tmp_path))
    assert not ours & labels_in(dumped("--exclude=powercrud_models", tmp_path=tmp_path))


@pytest.mark.door("loaddata")
def test_loaddata_starts_nothing(tmp_path: Path) -> None:
    new_programme()
    fixture = dumped("doors", tmp_path=tmp_path)
    Festival.objects.all().delete()
    call_command("loaddata", str(fixture), verbosity=0)
    assert names(Festival) == ["spring"]
    assert names(Concert) == ["opening"]
    assert nothing_started()


@pytest.mark.door("loaddata")
def test_loaddata_does_not_look_for_locks(tmp_path: Path) -> None:
    festival = new(Festival, "spring")
    fixture = dumped("doors", tmp_path=tmp_path)
    Festival._base_manager.update(name="autumn")
    task = held(festival)
    call_command("loaddata", str(fixture), verbosity=0)
    assert names(Festival) == ["spring"]
    assert held_by(task.key) == keys(festival)


@pytest.mark.door("loaddata")
def test_what_a_deserializer_found_starts_its_work_when_it_is_saved_itself() -> None:
    text = serializers.serialize("json", [new(Festival, "spring")])
    [found] = serializers.deserialize("json", text)
    festival: Any = found.object
    festival.save()
    assert festival.async_task == the_task()


def migrated(code: Any) -> None:
    """Run the code as a data migration."""
    state = ProjectState.from_apps(apps)
    with connection.schema_editor() as editor:
        migrations.RunPython(code).database_forwards("doors", editor, state, state)


@pytest.mark.door("data migrations")
def test_a_historical_model_saves_its_row_and_nothing_else() -> None:
    held(new(Festival, "spring"))

    def forwards(historical_apps: Any, schema_editor: Any) -> None:
        historical = historical_apps.get_model("doors", "Festival")
        assert not issubclass(historical, AsyncModelMixin)
        for festival in historical.objects.all():
            festival.name = "autumn"
            festival.save()
        historical.objects.create(name="winter")

    migrated(forwards)

    assert names(Festival) == ["autumn", "winter"]
    assert Festival.objects.get(name="winter").holder is None


@pytest.mark.door("data migrations")
def test_nothing_of_this_package_is_written_into_a_migration() -> None:
    loader, asked = MigrationLoader(None), MigrationQuestioner({"ask_initial": True})
    state = ProjectState.from_apps(apps)
    detector = MigrationAutodetector(loader.project_state(), state, asked)
    found = detector.changes(loader.graph, trim_to_apps={"doors"}, convert_apps={"doors"})
    migration = MigrationWriter(found["doors"][0]).as_string()
    assert "name='Festival'" in migration
    assert "powercrud" not in migration.lower()
    assert "managers=" not in migration
