"""Multi-table inheritance: an object is its own row and the rows of its parents."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.resolution import keys_of
from powercrud_models.types import ObjectKey, RelationPath, WorkDeclaration, WorkOptions
from tests.deliveries import deliver, held_by, task_of
from tests.kinds.models import Brief, Documentary, Film, Letter, Note, Person

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


def both_keys(child: Note) -> set[ObjectKey]:
    pk = str(child.pk)
    return {ObjectKey(type(child)._meta.label_lower, pk), ObjectKey("kinds.note", pk)}


@pytest.mark.parametrize("write", [Note.save, Note.delete], ids=["save", "delete"])
def test_a_task_on_a_child_keeps_its_parent(write: Callable[[Note], object]) -> None:
    child = Brief(text="as launched")
    child.save()
    parent = Note.objects.get()
    parent.text = "overwritten"
    assert held_by(task_of(child).key) == both_keys(child)

    with pytest.raises(ConflictError) as refused:
        write(parent)

    assert {each.holder for each in refused.value.conflicts} == {task_of(child)}
    assert parent.holder == child.holder == task_of(child)
    assert Brief.objects.get().text == "as launched"
    deliver()
    assert task_of(child).result() == "note"
    assert not ObjectLock.objects.exists()
    write(parent)


@pytest.mark.parametrize("write", [Note.save, Note.delete], ids=["save", "delete"])
def test_a_task_on_a_parent_keeps_its_children(write: Callable[[Note], object]) -> None:
    child = Brief(text="as launched")
    child.save()
    deliver()
    parent = Note.objects.get()
    parent.save()
    child.text = "overwritten"
    assert ObjectKey.of(parent) in held_by(task_of(parent).key)

    with pytest.raises(ConflictError) as refused:
        write(child)

    assert {each.holder for each in refused.value.conflicts} == {task_of(parent)}
    assert child.holder == task_of(parent)
    assert Brief.objects.get().text == "as launched"
    deliver()
    assert task_of(parent).status == AsyncTask.Status.SUCCESS
    write(child)


def test_a_path_that_leads_to_a_child_locks_its_parent() -> None:
    note = Note.objects.bulk_create([Note(text="alone")])[0]
    letter = Letter(text="dear")
    letter.save(skip_async=True)
    [parent] = Note.objects.exclude(pk=note.pk)
    to_child = WorkDeclaration(
        method="file", options=WorkOptions(on=None), paths=(RelationPath("letter"),), methods=()
    )
    assert keys_of([(parent, [to_child])], "default") == both_keys(letter)
    assert keys_of([(note, [to_child])], "default") == {ObjectKey.of(note)}


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(lambda child: child, id="object"),
        pytest.param(lambda child: Documentary.objects.filter(pk=child.pk), id="queryset"),
        pytest.param(lambda child: (Documentary, [child.pk]), id="model and keys"),
        pytest.param(lambda child: (Documentary, iter([child.pk])), id="model and iterator"),
    ],
)
def test_a_method_that_returns_a_child_locks_its_parent(
    monkeypatch: pytest.MonkeyPatch, found: Callable[[Documentary], object]
) -> None:
    director = Person.objects.create(name="Agnes")
    film = Film.objects.create(director=director)
    child = Documentary.objects.create(director=director)
    monkeypatch.setattr(Film, "found", staticmethod(lambda film: found(child)))

    task = film.archive.enqueue()

    pk = str(child.pk)
    locked = {ObjectKey("kinds.documentary", pk), ObjectKey("kinds.film", pk)}
    assert held_by(task.key) == {ObjectKey.of(film), *locked}
    with pytest.raises(ConflictError):
        Film.objects.get(pk=child.pk).save()
    with pytest.raises(ConflictError):
        child.save()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda child: child.save(), id="save"),
        pytest.param(lambda child: child.delete(), id="delete"),
        pytest.param(lambda child: child.delete(keep_parents=True), id="delete, keep parents"),
    ],
)
def test_a_child_that_sets_nothing_in_motion_is_kept_by_a_task_on_its_parent(
    write: Callable[[Documentary], object],
) -> None:
    child = Documentary.objects.create(director=Person.objects.create(name="Agnes"))
    task = Film.objects.get(pk=child.pk).archive.enqueue()
    assert held_by(task.key) == {ObjectKey("kinds.film", str(child.pk))}

    with pytest.raises(ConflictError) as refused:
        write(child)

    assert {each.holder for each in refused.value.conflicts} == {task}
    assert Documentary.objects.get() == child
    deliver()
    write(child)
