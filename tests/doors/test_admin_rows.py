"""The doors of Django's admin with many rows on a page: inlines on two levels, and lists."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from tests.deliveries import held_by
from tests.doors.admin_pages import CHANGED, SHOWN_AGAIN, change, changelist, rows, says
from tests.doors.models import Concert, Festival, Musician, Named, Piece, Sponsor
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


@pytest.mark.door("admin: inlines")
def test_several_inlines_of_one_page_are_changed_in_one_task(admin_client: Client) -> None:
    festival, concert, piece = new_programme()
    bank, shop = (new(Sponsor, name, festival=festival) for name in ("bank", "shop"))
    gone = new_concert(festival=festival)
    data = {
        "name": festival.name,
        "visits": 0,
        **rows(
            "concerts",
            [concert, gone],
            {"name": "gala"},
            {"name": gone.name, "DELETE": "on"},
            {"name": "closing"},
        ),
        **rows("sponsors", [bank, shop], {"name": "mint"}, {"name": "shop"}),
    }

    assert admin_client.post(change(festival), data).status_code == CHANGED

    assert names(Concert) == ["gala", "closing"]
    assert names(Sponsor) == ["mint", "shop"]
    task = the_task()
    # an admin page saves its object even where nobody has changed it
    assert works(task) == [
        ("festival", "measure"),
        ("concert", "rehearse"),
        ("concert", "rehearse"),
    ]
    assert keys(festival, *Concert.objects.all(), piece) <= held_by(task.key)
    assert finished(task) == [8, [], []]


@pytest.mark.door("admin: inlines")
def test_the_inlines_of_the_next_level_are_on_the_page_of_their_own_object(
    admin_client: Client,
) -> None:
    festival, concert, piece = new_programme()
    overview = admin_client.get(change(festival)).content.decode()
    assert change(concert) in overview  # show_change_link
    data = {
        "name": "gala",
        "festival": festival.pk,
        **rows("pieces", [piece], {"name": "march", "minutes": 5}, {"name": "waltz", "minutes": 7}),
    }

    assert admin_client.post(change(concert), data).status_code == CHANGED

    assert names(Piece) == ["march", "waltz"]
    task = the_task()
    assert works(task) == [("concert", "rehearse")]
    assert held_by(task.key) == keys(concert, piece)
    assert festival.holder is None
    finished(task)


@pytest.mark.door("admin: inlines")
@pytest.mark.parametrize("model", [Concert, Sponsor])
def test_a_held_row_of_an_inline_keeps_the_whole_page_from_being_saved(
    admin_client: Client, model: type[Named]
) -> None:
    festival, concert, _ = new_programme()
    bank = new(Sponsor, "bank", festival=festival)
    task = held(concert if model is Concert else bank)
    data = {
        "name": "autumn",
        "visits": 0,
        **rows("concerts", [concert], {"name": "gala"}),
        **rows("sponsors", [bank], {"name": "mint"}),
    }

    response = admin_client.post(change(festival), data)

    assert response.status_code == SHOWN_AGAIN
    assert says(response, task)
    assert (names(Festival), names(Concert), names(Sponsor)) == (["spring"], ["opening"], ["bank"])
    assert the_task() == task


@pytest.mark.door("admin: inlines")
def test_a_held_row_of_an_inline_that_nobody_has_changed_keeps_nothing(
    admin_client: Client,
) -> None:
    festival, *_ = new_programme()
    bank, shop = (new(Sponsor, name, festival=festival) for name in ("bank", "shop"))
    task = held(bank)
    data = {
        "name": "autumn",
        "visits": 0,
        **rows("concerts", []),
        **rows("sponsors", [bank, shop], {"name": "bank"}, {"name": "mall"}),
    }
    assert admin_client.post(change(festival), data).status_code == CHANGED
    assert names(Festival) == ["autumn"]
    assert names(Sponsor) == ["bank", "mall"]
    assert bank.holder == task


@pytest.mark.door("admin: inlines")
@pytest.mark.parametrize("model", [Piece, Sponsor])
def test_a_held_row_of_an_inline_is_not_deleted_and_a_message_says_why(
    admin_client: Client, model: type[Named]
) -> None:
    """Django does not look at the errors of a form that is to be deleted."""
    festival, concert, piece = new_programme()
    bank = new(Sponsor, "bank", festival=festival)
    task = held(piece if model is Piece else bank)
    data = {
        "name": "autumn",
        "visits": 0,
        **rows("concerts", [concert], {"name": "opening", "DELETE": "on"}),
        **rows("sponsors", [bank], {"name": "bank", "DELETE": "on"}),
    }
    response = admin_client.post(change(festival), data, follow=True)
    assert says(response, task)
    assert (names(Festival), names(Piece), names(Sponsor)) == (["spring"], ["overture"], ["bank"])
    assert the_task() == task
    assert not LogEntry.objects.exists()


@pytest.mark.door("admin: list_editable")
@pytest.mark.parametrize("model", [Musician, Sponsor], ids=["alone", "AsyncAdminMixin"])
def test_a_held_row_of_the_list_is_shown_with_the_reason(
    admin_client: Client, model: type[Named]
) -> None:
    first, second = new(model, "first"), new(model, "second")
    task = held(first)
    data = rows("form", [second, first], {"name": "2nd"}, {"name": "1st"})
    response = admin_client.post(changelist(model), {**data, "_save": "Save"})
    assert response.status_code == SHOWN_AGAIN
    assert says(response, task)
    assert names(model) == ["first", "second"]


@pytest.mark.door("admin: list_editable")
@pytest.mark.parametrize(
    ("model", "after"),
    [(Musician, ["first", "second"]), (Sponsor, ["first", "2nd"])],
    ids=["alone", "AsyncAdminMixin"],
)
def test_a_held_row_that_nobody_has_changed_keeps_others_only_without_the_mixin(
    admin_client: Client, model: type[Named], after: list[str]
) -> None:
    first, second = new(model, "first"), new(model, "second")
    held(first)
    data = rows("form", [second, first], {"name": "2nd"}, {"name": "first"})
    admin_client.post(changelist(model), {**data, "_save": "Save"})
    assert names(model) == after
