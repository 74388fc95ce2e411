"""The doors of Django REST framework, which never calls ``full_clean()``."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from powercrud_models import ConflictError, inline
from powercrud_models.models import AsyncTask
from tests.deliveries import held_by
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
)
from tests.doors.serializers import ConcertSerializer

URL = "/api/concerts/"


@pytest.fixture
def api() -> Any:
    return APIClient()


@pytest.mark.door("REST framework: serializer")
def test_a_serializer_saves_its_object_and_then_its_relations() -> None:
    ann, festival = new(Musician, "Ann"), new(Festival, "spring")
    data = {"name": "opening", "festival": festival.pk, "musicians": [ann.pk]}
    serializer = ConcertSerializer(data=data)
    serializer.is_valid(raise_exception=True)
    concert = serializer.save()
    assert held_by(concert.async_task.key) == keys(concert)
    assert finished(the_task()) == ["Ann"]


@pytest.mark.door("REST framework: serializer")
def test_a_serializer_starts_nothing_in_an_inline_block() -> None:
    serializer = ConcertSerializer(new_concert(), data={"name": "gala"}, partial=True)
    serializer.is_valid(raise_exception=True)
    with inline():
        serializer.save()
    assert nothing_started()
    assert list(Concert.objects.values_list("name", "rehearsals")) == [("gala", 1)]


@pytest.mark.door("REST framework: serializer")
@pytest.mark.parametrize("number", [1, 2], ids=["itself", "its piece"])
def test_a_serializer_of_a_held_object_is_refused(number: int) -> None:
    programme = new_programme()
    held(programme[number])
    serializer = ConcertSerializer(programme[1], data={"name": "gala"}, partial=True)
    serializer.is_valid(raise_exception=True)
    with pytest.raises(ConflictError):
        serializer.save()
    assert names(Concert) == ["opening"]


@pytest.mark.door("REST framework: viewset")
def test_a_viewset_creates_changes_and_deletes(api: Any) -> None:
    festival = new(Festival, "spring")
    created = api.post(URL, {"name": "opening", "festival": festival.pk}, format="json")
    assert created.status_code == 201, created.content
    finished(the_task())
    url = f"{URL}{created.json()['id']}/"
    assert api.patch(url, {"name": "gala"}, format="json").status_code == 200
    assert names(Concert) == ["gala"]
    finished(AsyncTask.objects.get(status="pending"))
    assert api.delete(url).status_code == 204
    assert names(Concert) == []


@pytest.mark.door("REST framework: viewset")
@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_a_viewset_answers_409_for_a_held_object(api: Any, method: str) -> None:
    concert = new_concert()
    task = held(concert)
    data = {"name": "gala", "festival": concert.festival_id}
    response = getattr(api, method)(f"{URL}{concert.pk}/", data, format="json")
    assert response.status_code == 409
    assert response["Content-Type"] == "application/json"
    assert response.json()["conflicts"][0]["held_by"] == task.label
    assert names(Concert) == ["opening"]


@pytest.mark.door("REST framework: viewset")
def test_the_task_is_the_users_however_the_api_has_found_out_who_it_is(api: Any) -> None:
    ann = User.objects.create_user("ann")
    api.force_authenticate(ann)
    concert = new_concert()
    assert api.patch(f"{URL}{concert.pk}/", {"name": "gala"}, format="json").status_code == 200
    assert the_task().user == ann


@pytest.mark.door("REST framework: viewset")
def test_a_viewset_shows_a_held_object(api: Any) -> None:
    concert = new_concert()
    held(concert)
    assert api.get(f"{URL}{concert.pk}/").json()["name"] == "opening"
