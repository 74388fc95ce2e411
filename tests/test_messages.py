"""What is stored is a message and its parameters: each reads it in the language of their own."""

from __future__ import annotations

import gettext as gnu
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from django.core import serializers
from django.db import connection
from django.utils.translation import gettext_lazy, gettext_noop, override, trans_real

from powercrud_models import ConflictError
from powercrud_models.lifecycle import claim, sweep
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask, ObjectLock
from tests.deliveries import deliver, expire_lease, lose_messages, make_overdue, task_of
from tests.kinds.models import Part, Project

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

GERMAN = {
    "%(work)s %(model)s %(pk)s": "%(model)s %(pk)s: %(work)s",
    "rebuild": "neu bauen",
    "project": "Projekt",
    "part": "Teil",
    "%(model)s %(pk)s is held by %(held_by)s": "%(model)s %(pk)s gehört %(held_by)s",
    "the task “%(label)s”, started%(by)s at %(since)s, %(status)s, %(progress)s": (
        "der Aufgabe „%(label)s“%(by)s, seit %(since)s, %(status)s, %(progress)s"
    ),
    "%(count)s misfits": "%(zahl)s Ausreißer",
    "pending": "wartet auf einen Arbeiter",
    "%(done)s of %(total)s done, %(percent)s%%": "%(done)s von %(total)s fertig, %(percent)s%%",
    "%(model)s %(pk)s was deleted before “%(work)s” could run on it.": (
        "%(model)s %(pk)s wurde gelöscht, bevor „%(work)s“ an die Reihe kam."
    ),
    "The workers died that were at work on this task, or got no further: %(workers)s of them.": (
        "%(workers)s Arbeiter sind bei dieser Aufgabe gestorben."
    ),
}


def compiled(catalogue: Mapping[str, str]) -> bytes:
    """A catalogue as ``msgfmt`` would write it."""
    header = {
        "": "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=n!=1;\n"
    }
    pairs = sorted((one.encode(), other.encode()) for one, other in {**header, **catalogue}.items())
    texts, tables = b"", [b"", b""]
    start = 28 + 16 * len(pairs)
    for side in (0, 1):
        for pair in pairs:
            tables[side] += struct.pack("<II", len(pair[side]), start + len(texts))
            texts += pair[side] + b"\0"
    places = (28, 28 + 8 * len(pairs))
    return struct.pack("<7I", 0x950412DE, 0, len(pairs), *places, 0, 0) + b"".join(tables) + texts


@pytest.fixture(autouse=True)
def _german(settings, tmp_path: Path) -> Iterator[None]:
    """A project that has translated the messages into German."""
    folder = tmp_path / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    (folder / "django.mo").write_bytes(compiled(GERMAN))
    settings.LOCALE_PATHS = [tmp_path]
    _forget_catalogues()
    yield
    settings.LOCALE_PATHS = []
    _forget_catalogues()


def _forget_catalogues() -> None:
    gnu._translations = {}  # type: ignore[attr-defined]
    trans_real._translations = {}  # type: ignore[attr-defined]
    trans_real._default = None  # type: ignore[attr-defined]


@pytest.fixture
def project(db: None) -> Project:
    [project] = Project.objects.bulk_create([Project(name="bridge")])
    return project


def reread(task: AsyncTask, language: str) -> AsyncTask:
    with override(language):
        return AsyncTask.objects.get(pk=task.pk)


def test_a_label_is_read_in_each_readers_language(project: Project) -> None:
    with override("de"):
        project.save()
        assert task_of(project).label == f"Projekt {project.pk}: neu bauen"
    assert reread(task_of(project), "en").label == f"rebuild project {project.pk}"


def test_a_lazy_label_is_stored_as_what_it_translates() -> None:
    with override("de"):
        label = Message.of(gettext_lazy("rebuild"))
    assert (str(label), label.message) == ("neu bauen", "rebuild")


def test_a_conflict_is_told_in_the_language_of_who_runs_into_it(project: Project) -> None:
    project.save()
    with override("de"), pytest.raises(ConflictError) as caught:
        Project.objects.get().save()
    with override("de"):
        said = str(caught.value)
    assert said.startswith(f"Projekt {project.pk} gehört der Aufgabe „Projekt {project.pk}: neu")
    assert said.endswith("wartet auf einen Arbeiter, 0 von 1 fertig, 0%")


def test_why_an_item_failed(project: Project) -> None:
    project.save()
    task = task_of(project)
    Project.objects.all()._raw_delete("default")
    deliver()
    assert reread(task, "de").error == (
        f"Projekt {project.pk} wurde gelöscht, bevor „rebuild“ an die Reihe kam."
    )
    english = reread(task, "en")
    assert english.error == f"project {project.pk} was deleted before “rebuild” could run on it."
    assert english.items.get().error == english.error


def test_why_a_task_was_put_back(project: Project) -> None:
    [part] = Part.objects.bulk_create([Part(name="pier", project=project)])
    project.save()
    task = task_of(project)
    other = Project.objects.bulk_create([Project(name="tunnel")])[0]
    task.locks.filter(model="kinds.part")._raw_delete("default")
    other.save()
    holder = task_of(other)
    ObjectLock.objects.create(model="kinds.part", object_id=str(part.pk), task=holder)
    deliver()
    assert f"Teil {part.pk} gehört der Aufgabe" in reread(task, "de").error
    assert f"part {part.pk} is held by the task" in reread(task, "en").error


def test_what_the_sweep_says(project: Project) -> None:
    project.save()
    lose_messages()
    task = task_of(project)
    assert claim(task.key)
    AsyncTask.objects.update(recoveries=9)
    expire_lease(task.key)
    make_overdue(task.key)
    assert sweep()["failed"] == 1
    assert reread(task, "de").error == "10 Arbeiter sind bei dieser Aufgabe gestorben."
    assert reread(task, "en").error.endswith("or got no further: 10 of them.")


def test_a_translation_that_does_not_fit_is_not_used() -> None:
    with override("de"):
        assert Message(gettext_noop("%(count)s misfits"), count=3) == "3 misfits"


def test_a_status_is_read_in_each_readers_language(project: Project) -> None:
    project.save()
    with override("de"):
        assert task_of(project).get_status_display() == "wartet auf einen Arbeiter"


class TestStored:
    @pytest.mark.parametrize(
        "text", ["", "plain", "100 %", "%(name)s", '{"message": "x"}', "123", "null", "[1]", "é 😀"]
    )
    def test_text_that_is_nobodys_to_translate_stays_as_it_is(self, text: str) -> None:
        task = AsyncTask.objects.create(label="label", error=text)
        error = AsyncTask.objects.get(pk=task.pk).error
        assert error == text
        assert not isinstance(error, Message)
        task.error = text
        task.clean_fields(exclude={"started_at", "finished_at"})
        assert task.error == text

    def test_a_message_in_a_message(self) -> None:
        inner = Message(gettext_noop("project"))
        error = Message(
            gettext_noop("%(model)s %(pk)s is held by %(held_by)s"),
            model=inner,
            pk=1,
            held_by="100 % nobody",
        )
        task = AsyncTask.objects.create(label="label", error=error)
        assert reread(task, "de").error == "Projekt 1 gehört 100 % nobody"
        stored = AsyncTask.objects.get(pk=task.pk).error
        assert (stored.message, stored.params) == (error.message, error.params)

    def test_it_can_be_searched(self) -> None:
        AsyncTask.objects.create(label=Message(gettext_noop("project")), error="")
        assert AsyncTask.objects.filter(label__contains="project", error="").count() == 1

    def test_it_survives_a_dump(self) -> None:
        task = AsyncTask.objects.create(label=Message(gettext_noop("project")), error="it broke")
        dumped = serializers.serialize("json", [task])
        AsyncTask.objects.all().delete()
        [loaded] = serializers.deserialize("json", dumped)
        loaded.save()
        assert reread(task, "de").label == "Projekt"
        assert AsyncTask.objects.get().error == "it broke"

    def test_the_column_is_ascii(self) -> None:
        AsyncTask.objects.create(label="é 😀")
        with connection.cursor() as cursor:
            cursor.execute("SELECT label FROM powercrud_models_asynctask")
            [[label]] = cursor.fetchall()
        assert label.isascii()
        assert json.loads(label) == "é 😀"
