"""The doors of managers and querysets."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask
from tests.deliveries import held_by
from tests.doors.models import Concert, Festival, Musician, Piece
from tests.doors.programme import (
    finished,
    held,
    keys,
    names,
    new,
    new_programme,
    nothing_started,
    the_task,
    works,
)


@pytest.mark.door("get_or_create()")
def test_get_or_create_starts_the_work_of_what_it_creates() -> None:
    festival, created = Festival.objects.get_or_create(name="spring")
    assert created
    assert held_by(festival.async_task.key) == keys(festival)
    same, created = Festival.objects.get_or_create(name="spring", defaults={"visits": 1})
    assert not created
    assert same.async_task is None
    assert same.holder == the_task()
    assert finished(the_task()) == 0


@pytest.mark.door("update_or_create()")
def test_update_or_create_starts_work_whether_it_creates_or_updates() -> None:
    created = Festival.objects.update_or_create(name="spring", defaults={"visits": 1})
    assert created[1]
    assert finished(the_task()) == 0
    updated, created_again = Festival.objects.update_or_create(
        name="spring", defaults={"visits": 2}
    )
    assert not created_again
    assert works(updated.async_task) == [("festival", "measure")]
    assert Festival.objects.get().visits == 2


@pytest.mark.door("update_or_create()")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
def test_update_or_create_of_a_held_object_is_refused(number: int) -> None:
    held(new_programme()[number])
    with pytest.raises(ConflictError):
        Festival.objects.update_or_create(name="spring", defaults={"visits": 2})
    assert Festival.objects.get().visits == 0
    assert AsyncTask.objects.count() == 1


@pytest.mark.door("bulk_create()")
def test_bulk_create_starts_nothing() -> None:
    Festival.objects.bulk_create([Festival(name="spring"), Festival(name="autumn")])
    assert names(Festival) == ["spring", "autumn"]
    assert nothing_started()


@pytest.mark.door("bulk_create()")
def test_bulk_create_that_updates_does_not_look_for_locks() -> None:
    festival = new(Festival, "spring")
    held(festival)
    can_name_them = connection.features.supports_update_conflicts_with_target
    Festival.objects.bulk_create(
        [Festival(pk=festival.pk, name="autumn")],
        update_conflicts=True,
        unique_fields=["id"] if can_name_them else None,
        update_fields=["name"],
    )
    assert names(Festival) == ["autumn"]


@pytest.mark.door("bulk_update()")
def test_bulk_update_starts_nothing() -> None:
    festival = new(Festival, "spring")
    festival.name = "autumn"
    Festival.objects.bulk_update([festival], ["name"])
    assert names(Festival) == ["autumn"]
    assert nothing_started()


@pytest.mark.door("bulk_update()")
def test_bulk_update_of_a_held_object_is_refused_for_all() -> None:
    free, taken = new(Festival, "free"), new(Festival, "taken")
    held(taken)
    free.name = taken.name = "autumn"
    with pytest.raises(ConflictError):
        Festival.objects.bulk_update([free, taken], ["name"])
    assert names(Festival) == ["free", "taken"]


@pytest.mark.door("QuerySet.update()")
def test_an_update_starts_nothing() -> None:
    new(Festival, "spring")
    assert Festival.objects.update(name="autumn") == 1
    assert names(Festival) == ["autumn"]
    assert nothing_started()


@pytest.mark.door("QuerySet.update()")
def test_an_update_that_reaches_a_held_object_is_refused_for_all() -> None:
    new(Festival, "free")
    held(new(Festival, "taken"))
    with pytest.raises(ConflictError):
        Festival.objects.update(name="autumn")
    assert names(Festival) == ["free", "taken"]
    assert Festival.objects.filter(name="free").update(name="autumn") == 1


@pytest.mark.door("QuerySet.delete()")
def test_a_queryset_is_deleted_with_all_that_hangs_on_it() -> None:
    new_programme()
    Festival.objects.all().delete()
    assert names(Festival) == names(Concert) == names(Piece) == []
    assert nothing_started()


@pytest.mark.door("QuerySet.delete()")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
def test_deleting_a_queryset_that_reaches_a_held_object_is_refused(number: int) -> None:
    programme = new_programme()
    new(Festival, "free")
    held(programme[number])
    with pytest.raises(ConflictError):
        Festival.objects.all().delete()
    assert names(Festival) == ["spring", "free"]
    assert names(Piece) == ["overture"]


@pytest.mark.door("acreate(), aget_or_create(), aupdate_or_create()")
def test_their_awaited_forms_do_the_same() -> None:
    festivals: Any = Festival.objects

    async def come() -> None:
        await festivals.acreate(name="first")
        await festivals.aget_or_create(name="second")
        await festivals.aupdate_or_create(name="third", defaults={"visits": 1})

    async_to_sync(come)()

    assert names(Festival) == ["first", "second", "third"]
    assert [works(task) for task in AsyncTask.objects.all()] == [[("festival", "measure")]] * 3


@pytest.mark.door("acreate(), aget_or_create(), aupdate_or_create()")
def test_their_awaited_forms_are_refused_for_a_held_object() -> None:
    held(new(Festival, "spring"))
    festivals: Any = Festival.objects

    async def come() -> None:
        await festivals.aupdate_or_create(name="spring", defaults={"visits": 1})

    with pytest.raises(ConflictError):
        async_to_sync(come)()
    assert Festival.objects.get().visits == 0


@pytest.mark.door("get_or_create()")
def test_get_or_create_finds_a_held_object() -> None:
    task = held(new(Musician, "Ann"))
    found, created = Musician.objects.get_or_create(name="Ann")
    assert (created, found.holder) == (False, task)
