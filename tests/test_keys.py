"""Primary keys of every kind, from the launch to the end of the task."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from powercrud_models import AsyncModelMixin, ConflictError
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.types import ObjectKey
from tests.deliveries import deliver, held_by
from tests.kinds.declared import Branch
from tests.kinds.models import Crew, Film, Person, Seat

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

TEXTS = [
    "plain",
    "a,b;c|d:e/f\\g",
    "[\"1\", '2']",
    "{'a': %s}",
    "100 %",
    'O\'Hara "the" `third`',
    " blanks around ",
    "trailing ",
    "new\nline\ttab",
    "CaSe",
    "Größe Ωmega 漢字 😀",
    "e\u0301",  # as one character it would be another key
    "null",
    "0",
    "-",
    "x" * 255,
    "漢" * 255,
]


def life_of(obj: AsyncModelMixin, work: str, others: set[ObjectKey] = frozenset()) -> None:  # type: ignore[assignment]
    """Launch, refuse, claim, run, release: all find the same object."""
    task: AsyncTask = getattr(obj, work).enqueue()
    assert held_by(task.key) == {ObjectKey.of(obj), *others}
    assert obj.holder == task
    same = type(obj)._base_manager.get(pk=obj.pk)
    with pytest.raises(ConflictError) as caught:
        same.save()
    assert [(conflict.pk, conflict.holder) for conflict in caught.value.conflicts] == [
        (obj.pk, task)
    ]
    with pytest.raises(ConflictError):
        same.delete()
    deliver()
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.SUCCESS, task.error
    assert not ObjectLock.objects.exists()
    same.save()


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_text(text: str) -> None:
    parent, child = Branch(name=text), Branch(name=f"{text[:-1]}~", parent_id=text)
    neighbours = [
        Branch(name=name) for name in {text.strip() + "x", text.swapcase() + "y"} if len(name) < 256
    ]
    Branch.objects.bulk_create([parent, child, *neighbours])
    life_of(parent, "prune", {ObjectKey.of(child)})


def test_keys_that_are_nearly_the_same() -> None:
    names = ["abc", "ABC", "abc ", " abc", "ábc"]
    Branch.objects.bulk_create([Branch(name=name) for name in names])
    tasks = [branch.water.enqueue() for branch in Branch.objects.all()]
    assert len(tasks) == len(names)
    assert ObjectLock.objects.count() == len(names)


@pytest.mark.parametrize("number", [1, 2**31, 2**40])
def test_an_integer(number: int) -> None:
    [crew] = Crew.objects.bulk_create([Crew(pk=number, name="night")])
    life_of(crew, "brief")


def test_a_uuid_however_it_is_written() -> None:
    director = Person.objects.create(name="ann")
    written = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    film = Film.objects.create(pk=uuid.UUID(written), director=director)
    life_of(film, "archive")
    spellings: list[Any] = [written, written.upper(), written.replace("-", ""), uuid.UUID(written)]
    assert len({ObjectKey.from_pk(Film, each) for each in spellings}) == 1


@pytest.mark.parametrize("row", ["A", 'é"', "'", "[]"])
def test_a_composite_key(row: str) -> None:
    seat = Seat.objects.create(row=row, number=3)
    Seat.objects.create(row=row, number=33)
    life_of(seat, "reserve")


def test_the_same_key_in_two_models_is_two_objects() -> None:
    [crew] = Crew.objects.bulk_create([Crew(pk=7, name="night")])
    [branch] = Branch.objects.bulk_create([Branch(name="7")])
    crew.brief.enqueue()
    branch.save()
    assert branch.holder is None
