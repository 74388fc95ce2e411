"""The doors of Django's admin that delete, with and without ``AsyncAdminMixin``."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.test import Client

from powercrud_models import ConflictError, acting_user
from tests.deliveries import make_overdue, messages
from tests.doors.admin import ConcertAdmin, FestivalAdmin
from tests.doors.admin_pages import changelist, page
from tests.doors.models import Concert, Festival, Musician, Piece
from tests.doors.programme import (
    finished,
    held,
    names,
    new,
    new_concert,
    new_programme,
    nothing_started,
    the_task,
    works,
)

CONFIRMED = {"post": "yes"}


def selected(*pks: Any) -> dict[str, Any]:
    return {"action": "delete_selected", "_selected_action": pks, **CONFIRMED}


@pytest.mark.door("admin: delete")
def test_an_object_is_deleted_with_all_that_hangs_on_it(admin_client: Client) -> None:
    festival, *_ = new_programme()
    response = admin_client.post(page("festival_delete", festival.pk), CONFIRMED)
    assert response.status_code == 302
    assert names(Festival) == names(Concert) == names(Piece) == []
    assert nothing_started()


@pytest.mark.door("admin: delete")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_the_page_that_asks_says_what_is_held(
    admin_client: Client, method: str, number: int
) -> None:
    programme = new_programme()
    task = held(programme[number])
    url = page("festival_delete", programme[0].pk)
    response = getattr(admin_client, method)(url, CONFIRMED)
    assert response.status_code == 200
    assert f"{programme[number]._meta.verbose_name} {programme[number].pk} is held by" in (
        response.content.decode()
    )
    assert task.label in response.content.decode()
    assert names(Festival) == ["spring"]
    assert not LogEntry.objects.exists()


@pytest.mark.door("admin: delete")
@pytest.mark.parametrize("may_see", [True, False])
def test_for_whom_the_holder_runs_is_told_to_who_may_see_it(client: Client, may_see: bool) -> None:
    festival = new(Festival, "spring")
    with acting_user(User.objects.create_user("ann")):
        held(festival)
    staff = User.objects.create_user("ben", is_staff=True)
    mine = ["delete_festival", *(["view_asynctask"] if may_see else [])]
    staff.user_permissions.set(Permission.objects.filter(codename__in=mine))
    client.force_login(staff)
    content = client.get(page("festival_delete", festival.pk)).content.decode()
    assert "is held by the task" in content
    assert ("It runs for ann." in content) == may_see


@pytest.mark.door("admin: delete")
def test_of_many_held_objects_a_few_are_named(admin_client: Client) -> None:
    festival = new(Festival, "spring")
    for _ in range(ConflictError.MOST_SHOWN + 2):
        held(new_concert(festival=festival))
    content = admin_client.get(page("festival_delete", festival.pk)).content.decode()
    assert content.count("is held by the task") == ConflictError.MOST_SHOWN
    assert "So are 2 more objects." in content


@pytest.mark.door("admin: delete")
def test_an_admin_without_the_mixin_answers_409(admin_client: Client) -> None:
    ann = new(Musician, "Ann")
    task = held(ann)
    response = admin_client.post(page("musician_delete", ann.pk), CONFIRMED)
    assert response.status_code == 409
    assert task.label in response.content.decode()
    assert names(Musician) == ["Ann"]
    assert not LogEntry.objects.exists()


@pytest.mark.door("admin: delete")
@pytest.mark.door("admin: actions of your own")
@pytest.mark.parametrize("action", ["delete_selected", "forget_visits"])
def test_who_runs_into_a_task_that_the_queue_has_lost_has_it_sent_again(
    admin_client: Client, action: str
) -> None:
    festival = new(Festival, "spring")
    task = held(festival)
    make_overdue(task.key)
    data = {"action": action, "_selected_action": [festival.pk]}
    assert task.label in admin_client.post(changelist(Festival), data, follow=True).content.decode()
    assert messages() == [task.key]


@pytest.mark.door("admin: delete selected")
def test_selected_objects_are_deleted(admin_client: Client) -> None:
    first, second, _ = (new(Festival, name) for name in ("first", "second", "third"))
    response = admin_client.post(changelist(Festival), selected(first.pk, second.pk))
    assert response.status_code == 302
    assert names(Festival) == ["third"]
    assert LogEntry.objects.count() == 2
    assert nothing_started()


@pytest.mark.door("admin: delete selected")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
def test_nothing_selected_is_deleted_when_a_part_of_it_is_held(
    admin_client: Client, number: int
) -> None:
    programme = new_programme()
    free = new(Festival, "free")
    task = held(programme[number])
    data = selected(programme[0].pk, free.pk)
    response = admin_client.post(changelist(Festival), data)
    assert response.status_code == 200
    assert task.label in response.content.decode()
    assert names(Festival) == ["spring", "free"]
    assert not LogEntry.objects.exists()


@pytest.mark.door("admin: delete selected")
def test_an_action_without_the_mixin_answers_409(admin_client: Client) -> None:
    ann, ben = new(Musician, "Ann"), new(Musician, "Ben")
    task = held(ben)
    response = admin_client.post(changelist(Musician), selected(ann.pk, ben.pk))
    assert response.status_code == 409
    assert task.label in response.content.decode()
    assert names(Musician) == ["Ann", "Ben"]
    assert LogEntry.objects.count() == 2  # Django logs them before it deletes: see docs/django.md


@pytest.mark.door("admin: actions of your own")
def test_all_that_an_action_saves_is_one_task(admin_client: Client) -> None:
    festivals = [new(Festival, name, visits=3) for name in ("spring", "autumn")]
    data = {"action": "forget_visits", "_selected_action": [each.pk for each in festivals]}
    assert admin_client.post(changelist(Festival), data).status_code == 302
    assert list(Festival.objects.values_list("visits", flat=True)) == [0, 0]
    assert works(the_task()) == [("festival", "measure")] * 2
    assert finished(the_task()) == [0, 0]


@pytest.mark.door("admin: actions of your own")
def test_an_action_that_is_refused_is_undone_and_says_so(admin_client: Client) -> None:
    free, taken = (new(Festival, name, visits=3) for name in ("free", "taken"))
    task = held(taken)
    data = {"action": "forget_visits", "_selected_action": [free.pk, taken.pk]}
    response = admin_client.post(changelist(Festival), data, follow=True)
    assert response.redirect_chain == [(changelist(Festival), 302)]
    assert [message.level_tag for message in response.context["messages"]] == ["error"]
    assert task.label in response.content.decode()
    assert list(Festival.objects.values_list("visits", flat=True)) == [3, 3]
    assert not LogEntry.objects.exists()


@pytest.mark.door("admin: actions of your own")
def test_an_action_that_is_undone_takes_its_messages_back(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_all(self: FestivalAdmin, request: HttpRequest, festivals: QuerySet[Festival]) -> None:
        for festival in festivals.order_by("name"):
            festival.save()
            self.message_user(request, f"{festival} was saved")

    monkeypatch.setattr(FestivalAdmin, "forget_visits", admin.action(save_all))
    free, taken = (new(Festival, name) for name in ("free", "taken"))
    held(taken)
    data = {"action": "forget_visits", "_selected_action": [free.pk, taken.pk]}
    response = admin_client.post(changelist(Festival), data, follow=True)
    assert [message.level_tag for message in response.context["messages"]] == ["error"]


@pytest.mark.door("admin: change")
def test_who_is_refused_after_the_form_was_valid_gets_a_message(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    concert, ann = new_concert(), new(Musician, "Ann")
    task = held(ann)
    monkeypatch.setattr(ConcertAdmin, "save_related", lambda *_: ann.save())
    data = {
        "name": "gala",
        "festival": concert.festival_id,
        "pieces-TOTAL_FORMS": 0,
        "pieces-INITIAL_FORMS": 0,
    }
    url = page("concert_change", concert.pk)
    response = admin_client.post(url, data, follow=True)
    assert response.redirect_chain == [(url, 302)]
    assert task.label in response.content.decode()
    assert names(Concert) == ["opening"]
    assert the_task() == task


@pytest.mark.door("admin: delete")
def test_who_is_refused_after_the_question_gets_a_message(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    festival, ann = new(Festival, "spring"), new(Musician, "Ann")
    task = held(ann)
    monkeypatch.setattr(FestivalAdmin, "delete_model", lambda *_: ann.delete())
    url = page("festival_delete", festival.pk)
    response = admin_client.post(url, CONFIRMED, follow=True)
    assert response.redirect_chain == [(url, 302)]
    assert task.label in response.content.decode()
    assert not LogEntry.objects.exists()
