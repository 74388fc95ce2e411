"""A save that sets nothing in motion: the update itself is the look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import connection
from django.db.models.signals import pre_save

from powercrud_models import ConflictError
from tests.deliveries import deliver
from tests.kinds.models import Bolt, Part, Project, Tag
from tests.stage import Stage, in_standard_quotes

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


@pytest.fixture
def bolt(db: None) -> Bolt:
    (project,) = Project.objects.bulk_create([Project(name="bridge")])
    (part,) = Part.objects.bulk_create([Part(name="pier", project=project)])
    (bolt,) = Bolt.objects.bulk_create([Bolt(name="M12", part=part)])
    return bolt


@contextmanager
def statements() -> Iterator[list[str]]:
    """The first word of each statement, with what it looks at."""
    seen: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql.split(maxsplit=1)[0] + (" and look" if "objectlock" in sql else ""))
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield seen


def test_the_first_look_on_postgresql_and_the_second_on_sqlite_is_the_update(bolt: Bolt) -> None:
    with statements() as executed:
        bolt.save()
    before = [] if connection.vendor == "postgresql" else ["SELECT and look"]
    behind = [] if connection.vendor == "sqlite" else ["SELECT and look"]
    assert executed == [*before, "UPDATE and look", *behind]


def test_it_leaves_nothing_on_the_instance(bolt: Bolt) -> None:
    before = set(vars(bolt))
    bolt.save()
    assert set(vars(bolt)) == before


def test_a_row_that_is_gone_is_inserted_as_by_django(bolt: Bolt) -> None:
    Bolt.objects.filter(pk=bolt.pk)._raw_delete("default")
    bolt.save()
    assert Bolt.objects.get() == bolt


def test_a_row_that_is_gone_and_held_is_not_inserted(bolt: Bolt) -> None:
    bolt.part.save()
    Bolt.objects.filter(pk=bolt.pk)._raw_delete("default")
    with pytest.raises(ConflictError):
        bolt.save()
    assert not Bolt.objects.exists()


def test_what_a_receiver_wrote_is_undone_with_a_refused_save(bolt: Bolt, stage: Stage) -> None:
    def note(instance: Bolt, **_: Any) -> None:
        Tag.objects.create(name=f"{instance.name} is saved")

    def write() -> None:
        with updating.at("before", 'UPDATE "kinds_bolt"'):
            bolt.save()

    updating = stage.stop()
    pre_save.connect(note, sender=Bolt)
    try:
        # SQLite's writer has begun by then: the launch cannot come in between
        if connection.vendor == "sqlite":
            bolt.part.save()
            with pytest.raises(ConflictError):
                bolt.save()
        else:
            writer = stage.act(write, "writer")
            updating.wait_until_reached()
            bolt.part.save()
            updating.let_go()
            assert isinstance(writer.error(), ConflictError)
    finally:
        pre_save.disconnect(note, sender=Bolt)
    assert not Tag.objects.exists()


def test_the_transaction_of_a_receiver_is_that_of_the_save(bolt: Bolt) -> None:
    """Where a receiver may write, too, the save is no transaction of its own on any database."""
    depths: list[bool] = []

    def note(**_: Any) -> None:
        depths.append(connection.in_atomic_block)

    bolt.save()
    pre_save.connect(note, sender=Bolt)
    try:
        bolt.save()
    finally:
        pre_save.disconnect(note, sender=Bolt)
    assert depths == [True]


class TestTheHolderEndsMeanwhile:
    """Between the UPDATE that finds the row held and what Django does next."""

    def saved_while(self, bolt: Bolt, at_update: Callable[[Callable[[], object]], object]) -> None:
        seen: list[str] = []

        def interfere(execute: Any, sql: str, *rest: Any) -> Any:
            if 'UPDATE "kinds_bolt"' not in in_standard_quotes(sql) or seen:
                return execute(sql, *rest)
            seen.append(sql)
            return at_update(lambda: execute(sql, *rest))

        bolt.name = "written"
        with connection.execute_wrapper(interfere):
            bolt.save()
        assert seen

    def test_the_row_is_updated_and_not_inserted_again(self, bolt: Bolt, stage: Stage) -> None:
        if connection.vendor != "postgresql":
            pytest.skip("others look before the UPDATE")
        bolt.part.save()

        def end_holder(update: Callable[[], object]) -> object:
            found = update()
            stage.act(deliver, "worker").result()
            return found

        self.saved_while(bolt, end_holder)
        assert Bolt.objects.get().name == "written"

    def test_with_select_on_save_no_write_is_lost(
        self, bolt: Bolt, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Django takes a row that is there for one that was updated."""
        if connection.vendor == "sqlite":
            pytest.skip("SQLite looks before the UPDATE")
        monkeypatch.setattr(Bolt._meta, "select_on_save", True)

        def launch_and_end(update: Callable[[], object]) -> object:
            stage.act(bolt.part.save, "launcher").result()
            found = update()
            worker = stage.act(deliver, "worker")
            with suppress(AssertionError):  # it ends, if this UPDATE has found no row to lock
                worker.wait_until_blocked()
            return found

        with suppress(ConflictError):
            self.saved_while(bolt, launch_and_end)
            assert Bolt.objects.get().name == "written"
