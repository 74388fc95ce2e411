"""The doors of Django's admin that add and change an object."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from powercrud_models.models import AsyncTask
from powercrud_models.runner import run_task
from tests.deliveries import deliver, held_by
from tests.doors.admin_pages import CHANGED, SHOWN_AGAIN, change, page, rows, says
from tests.doors.models import Concert, Festival, Musician, Sponsor
from tests.doors.programme import (
    finished,
    held,
    keys,
    names,
    new,
    new_programme,
    the_task,
    works,
)


@pytest.mark.door("admin: add")
def test_adding_an_object_with_inlines_is_one_task(admin_client: Client, admin_user: Any) -> None:
    ann = new(Musician, "Ann")
    data = {
        "name": "spring",
        "visits": 0,
        **rows("concerts", [], {"name": "opening", "musicians": [ann.pk]}, {"name": "closing"}),
        **rows("sponsors", [], {"name": "bank"}),
    }

    assert admin_client.post(page("festival_add"), data).status_code == CHANGED

    festival, sponsor = Festival.objects.get(), Sponsor.objects.get()
    opening, closing = Concert.objects.order_by("pk")
    task = the_task()
    assert works(task) == [
        ("festival", "measure"),
        ("concert", "rehearse"),
        ("concert", "rehearse"),
    ]
    assert held_by(task.key) == keys(festival, opening, closing)
    assert sponsor.holder is ann.holder is None
    assert finished(task) == [0, ["Ann"], []]


@pytest.mark.door("admin: add")
def test_what_a_new_object_refers_to_may_be_held_its_task_waits(admin_client: Client) -> None:
    """A new row cannot be held; what its work touches is known at the claim only."""
    ann = new(Musician, "Ann")
    holder = held(ann)
    data = {
        "name": "spring",
        "visits": 0,
        **rows("concerts", [], {"name": "opening", "musicians": [ann.pk]}),
        **rows("sponsors", []),
    }

    assert admin_client.post(page("festival_add"), data).status_code == CHANGED

    task = AsyncTask.objects.exclude(pk=holder.pk).get()
    deliver()
    task.refresh_from_db()
    assert task.status == AsyncTask.Status.PENDING
    assert holder.label in task.error
    run_task(holder.key)
    run_task(task.key)
    assert task.result(timeout=0) == [0, ["Ann"]]


@pytest.mark.door("admin: change")
def test_changing_an_object_starts_its_work(admin_client: Client) -> None:
    festival, concert, piece = new_programme()
    data = {
        "name": "autumn",
        "visits": 0,
        **rows("concerts", [concert], {"name": concert.name}),
        **rows("sponsors", []),
    }

    assert admin_client.post(change(festival), data).status_code == CHANGED

    task = the_task()
    assert works(task) == [("festival", "measure")]
    assert held_by(task.key) == keys(festival, concert, piece)
    assert finished(task) == 8
    festival.refresh_from_db()
    assert (festival.name, festival.minutes) == ("autumn", 8)


@pytest.mark.door("admin: change")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
def test_an_object_that_is_held_is_not_changed_and_the_form_says_why(
    admin_client: Client, number: int
) -> None:
    programme = new_programme()
    festival, concert, _ = programme
    task = held(programme[number])
    data = {
        "name": "autumn",
        "visits": 0,
        **rows("concerts", [concert], {"name": concert.name}),
        **rows("sponsors", []),
    }

    response = admin_client.post(change(festival), data)

    assert response.status_code == SHOWN_AGAIN
    assert says(response, task)
    assert names(Festival) == ["spring"]
    assert the_task() == task
    assert not LogEntry.objects.exists()


@pytest.mark.door("admin: change")
def test_the_form_of_an_admin_without_the_mixin_says_why(admin_client: Client) -> None:
    ann = new(Musician, "Ann")
    task = held(ann)
    response = admin_client.post(change(ann), {"name": "Amy"})
    assert response.status_code == SHOWN_AGAIN
    assert says(response, task)
    assert names(Musician) == ["Ann"]
