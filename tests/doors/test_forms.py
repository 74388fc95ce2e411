"""The doors of forms: model forms, their many-to-many fields, and formsets."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from django.db import transaction
from django.forms import inlineformset_factory, modelform_factory, modelformset_factory

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask, TaskItem
from powercrud_models.runner import run_task
from tests.deliveries import deliver, held_by
from tests.doors.models import Concert, Festival, Musician
from tests.doors.programme import (
    finished,
    held,
    keys,
    names,
    new,
    new_concert,
    new_programme,
    nothing_started,
    the_task,
    works,
)

FestivalForm: Any = modelform_factory(Festival, fields=["name"])
ConcertForm: Any = modelform_factory(Concert, fields=["name", "musicians"])
FestivalFormSet: Any = modelformset_factory(Festival, fields=["name"], extra=1, can_delete=True)
MusicianFormSet: Any = modelformset_factory(Musician, fields=["name"], extra=0)
ConcertFormSet: Any = inlineformset_factory(Festival, Concert, fields=["name"], extra=1)


def posted(objects: list[Any], *given: str, prefix: str = "form") -> dict[str, Any]:
    """What a browser posts for a formset: the rows that are there, and then new ones."""
    data: dict[str, Any] = {
        f"{prefix}-TOTAL_FORMS": len(given),
        f"{prefix}-INITIAL_FORMS": len(objects),
    }
    data |= {f"{prefix}-{number}-name": name for number, name in enumerate(given)}
    return data | {f"{prefix}-{number}-id": obj.pk for number, obj in enumerate(objects)}


@pytest.mark.door("ModelForm.save()")
def test_a_form_saves_its_object_and_starts_its_work() -> None:
    festival, concert, piece = new_programme()
    form = FestivalForm({"name": "autumn"}, instance=festival)
    assert form.is_valid()
    saved = form.save()
    assert held_by(saved.async_task.key) == keys(festival, concert, piece)
    assert finished(the_task()) == 8
    assert names(Festival) == ["autumn"]


@pytest.mark.door("ModelForm.save()")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
def test_the_form_of_a_held_object_is_not_valid(number: int) -> None:
    programme = new_programme()
    task = held(programme[number])
    form = FestivalForm({"name": "autumn"}, instance=programme[0])
    assert not form.is_valid()
    [error] = form.errors.as_data()["__all__"]
    assert error.code == "conflict"
    assert task.label in str(form.errors)


@pytest.mark.door("ModelForm.save()")
def test_the_form_of_an_object_that_is_held_after_its_validation_does_not_save() -> None:
    festival, *_ = new_programme()
    form = FestivalForm({"name": "autumn"}, instance=festival)
    assert form.is_valid()
    held(festival)
    with pytest.raises(ConflictError):
        form.save()
    assert names(Festival) == ["spring"]


@pytest.mark.door("ModelForm.save(commit=False), save_m2m()")
def test_a_form_without_commit_starts_nothing_until_its_object_is_saved() -> None:
    form = FestivalForm({"name": "spring"})
    festival = form.save(commit=False)
    assert nothing_started()
    festival.visits = 1
    festival.save()
    assert works(the_task()) == [("festival", "measure")]


@pytest.mark.door("ModelForm.save(commit=False), save_m2m()")
def test_relations_that_change_after_the_save_are_locked_at_the_claim() -> None:
    ann, ben = new(Musician, "Ann"), new(Musician, "Ben")
    concert = new_concert(musicians=[ann])
    form = ConcertForm({"name": "gala", "musicians": [ben.pk]}, instance=concert)
    changed = form.save(commit=False)
    changed.save()
    task = the_task()
    assert held_by(task.key) == keys(concert, ann)

    form.save_m2m()

    assert held_by(task.key) == keys(concert, ann)
    assert finished(task) == ["Ben"]


@pytest.mark.door("ModelForm.save(commit=False), save_m2m()")
def test_a_relation_to_a_held_object_is_waited_for_at_the_claim() -> None:
    ann = new(Musician, "Ann")
    holder = held(ann)
    form = ConcertForm({"name": "gala", "musicians": [ann.pk]}, instance=new_concert())
    changed = form.save(commit=False)
    changed.save()
    task = changed.async_task
    form.save_m2m()

    deliver()

    task.refresh_from_db()
    assert (task.status, held_by(task.key)) == (AsyncTask.Status.PENDING, keys(changed))
    assert holder.label in task.error
    assert ann.holder == holder
    run_task(holder.key)
    run_task(task.key)
    assert task.result(timeout=0) == ["Ann"]


@pytest.mark.door("ModelForm.save(commit=False), save_m2m()")
@pytest.mark.parametrize(
    ("around", "found"), [(nullcontext, []), (transaction.atomic, ["Ann"])], ids=["alone", "atomic"]
)
def test_work_that_is_quick_comes_before_the_relations_but_for_a_transaction(
    immediate: None, around: Any, found: list[str]
) -> None:
    data = {"name": "gala", "musicians": [new(Musician, "Ann").pk]}
    form = ConcertForm(data, instance=new_concert())
    with around():
        concert = form.save()
    assert concert.async_task.result(timeout=0) == found


@pytest.mark.door("modelformset_factory()")
@pytest.mark.parametrize(
    ("around", "items"), [(nullcontext, [1, 1]), (transaction.atomic, [2])], ids=["alone", "atomic"]
)
def test_a_formset_starts_a_task_for_each_save_or_one_for_its_transaction(
    around: Any, items: list[int]
) -> None:
    first, second, same = (new(Festival, name) for name in ("first", "second", "same"))
    data = posted([first, second, same], "1st", "2nd", "same", "4th")
    data["form-1-DELETE"] = "on"
    formset = FestivalFormSet(data, queryset=Festival.objects.order_by("pk"))
    assert formset.is_valid()

    with around():
        formset.save()

    assert names(Festival) == ["1st", "same", "4th"]
    assert [len(works(task)) for task in AsyncTask.objects.all()] == items
    fourth = Festival.objects.get(name="4th")
    assert {item.object_id for item in TaskItem.objects.all()} == {str(first.pk), str(fourth.pk)}


@pytest.mark.door("modelformset_factory()")
@pytest.mark.parametrize("name_of_ben", ["Bea", "Ben"], ids=["changed", "unchanged"])
def test_a_formset_with_a_held_row_is_not_valid(name_of_ben: str) -> None:
    ann, ben = new(Musician, "Ann"), new(Musician, "Ben")
    held(ben)
    data = posted([ann, ben], "Amy", name_of_ben)
    formset = MusicianFormSet(data, queryset=Musician.objects.order_by("pk"))
    assert not formset.is_valid()
    assert [bool(errors) for errors in formset.errors] == [False, True]
    assert formset.forms[1].has_error("__all__", "conflict")


@pytest.mark.door("modelformset_factory()")
def test_a_held_row_that_is_to_be_deleted_is_refused_when_the_formset_is_saved() -> None:
    festival, _, piece = new_programme()
    data = posted([festival], "spring") | {"form-0-DELETE": "on"}
    formset = FestivalFormSet(data, queryset=Festival.objects.all())
    held(piece)
    assert formset.is_valid()
    with pytest.raises(ConflictError):
        formset.save()
    assert names(Festival) == ["spring"]


@pytest.mark.door("inlineformset_factory()")
def test_a_form_and_its_inline_formset_are_one_task_in_one_transaction() -> None:
    festival, concert, piece = new_programme()
    form = FestivalForm({"name": "autumn"}, instance=festival)
    data = posted([concert], "gala", "closing", prefix="concerts")
    formset = ConcertFormSet(data, instance=festival)
    assert form.is_valid()
    assert formset.is_valid()

    with transaction.atomic():
        form.save()
        formset.save()

    task = the_task()
    assert works(task) == [
        ("festival", "measure"),
        ("concert", "rehearse"),
        ("concert", "rehearse"),
    ]
    assert held_by(task.key) == keys(festival, *Concert.objects.all(), piece)
    assert finished(task) == [8, [], []]


@pytest.mark.door("inlineformset_factory()")
def test_without_a_transaction_the_formset_runs_into_the_locks_of_the_form() -> None:
    festival, concert, _ = new_programme()
    form = FestivalForm({"name": "autumn"}, instance=festival)
    data = posted([concert], "gala", prefix="concerts")
    formset = ConcertFormSet(data, instance=festival)
    assert form.is_valid()
    assert formset.is_valid()
    form.save()
    with pytest.raises(ConflictError) as refused:
        formset.save()
    assert {conflict.holder for conflict in refused.value.conflicts} == {festival.async_task}
    assert names(Concert) == ["opening"]


@pytest.mark.door("inlineformset_factory()")
def test_an_inline_formset_with_a_held_row_is_not_valid() -> None:
    festival, concert, piece = new_programme()
    held(piece)
    data = posted([concert], "gala", prefix="concerts")
    formset = ConcertFormSet(data, instance=festival)
    assert not formset.is_valid()
    assert formset.forms[0].has_error("__all__", "conflict")
