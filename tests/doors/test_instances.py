"""The doors of one instance: partial loads and saves, expressions, pickles, copies, clones."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import django
import pytest
from django.db.models import F

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask
from tests.deliveries import deliver, held_by
from tests.doors.models import Festival, Musician
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


@pytest.mark.door("refresh_from_db()")
def test_refreshing_reads_what_the_work_has_written_and_keeps_the_task() -> None:
    festival, *_ = new_programme()
    festival.save()
    assert festival.minutes == 0
    finished(the_task())
    festival.refresh_from_db()
    assert festival.minutes == 8
    assert festival.async_task == the_task()


@pytest.mark.door("refresh_from_db()")
def test_a_held_object_can_be_read() -> None:
    festival = new(Festival, "spring")
    task = held(festival)
    festival.refresh_from_db()
    festival.refresh_from_db(fields=["name"])
    assert festival.holder == Festival.objects.get().holder == task


@pytest.mark.door("only(), defer()")
@pytest.mark.parametrize("partial", ["only", "defer"])
def test_what_was_not_loaded_is_not_written(partial: str) -> None:
    loaded, deferred = ("visits", "name") if partial == "only" else ("name", "visits")
    new(Festival, "spring")
    field = loaded if partial == "only" else deferred
    festival = getattr(Festival.objects, partial)(field).get()
    Festival._base_manager.update(name="autumn", visits=7)
    setattr(festival, loaded, 9)
    festival.save()
    assert works(the_task()) == [("festival", "measure")]
    row = Festival.objects.get()
    assert (getattr(row, loaded), getattr(row, deferred)) in [(9, "autumn"), ("9", 7)]


@pytest.mark.door("only(), defer()")
@pytest.mark.parametrize("model", [Festival, Musician])
def test_a_held_object_of_which_a_part_was_loaded_is_refused(model: type[Festival]) -> None:
    held(new(model, "before"))
    obj = model.objects.only("name").get()
    obj.name = "after"
    with pytest.raises(ConflictError):
        obj.save()
    assert names(model) == ["before"]


@pytest.mark.door("save(update_fields=)")
def test_update_fields_writes_these_and_starts_the_work() -> None:
    festival = new(Festival, "spring", visits=1)
    festival.name, festival.visits = "autumn", 2
    festival.save(update_fields=["name"])
    assert (Festival.objects.get().name, Festival.objects.get().visits) == ("autumn", 1)
    assert works(the_task()) == [("festival", "measure")]


@pytest.mark.door("save(update_fields=)")
def test_no_update_fields_write_and_start_nothing_even_when_held() -> None:
    festival = new(Festival, "spring")
    festival.save(update_fields=[])
    assert nothing_started()
    held(festival)
    festival.save(update_fields=[])


@pytest.mark.door("save(update_fields=)")
@pytest.mark.parametrize("model", [Festival, Musician])
def test_a_part_of_a_held_object_is_not_written_either(model: type[Festival]) -> None:
    obj = new(model, "before")
    held(obj)
    obj.name = "after"
    with pytest.raises(ConflictError):
        obj.save(update_fields=["name"])
    assert names(model) == ["before"]


@pytest.mark.door("F() expressions")
def test_an_expression_is_computed_by_the_database_once() -> None:
    festival = new(Festival, "spring", visits=1)
    Festival._base_manager.update(visits=5)
    festival.visits = F("visits") + 1
    festival.save()
    assert Festival.objects.get().visits == 6
    assert finished(the_task()) == 0  # the work loads the object, and saves it again
    assert Festival.objects.get().visits == 6


@pytest.mark.door("F() expressions")
def test_inline_work_has_the_instance_with_the_expression() -> None:
    festival = new(Festival, "spring", visits=1)
    festival.visits = F("visits") + 1
    festival.save(skip_async=True)
    assert Festival.objects.get().visits == 2  # measure() saves `minutes` alone
    if django.VERSION >= (6, 0):
        assert festival.visits == 2
    else:
        assert not isinstance(festival.visits, int)


@pytest.mark.door("F() expressions")
def test_an_expression_on_a_held_object_is_refused() -> None:
    festival = new(Festival, "spring")
    held(festival)
    festival.visits = F("visits") + 1
    with pytest.raises(ConflictError):
        festival.save()
    assert Festival.objects.get().visits == 0


def pickled(festival: Festival) -> Festival:
    again = pickle.loads(pickle.dumps(festival))
    assert isinstance(again, Festival)
    return again


AGAIN = [
    pytest.param(pickled, marks=pytest.mark.door("pickle")),
    pytest.param(copy.copy, marks=pytest.mark.door("copy")),
    pytest.param(copy.deepcopy, marks=pytest.mark.door("copy")),
]


@pytest.mark.parametrize("again", AGAIN)
def test_a_copy_has_no_task_and_is_the_same_object(again: Callable[[Festival], Festival]) -> None:
    festival = Festival(name="spring")
    festival.save()
    other = again(festival)
    assert other == festival
    assert other.async_task is None
    assert festival.async_task == other.holder == the_task()
    assert finished(the_task()) == 0
    other.save()
    assert other.async_task != festival.async_task


@pytest.mark.parametrize("again", AGAIN)
def test_a_copy_of_a_held_object_is_refused(again: Callable[[Festival], Festival]) -> None:
    festival = new(Festival, "before")
    held(festival)
    other = again(festival)
    other.name = "after"
    with pytest.raises(ConflictError):
        other.save()
    assert names(Festival) == ["before"]


@pytest.mark.door("pickle")
def test_an_error_can_be_sent_to_another_process() -> None:
    festival = new(Festival, "spring")
    held(festival)
    with pytest.raises(ConflictError) as refused:
        festival.save()
    again = pickle.loads(pickle.dumps(refused.value))
    assert str(again) == str(refused.value)
    assert again.conflicts == refused.value.conflicts


@pytest.mark.door("clones: pk = None")
@pytest.mark.parametrize("adding", [True, False])
def test_a_clone_is_a_new_object_with_a_task_of_its_own(adding: bool) -> None:
    festival, concert, piece = new_programme()
    festival.save()
    first = festival.async_task
    festival.pk = None
    festival._state.adding = adding
    festival.save()
    assert names(Festival) == ["spring", "spring"]
    assert festival.async_task != first
    assert held_by(festival.async_task.key) == keys(festival)
    assert keys(concert, piece) <= held_by(first.key)
    deliver()
    assert {task.status for task in AsyncTask.objects.all()} == {"success"}


@pytest.mark.door("clones: pk = None")
@pytest.mark.parametrize("model", [Festival, Musician])
def test_a_held_object_can_be_cloned(model: type[Festival]) -> None:
    obj = new(model, "first")
    held(obj)
    obj.pk = None
    obj.name = "second"
    obj.save()
    assert names(model) == ["first", "second"]
