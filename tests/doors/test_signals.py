"""The door of signals: receivers that save again, before and after the save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db.models.signals import ModelSignal, post_delete, post_save, pre_save

from powercrud_models import ConflictError
from tests.doors.models import Concert, Festival, Musician, Piece
from tests.doors.programme import (
    finished,
    held,
    names,
    new,
    new_programme,
    nothing_started,
    the_task,
    works,
)


@contextmanager
def received(signal: ModelSignal, sender: Any, receiver: Callable[[Any], Any]) -> Iterator[None]:
    """While the block runs, the receiver is called with each instance that the sender's sends."""

    def receive(instance: Any, **_: Any) -> None:
        receiver(instance)

    signal.connect(receive, sender=sender)
    try:
        yield
    finally:
        signal.disconnect(receive, sender=sender)


def save_again(festival: Festival) -> None:
    if festival.visits < 3:
        festival.visits += 1
        festival.save()


@pytest.mark.door("signals that save again")
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_object_that_its_receiver_saves_again_is_one_item(signal: ModelSignal) -> None:
    with received(signal, Festival, save_again):
        festival = Festival(name="spring")
        festival.save()
    assert Festival.objects.get().visits == 3
    assert works(the_task()) == [("festival", "measure")]
    assert festival.async_task == the_task()
    assert finished(the_task()) == 0


@pytest.mark.door("signals that save again")
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_what_a_receiver_saves_joins_the_task(signal: ModelSignal) -> None:
    festival, concert, _ = new_programme()
    with received(signal, Festival, lambda _: concert.save()):
        festival.save()
    assert sorted(works(the_task())) == [("concert", "rehearse"), ("festival", "measure")]
    finished(the_task())


@pytest.mark.door("signals that save again")
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_an_object_without_work_that_its_receiver_saves_again_is_saved(signal: ModelSignal) -> None:
    ann = new(Musician, "Ann")

    def correct(musician: Musician) -> None:
        if musician.name != "Amy":
            musician.name = "Amy"
            musician.save()

    with received(signal, Musician, correct):
        ann.name = "Ada"
        ann.save()
    assert names(Musician) == ["Amy"]
    assert nothing_started()


@pytest.mark.door("signals that save again")
@pytest.mark.parametrize("signal", [pre_save, post_save])
@pytest.mark.parametrize("model", [Festival, Musician])
def test_a_receiver_that_is_refused_undoes_the_save(signal: ModelSignal, model: Any) -> None:
    obj, piece = new(model, "before"), new_programme()[-1]
    task = held(piece)
    obj.name = "after"
    with received(signal, model, lambda _: piece.save()), pytest.raises(ConflictError):
        obj.save()
    assert "after" not in names(model)
    assert the_task() == task


@pytest.mark.door("signals that save again")
def test_a_receiver_of_the_work_runs_in_its_task() -> None:
    festival, _, piece = new_programme()

    def lengthen(_: Festival) -> None:
        piece.minutes += 1
        piece.save()

    festival.save()
    with received(post_save, Festival, lengthen):
        assert finished(the_task()) == 8
    assert Piece.objects.get().minutes == 9


@pytest.mark.door("signals that save again")
def test_a_receiver_may_save_what_a_deletion_leaves() -> None:
    festival, concert, _ = new_programme()
    with received(post_delete, Concert, lambda gone: gone.festival.save()):
        concert.delete()
    assert names(Concert) == []
    assert works(the_task()) == [("festival", "measure")]
    assert finished(the_task()) == 0
    assert festival.holder is None
