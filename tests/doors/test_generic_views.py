"""The doors of Django's class-based views."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

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
    the_task,
    works,
)
from tests.doors.views import DeleteFestival

CONFLICT = 409


@pytest.fixture
def user(client: Client) -> User:
    user = User.objects.create_user("ann")
    client.force_login(user)
    return user


@pytest.mark.door("CreateView")
def test_a_new_object_is_saved_with_its_task(client: Client, user: User) -> None:
    ann, festival = new(Musician, "Ann"), new(Festival, "spring")
    data = {"name": "opening", "festival": festival.pk, "musicians": [ann.pk]}
    assert client.post("/concerts/add/", data).status_code == 302
    task = the_task()
    assert works(task) == [("concert", "rehearse")]
    assert task.user == user
    assert finished(task) == ["Ann"]


@pytest.mark.door("CreateView")
def test_a_new_object_may_refer_to_a_held_one(client: Client) -> None:
    festival = new(Festival, "spring")
    task = held(festival)
    data = {"name": "opening", "festival": festival.pk}
    assert client.post("/concerts/add/", data).status_code == 302
    assert names(Concert) == ["opening"]
    assert held_by(task.key) == keys(festival)


@pytest.mark.door("UpdateView")
def test_a_changed_object_is_saved_with_its_task(client: Client, user: User) -> None:
    ann = new(Musician, "Ann")
    concert = new_concert()
    data = {"name": "gala", "festival": concert.festival_id, "musicians": [ann.pk]}
    assert client.post(f"/concerts/{concert.pk}/change/", data).status_code == 302
    task = the_task()
    assert task.user == user
    assert finished(task) == ["Ann"]
    assert names(Concert) == ["gala"]


@pytest.mark.door("UpdateView")
@pytest.mark.parametrize("number", [1, 2], ids=["itself", "its piece"])
def test_the_form_of_a_held_object_is_shown_again(client: Client, number: int) -> None:
    programme = new_programme()
    concert = programme[1]
    task = held(programme[number])
    data = {"name": "gala", "festival": concert.festival_id}
    response = client.post(f"/concerts/{concert.pk}/change/", data)
    assert response.status_code == 200
    assert task.label in response.content.decode()
    assert names(Concert) == ["opening"]


@pytest.mark.door("UpdateView")
def test_an_object_that_is_held_after_its_validation_is_a_409(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.doors import views

    concert = new_concert()

    def then_somebody_comes(view: Any, form: Any) -> Any:
        held(concert)
        return super(views.ChangeConcert, view).form_valid(form)

    monkeypatch.setattr(views.ChangeConcert, "form_valid", then_somebody_comes, raising=False)
    data = {"name": "gala", "festival": concert.festival_id}
    response = client.post(f"/concerts/{concert.pk}/change/", data)
    assert response.status_code == CONFLICT
    assert the_task().label in response.content.decode()
    assert names(Concert) == ["opening"]


@pytest.mark.door("DeleteView")
def test_an_object_is_deleted_with_all_that_hangs_on_it(client: Client) -> None:
    festival, *_ = new_programme()
    response = client.post(f"/festivals/{festival.pk}/delete/")
    assert (response.status_code, response["Location"]) == (302, DeleteFestival.success_url)
    assert names(Festival) == names(Concert) == []


@pytest.mark.door("DeleteView")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
def test_deleting_what_is_held_is_a_409(client: Client, number: int) -> None:
    programme = new_programme()
    task = held(programme[number])
    response = client.post(f"/festivals/{programme[0].pk}/delete/")
    assert response.status_code == CONFLICT
    assert task.label in response.content.decode()
    assert names(Festival) == ["spring"]
