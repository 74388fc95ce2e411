"""The doors of related managers: `add`, `set`, `remove`, `clear`, `create`."""

from __future__ import annotations

import pytest

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask
from tests.deliveries import held_by
from tests.doors.models import Concert, Festival, Musician, Sponsor
from tests.doors.programme import (
    finished,
    held,
    keys,
    new,
    new_concert,
    nothing_started,
    the_task,
    works,
)


@pytest.mark.door("related manager of a foreign key: create()")
def test_what_is_created_through_a_relation_starts_its_work() -> None:
    festival = new(Festival, "spring")
    concert = festival.concerts.create(name="opening")
    festival.concerts.update_or_create(name="closing")
    assert works(concert.async_task) == [("concert", "rehearse")]
    assert AsyncTask.objects.count() == 2


@pytest.mark.door("related manager of a foreign key: create()")
def test_what_is_created_while_its_parent_is_held_is_nobody_elses() -> None:
    festival = new(Festival, "spring")
    task = held(festival)
    concert = festival.concerts.create(name="opening")
    assert concert.holder == concert.async_task != task


@pytest.mark.door("related manager of a foreign key: add(), set(), remove(), clear()")
def test_moving_rows_in_bulk_starts_nothing() -> None:
    spring, autumn = new(Festival, "spring"), new(Festival, "autumn")
    concert, bank = new_concert(festival=spring), new(Sponsor, "bank", festival=spring)
    autumn.concerts.add(concert)
    assert list(autumn.concerts.all()) == [concert]
    autumn.sponsors.set([bank])
    assert list(autumn.sponsors.all()) == [bank]
    autumn.sponsors.remove(bank)
    assert not autumn.sponsors.exists()
    autumn.sponsors.add(bank)
    autumn.sponsors.clear()
    assert not autumn.sponsors.exists()
    assert nothing_started()


@pytest.mark.door("related manager of a foreign key: add(), set(), remove(), clear()")
def test_moving_rows_one_by_one_starts_their_work() -> None:
    spring, autumn = new(Festival, "spring"), new(Festival, "autumn")
    concert = new_concert(festival=spring)
    autumn.concerts.add(concert, bulk=False)
    assert finished(the_task()) == []
    assert list(autumn.concerts.all()) == [concert]


@pytest.mark.door("related manager of a foreign key: add(), set(), remove(), clear()")
@pytest.mark.parametrize("bulk", [True, False])
def test_a_held_row_cannot_be_taken_away(bulk: bool) -> None:
    festival = new(Festival, "spring")
    bank = new(Sponsor, "bank", festival=festival)
    held(bank)
    with pytest.raises(ConflictError):
        festival.sponsors.clear(bulk=bulk)
    with pytest.raises(ConflictError):
        festival.sponsors.remove(bank, bulk=bulk)
    with pytest.raises(ConflictError):
        festival.sponsors.set([], bulk=bulk)
    assert list(festival.sponsors.all()) == [bank]


@pytest.mark.door("related manager of a foreign key: add(), set(), remove(), clear()")
def test_a_held_row_cannot_be_added_one_by_one() -> None:
    festival, bank = new(Festival, "spring"), new(Sponsor, "bank")
    held(bank)
    with pytest.raises(ConflictError):
        festival.sponsors.add(bank, bulk=False)
    with pytest.raises(ConflictError):
        festival.sponsors.set([bank], bulk=False)
    assert not festival.sponsors.exists()


@pytest.mark.door("related manager of a foreign key: add(), set(), remove(), clear()")
def test_a_held_row_that_is_added_in_bulk_is_written_by_djangos_base_manager() -> None:
    festival, bank = new(Festival, "spring"), new(Sponsor, "bank")
    task = held(bank)
    festival.sponsors.add(bank)
    assert list(festival.sponsors.all()) == [bank]
    assert bank.holder == task


@pytest.mark.door("related manager of a many-to-many field")
def test_many_to_many_tables_are_not_guarded_and_start_nothing() -> None:
    ann, ben = new(Musician, "Ann"), new(Musician, "Ben")
    concert = new_concert(musicians=[ann])
    tasks = [held(ann), held(concert)]
    concert.musicians.add(ben)
    concert.musicians.remove(ann)
    assert list(concert.musicians.all()) == [ben]
    concert.musicians.set([ann])
    assert list(concert.musicians.all()) == [ann]
    concert.musicians.clear()
    assert not concert.musicians.exists()
    assert list(AsyncTask.objects.order_by("created_at")) == tasks


@pytest.mark.door("related manager of a many-to-many field")
def test_what_was_added_after_the_launch_is_locked_at_the_claim() -> None:
    ann = new(Musician, "Ann")
    concert = new_concert()
    concert.save()
    concert.musicians.add(ann)
    assert held_by(the_task().key) == keys(concert)
    assert finished(the_task()) == ["Ann"]


@pytest.mark.door("related manager of a many-to-many field")
def test_what_is_created_through_it_is_saved_like_anything_else() -> None:
    concert = new_concert()
    ann = concert.musicians.create(name="Ann")
    concert_of_ann = ann.concerts.create(name="gala", festival=concert.festival)
    assert works(concert_of_ann.async_task) == [("concert", "rehearse")]
    assert list(Concert.objects.filter(musicians=ann).order_by("pk")) == [concert, concert_of_ann]
