"""The doors of transactions: nested, rolled back, durable, one for each request, row locks."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test import Client

from powercrud_models import ConflictError
from tests.deliveries import NOTHING, held_by
from tests.deliveries import rows as rows_of_all
from tests.doors.models import Concert, Festival, Musician
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
from tests.kinds.models import Clock, Crew
from tests.stage import Stage

# its name since Django 6.1, and before
savepoint_create = getattr(transaction, "savepoint_create", None) or transaction.savepoint


@pytest.fixture
def atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)


@pytest.mark.door("ATOMIC_REQUESTS")
def test_all_that_a_request_saves_is_one_task(atomic_requests: None, client: Client) -> None:
    festival, *_ = new_programme()
    response = client.post(f"/festivals/{festival.pk}/rename/", {"name": "autumn"})
    assert response.status_code == 200
    assert works(the_task()) == [("festival", "measure"), ("concert", "rehearse")]
    assert finished(the_task()) == [8, []]


@pytest.mark.door("ATOMIC_REQUESTS")
def test_a_request_that_fails_leaves_nothing(atomic_requests: None, client: Client) -> None:
    festival, *_ = new_programme()
    data = {"name": "autumn", "error": "the hall has burnt down"}
    with pytest.raises(ValueError, match="the hall has burnt down"):
        client.post(f"/festivals/{festival.pk}/rename/", data)
    assert names(Festival) == ["spring"]
    assert rows_of_all() == NOTHING


@pytest.mark.door("ATOMIC_REQUESTS")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["itself", "its concert", "its piece"])
def test_a_request_that_is_refused_is_undone_and_answered_with_409(
    atomic_requests: None, client: Client, number: int
) -> None:
    programme = new_programme()
    task = held(programme[number])
    url = f"/festivals/{programme[0].pk}/rename/"
    assert client.post(url, {"name": "autumn"}).status_code == 409
    assert names(Festival) == ["spring"]
    assert the_task() == task


@pytest.mark.door("ATOMIC_REQUESTS")
def test_without_it_a_request_commits_save_by_save(atomic_requests: None, client: Client) -> None:
    """Its first save is committed with its locks: its second one runs into them."""
    festival, concert, _ = new_programme()
    url = f"/festivals/{festival.pk}/rename-by-itself/"
    assert client.post(url, {"name": "autumn"}).status_code == 409
    assert names(Festival) == ["autumn"]
    assert concert.holder == the_task()


@pytest.mark.door("nested atomic()")
def test_nested_blocks_are_one_task() -> None:
    festival, concert, piece = new_programme()
    with transaction.atomic():
        festival.save()
        with transaction.atomic():
            concert.save()
            with transaction.atomic(savepoint=False):
                piece.save()
                festival.save()
    assert works(the_task()) == [("festival", "measure"), ("concert", "rehearse")]
    assert finished(the_task()) == [8, []]


@pytest.mark.door("nested atomic()")
def test_a_refused_save_that_is_caught_leaves_the_transaction_as_it_was() -> None:
    free, taken = new(Festival, "free"), new(Festival, "taken")
    task = held(taken)
    with transaction.atomic():
        with pytest.raises(ConflictError):
            taken.save()
        free.save()
        with pytest.raises(ConflictError):
            taken.delete()
    assert held_by(task.key) == keys(taken)
    assert held_by(free.async_task.key) == keys(free)
    assert finished(free.async_task) == 0


@pytest.mark.door("savepoint rollback")
@pytest.mark.parametrize("by_hand", [False, True], ids=["atomic", "savepoint_rollback"])
def test_what_a_savepoint_undoes_leaves_nothing(by_hand: bool) -> None:
    festival, concert, _ = new_programme()
    with transaction.atomic():
        if by_hand:
            savepoint = savepoint_create()
            festival.save()
            transaction.savepoint_rollback(savepoint)
        else:
            with suppress(KeyError), transaction.atomic():
                festival.save()
                raise KeyError
        assert festival.async_task is None
        concert.save()
    assert works(the_task()) == [("concert", "rehearse")]
    assert festival.holder is None
    assert finished(the_task()) == []


@pytest.mark.door("savepoint rollback")
def test_what_was_saved_before_the_savepoint_stays() -> None:
    festival, concert, _ = new_programme()
    with transaction.atomic():
        concert.save()
        with suppress(KeyError), transaction.atomic():
            festival.save()
            raise KeyError
    assert works(the_task()) == [("concert", "rehearse")]
    assert festival.holder is None
    assert finished(the_task()) == []


@pytest.mark.door("atomic(durable=True)")
def test_saves_in_a_durable_block_are_one_task() -> None:
    festival, concert, _ = new_programme()
    with transaction.atomic(durable=True):
        festival.save()
        concert.save()
    assert finished(the_task()) == [8, []]


@pytest.mark.door("atomic(durable=True)")
def test_a_durable_block_in_work_needs_work_in_autocommit() -> None:
    def durable(obj: Any) -> str:
        with transaction.atomic(durable=True):
            obj.save()
        return "saved"

    Clock.script, Crew.script = durable, durable
    [clock] = Clock._base_manager.bulk_create([Clock()])
    [crew] = Crew._base_manager.bulk_create([Crew()])
    task = crew.post.enqueue()  # atomic=False
    assert finished(task) == "saved"
    failed = clock.wind.enqueue()
    with pytest.raises(AssertionError, match="A durable atomic block cannot be nested"):
        finished(failed)
    assert failed.status == "failed"


@pytest.mark.door("select_for_update()")
def test_rows_that_were_locked_before_are_saved_in_one_task() -> None:
    new_programme()
    with transaction.atomic():
        [concert] = Concert.objects.select_for_update().order_by("pk")
        [festival] = Festival.objects.select_for_update().order_by("pk")
        festival.save()
        concert.save()
    assert finished(the_task()) == [8, []]


@pytest.mark.door("select_for_update()")
@pytest.mark.parametrize("model", [Festival, Musician])
def test_the_row_of_a_held_object_can_be_locked_and_is_not_saved(model: type[Festival]) -> None:
    held(new(model, "before"))
    with transaction.atomic():
        obj = model.objects.select_for_update(nowait=connection.vendor != "sqlite").get()
        obj.name = "after"
        with pytest.raises(ConflictError):
            obj.save()
    assert names(model) == ["before"]


@pytest.mark.door("select_for_update()")
@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="SQLite has no row locks")
def test_a_save_waits_for_whoever_has_locked_the_row_of_a_descendant(stage: Stage) -> None:
    festival, concert, _ = new_programme()
    with transaction.atomic():
        Concert.objects.select_for_update().get()
        saving = stage.act(festival.save, "save")
        saving.wait_until_blocked()
        assert nothing_started()
    saving.result()
    assert concert.holder == festival.async_task
