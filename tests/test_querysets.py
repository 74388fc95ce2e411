"""``AsyncQuerySet``: writes of many rows are guarded, and are Django's otherwise.

Their races with launches are in ``test_guard_races``.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import FieldDoesNotExist
from django.core.management import call_command
from django.db import NotSupportedError, connection, transaction
from django.db.migrations.state import ModelState
from django.db.models import Count, F, Model, QuerySet, Value, Window
from django.db.models.deletion import ProtectedError
from django.db.models.functions import Concat, RowNumber
from django.db.models.signals import pre_delete
from django.test.utils import CaptureQueriesContext

from powercrud_models import AsyncQuerySet, ConflictError, LeaseLost
from powercrud_models.models import AsyncTask
from powercrud_models.tasks import run_task
from tests.deliveries import deliver, lose_messages, make_overdue, messages
from tests.kinds.models import (
    Bolt,
    Brief,
    Crew,
    Documentary,
    Film,
    Label,
    Member,
    Note,
    Part,
    Person,
    Project,
    Seat,
    Tag,
    Telegram,
)
from tests.promises.made import make_crew, make_project
from tests.stage import Stage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Write = Callable[["QuerySet[Any]"], object]


def bulk_update(rows: QuerySet[Any]) -> int:
    """In batches of one row: the first has been written when the second is."""
    objs = list(rows.order_by("pk"))
    for obj in objs:
        obj.name = "written"
    return rows.bulk_update(objs, ["name"], batch_size=1)


WRITES: dict[str, Write] = {
    "update": lambda rows: rows.update(name="written"),
    "aupdate": lambda rows: async_to_sync(rows.aupdate)(name="written"),
    "bulk_update": bulk_update,
    "abulk_update": lambda rows: async_to_sync(rows.abulk_update)(list(rows), ["name"]),
    "delete": lambda rows: rows.delete(),
    "adelete": lambda rows: async_to_sync(rows.adelete)(),
}
SOME_WRITES = [pytest.param(WRITES[name], id=name) for name in ("update", "bulk_update", "delete")]


@pytest.fixture(params=list(WRITES.values()), ids=list(WRITES))
def write(request: pytest.FixtureRequest) -> Write:
    found: Write = request.param
    return found


@pytest.fixture
def parts(db: None) -> list[Part]:
    """Three parts, the last of which a task holds."""
    make_project(parts=3)
    made = list(Part.objects.order_by("pk"))
    made[-1].tighten.enqueue()
    return made


def contents(model: type[Model]) -> list[object]:
    return list(model._base_manager.order_by("pk").values())


def queries(call: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as captured:
        call()
    return len(captured)


class TestHeldRows:
    def test_a_write_that_reaches_one_is_refused_for_all(
        self, parts: list[Part], write: Write
    ) -> None:
        before, task = contents(Part), AsyncTask.objects.get()
        with pytest.raises(ConflictError) as caught:
            write(Part.objects.all())
        assert [(each.pk, each.holder) for each in caught.value.conflicts] == [(parts[-1].pk, task)]
        assert contents(Part) == before

    def test_a_write_of_others_passes(self, parts: list[Part], write: Write) -> None:
        write(Part.objects.exclude(pk=parts[-1].pk))

    def test_a_refused_write_leaves_the_open_transaction_usable(
        self, parts: list[Part], write: Write
    ) -> None:
        with transaction.atomic():
            with pytest.raises(ConflictError):
                write(Part.objects.all())
            Part.objects.filter(pk=parts[0].pk).update(name="written after")
        assert Part.objects.get(pk=parts[0].pk).name == "written after"

    def test_the_transaction_that_launched_the_holder_passes(self, write: Write) -> None:
        project = make_project(parts=2)
        with transaction.atomic():
            project.save()
            write(Part.objects.all())

    def test_without_the_guard_it_passes(
        self, parts: list[Part], write: Write, settings: Any
    ) -> None:
        settings.POWERCRUD_SETTINGS = {**settings.POWERCRUD_SETTINGS, "GUARD_WRITES": False}
        write(Part.objects.all())

    def test_the_base_manager_goes_past_it(self, parts: list[Part], write: Write) -> None:
        assert not isinstance(Part._base_manager.all(), AsyncQuerySet)
        write(Part._base_manager.all())

    def test_it_is_refused_with_async_off(
        self, parts: list[Part], write: Write, async_off: None
    ) -> None:
        with pytest.raises(ConflictError):
            write(Part.objects.all())

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_a_row_of_another_database_is_another_row(
        self, parts: list[Part], write: Write
    ) -> None:
        Project.objects.using("other").bulk_create([Project(pk=parts[0].project_id, name="twin")])
        Part.objects.using("other").bulk_create(parts)
        write(Part.objects.using("other"))

    @pytest.mark.parametrize("write", SOME_WRITES)
    def test_who_runs_into_an_overdue_holder_wakes_it(
        self, parts: list[Part], write: Write
    ) -> None:
        task = AsyncTask.objects.get()
        lose_messages()
        make_overdue(task.key)
        with pytest.raises(ConflictError):
            write(Part.objects.all())
        assert messages() == [task.key]

    def test_what_a_delete_sets_to_null_is_guarded(self) -> None:
        _, member = make_crew()
        task = member.train.enqueue()
        with pytest.raises(ConflictError) as caught:
            Crew.objects.all().delete()
        assert [each.holder for each in caught.value.conflicts] == [task]
        assert Crew.objects.count() == 1


class TestInsideATask:
    def test_its_own_locks_are_no_conflict(self, write: Write) -> None:
        project = make_project(parts=2)
        before = contents(Part)
        Project.script = lambda project: write(project.parts.all()) and None
        project.save()
        deliver()
        assert project.async_task.status == AsyncTask.Status.SUCCESS, project.async_task.error
        assert contents(Part) != before or write is WRITES["abulk_update"]

    def test_what_another_task_holds_is_one(self, parts: list[Part], write: Write) -> None:
        crew, _ = make_crew()
        before = contents(Part)

        def work(crew: Crew) -> None:
            with pytest.raises(ConflictError):
                write(Part.objects.all())

        Crew.script = work
        task = crew.post.enqueue()
        run_task(task.key)
        assert task.result() is None
        assert contents(Part) == before

    @pytest.mark.parametrize("guarded", [True, False])
    def test_stale_work_writes_nothing(self, write: Write, settings: Any, guarded: bool) -> None:
        settings.POWERCRUD_SETTINGS = {**settings.POWERCRUD_SETTINGS, "GUARD_WRITES": guarded}
        crew, _ = make_crew()
        before, raised = contents(Member), []

        def work(crew: Crew) -> None:
            AsyncTask.objects.update(fence=F("fence") + 1)  # another worker has taken it over
            with pytest.raises(LeaseLost) as lost:
                write(Member.objects.all())
            raised.append(lost)

        Crew.script = work
        crew.post.enqueue()
        deliver()
        assert raised
        assert contents(Member) == before


class TestKindsOfModels:
    """What an update of a multi-table child writes, a composite key, no mixin at all."""

    @pytest.fixture
    def film(self, db: None) -> Film:
        child = Documentary.objects.create(director=Person.objects.create(name="Agnes"))
        return Film.objects.get(pk=child.pk)

    def test_a_held_parent_refuses_the_update_of_its_own_columns(self, film: Film) -> None:
        film.archive.enqueue()
        with pytest.raises(ConflictError):
            Documentary.objects.update(writer="Agnes")
        child = Documentary.objects.get()
        child.writer_id = "Agnes"
        with pytest.raises(ConflictError):
            Documentary.objects.bulk_update([child], ["writer"])
        with pytest.raises(ConflictError):
            Documentary.objects.all().delete()
        deliver()
        assert Documentary.objects.update(writer="Agnes") == 1
        assert Film.objects.get().writer_id == "Agnes"

    def test_a_child_among_the_objects_of_its_parents_bulk_update(self, film: Film) -> None:
        film.archive.enqueue()
        child = Documentary.objects.get()
        child.writer_id = "Agnes"
        with pytest.raises(ConflictError):
            Film.objects.bulk_update([child], ["writer"])

    @pytest.mark.parametrize(
        "launch",
        [
            lambda child: child.file.enqueue(),
            lambda child: child.save(update_fields=["words"]),
        ],
        ids=["enqueue", "save"],
    )
    def test_a_launch_on_a_child_waits_for_an_open_update_of_its_parent(
        self, stage: Stage, launch: Callable[[Telegram], object]
    ) -> None:
        Telegram(text="as launched").save()
        deliver()
        written = stage.stop()

        def write() -> None:
            with transaction.atomic():
                Note.objects.update(text="written")
                written.wait_here()

        writer = stage.act(write, "writer")
        written.wait_until_reached()
        launcher = stage.act(lambda: launch(Telegram.objects.get()), "launcher")
        launcher.wait_until_blocked()
        written.let_go()
        writer.result()
        launcher.result()

    def test_a_held_child_refuses_an_update_through_its_parent(self) -> None:
        Brief(text="as launched").save()
        with pytest.raises(ConflictError):
            Note.objects.update(text="written")
        with pytest.raises(ConflictError):
            Note.objects.all().delete()
        assert Brief.objects.get().text == "as launched"

    def test_an_update_locks_the_rows_that_it_writes(self) -> None:
        Telegram(text="as launched").save()
        deliver()
        Note.objects.get().file.enqueue()  # it holds the parent alone
        assert Telegram.objects.update(words=3) == 1
        with pytest.raises(ConflictError):
            Telegram.objects.update(words=4, text="written")
        child = Telegram.objects.get()
        child.words = 5
        assert Telegram.objects.bulk_update([child], ["words"]) == 1
        with pytest.raises(ConflictError):
            Telegram.objects.bulk_update([child], ["words", "text"])
        assert Telegram.objects.get().words == 5

    def test_a_composite_key(self, film: Film) -> None:
        Seat.objects.bulk_create([Seat(row="A", number=number, film=film) for number in (1, 2)])
        one, two = Seat.objects.order_by("number")
        two.reserve.enqueue()
        writes: list[Callable[[QuerySet[Seat]], object]] = [
            lambda seats: seats.update(film=None),
            lambda seats: seats.bulk_update(list(seats), ["film"]),
            lambda seats: seats.delete(),
        ]
        for write in writes:
            with pytest.raises(ConflictError) as caught:
                write(Seat.objects.all())
            assert {each.pk for each in caught.value.conflicts} >= {two.pk}
            write(Seat.objects.filter(pk=one.pk))
        assert Seat.objects.get() == two

    def test_a_model_without_the_mixin(
        self, film: Film, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Label.objects.bulk_create([Label(name="red"), Label(name="green")])
        monkeypatch.setattr(Film, "found", staticmethod(lambda film: Label.objects.red()))
        film.archive.enqueue()
        before = contents(Label)
        with pytest.raises(ConflictError):
            write(Label.objects.all())
        with pytest.raises(ConflictError):
            write(Label.from_queryset.red())
        assert contents(Label) == before
        write(Label.objects.filter(name="green"))

    def test_a_model_without_the_mixin_that_is_written_when_a_launch_comes(
        self, film: Film, monkeypatch: pytest.MonkeyPatch, stage: Stage
    ) -> None:
        Label.objects.bulk_create([Label(name="red")])
        monkeypatch.setattr(Film, "found", staticmethod(lambda film: Label.objects.all()))
        written = stage.stop()

        def write() -> None:
            with transaction.atomic():
                Label.objects.update(name="written")
                written.wait_here()

        writer = stage.act(write, "writer")
        written.wait_until_reached()
        launcher = stage.act(lambda: film.archive.enqueue(), "launcher")
        launcher.wait_until_blocked()
        written.let_go()
        writer.result()
        launcher.result()


class TestAsDjangoDoes:
    """Return values, errors and odd querysets."""

    @pytest.fixture(autouse=True)
    def three(self, db: None) -> None:
        project = make_project(parts=3)
        Bolt.objects.bulk_create([Bolt(name="M12", part=project.parts.first())])

    @pytest.mark.parametrize(
        ("write", "kind"),
        [
            (lambda rows: rows[:2].update(name="written"), TypeError),
            (lambda rows: rows[:2].delete(), TypeError),
            (lambda rows: rows.distinct("name").delete(), TypeError),
            (lambda rows: rows.values("name").delete(), TypeError),
            (lambda rows: rows.union(rows).update(name="written"), NotSupportedError),
            (lambda rows: rows.union(rows).delete(), NotSupportedError),
            (lambda rows: rows.update(title="written"), FieldDoesNotExist),
            (lambda rows: rows.bulk_update(rows, ["title"]), FieldDoesNotExist),
            (lambda rows: rows.bulk_update(rows, []), ValueError),
            (lambda rows: rows.bulk_update(rows, ["name"], batch_size=-1), ValueError),
            (lambda rows: rows.bulk_update([Part()], ["name"]), ValueError),
            (lambda rows: rows[:2].bulk_update(list(rows), ["name"]), TypeError),
        ],
    )
    def test_its_errors(self, write: Write, kind: type[Exception]) -> None:
        said = []
        for rows in (Part._base_manager.all(), Part.objects.all()):
            with pytest.raises(kind) as caught:
                write(rows)
            said.append(str(caught.value))
        assert said[0] == said[1]

    @pytest.mark.parametrize(
        "write",
        [
            lambda rows: rows.update(),
            lambda rows: rows.none().update(name="written"),
            lambda rows: rows.filter(name="part 1").update(
                name="written", effects=F("effects") + 1
            ),
            lambda rows: rows.filter(bolts__name="M12").update(name="written"),
            lambda rows: rows.annotate(n=Count("bolts")).filter(n=0).update(name="written"),
            lambda rows: rows.annotate(new=Concat("name", Value("!"))).update(name=F("new")),
            lambda rows: rows.order_by("-name").update(name="written"),
            lambda rows: rows.order_by("project__name").reverse().update(name="written"),
            lambda rows: rows.values("name").update(name="written"),
            lambda rows: rows.values_list("project").distinct().update(name="written"),
            lambda rows: rows.select_related("project").update(name="written"),
            lambda rows: rows.prefetch_related("bolts").update(name="written"),
            lambda rows: rows.select_for_update().update(name="written"),
            lambda rows: rows.only("effects").update(name="written"),
            lambda rows: (rows.filter(name="part 0") | rows.filter(name="part 1")).update(
                effects=2
            ),
            lambda rows: rows.filter(bolts=None).exclude(name="part 2").update(name="written"),
            lambda rows: (
                rows.annotate(nth=Window(RowNumber(), order_by="pk"))
                .filter(nth__gt=1, project__name="bridge")
                .update(name="written")
            ),
            lambda rows: rows.update(project=Project.objects.get()),
            lambda rows: rows.delete(),
            lambda rows: rows.none().delete(),
            lambda rows: rows.filter(bolts__name="M12").order_by("name").delete(),
            lambda rows: rows.annotate(n=Count("bolts")).filter(n=0).delete(),
            lambda rows: rows.select_for_update().select_related("project").delete(),
            lambda rows: rows.prefetch_related("bolts").distinct().delete(),
            lambda rows: (
                rows.annotate(nth=Window(RowNumber(), order_by="pk")).filter(nth__gt=1).delete()
            ),
            lambda rows: type(rows)(Bolt).filter(part__in=rows).delete(),
            lambda rows: rows.bulk_update([], ["name"]),
            lambda rows: bulk_update(rows.exclude(name="part 1")),
            lambda rows: rows.filter(name="part 1").bulk_update(
                [Part(pk=part.pk, name="written") for part in rows], ["name"]
            ),
        ],
    )
    def test_what_it_does_and_returns(self, write: Write) -> None:
        came_out = []
        for rows in (Part._base_manager.all(), Part.objects.all()):
            with transaction.atomic():
                came_out.append((write(rows), contents(Part), contents(Bolt)))
                transaction.set_rollback(True)
        assert came_out[0] == came_out[1]

    def test_distinct_on_a_column(self) -> None:
        """Django 5.2 updates all the rows, later versions none."""
        came_out: list[object] = []
        for rows in (Part._base_manager.all(), Part.objects.all()):
            try:
                came_out.append(rows.distinct("project").update(name="written"))
            except TypeError as error:
                came_out.append(str(error))
        assert came_out[0] == came_out[1]

    @pytest.mark.parametrize(
        "write", [WRITES["update"], WRITES["delete"]], ids=["update", "delete"]
    )
    def test_rows_that_a_select_would_lock_need_no_transaction(self, write: Write) -> None:
        write(Part.objects.select_for_update())
        assert not Part.objects.filter(name__startswith="part").exists()

    def test_a_protected_row_is_refused_as_by_django(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def protect(collector: Any, field: Any, objs: Any, using: str) -> None:
            raise ProtectedError("protected", set(objs))

        monkeypatch.setattr(Bolt._meta.get_field("part").remote_field, "on_delete", protect)
        with pytest.raises(ProtectedError):
            Part.objects.all().delete()
        assert Part.objects.count() == 3

    def test_signals_of_a_delete_are_sent_once(self) -> None:
        seen: list[object] = []

        def note(instance: Part, **_: Any) -> None:
            seen.append(instance.pk)

        pre_delete.connect(note, sender=Part)
        try:
            Part.objects.all().delete()
        finally:
            pre_delete.disconnect(note, sender=Part)
        assert len(seen) == len(set(seen)) == 3

    def test_the_result_cache_is_dropped(self, write: Write) -> None:
        rows = Part.objects.filter(name__startswith="part")
        assert len(rows) == 3
        write(rows)
        if "bulk" not in next(name for name, each in WRITES.items() if each is write):
            assert len(rows) == 0

    def test_an_overridden_update_is_called_once_for_each_batch(self) -> None:
        Label.objects.bulk_create([Label(name="red"), Label(name="green")])
        assert Label.objects.red().update(name="red wine") == 1
        assert bulk_update(Label.from_queryset.all()) == 2
        assert sorted(Label.objects.values_list("name", "stamps")) == [
            ("written", 1),
            ("written", 2),
        ]


class TestManagers:
    def test_every_model_has_it(self) -> None:
        for model in (Project, Documentary, Seat):
            assert isinstance(model.objects.all(), AsyncQuerySet)
            assert model._meta.default_manager is model.objects

    @pytest.mark.parametrize("name", ["update", "bulk_update", "aupdate", "abulk_update"])
    def test_it_is_a_managers_method_that_a_template_may_not_call(self, name: str) -> None:
        assert getattr(Part.objects, name).alters_data
        assert getattr(Part.objects.all(), name).alters_data

    @pytest.mark.parametrize("name", ["delete", "adelete"])
    def test_a_manager_has_no_delete(self, name: str) -> None:
        assert not hasattr(Part.objects, name)
        assert getattr(Part.objects.all(), name).alters_data

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_no_migration_knows_of_it(self) -> None:
        for model in (Project, Documentary, Seat):
            assert ModelState.from_model(model).managers == []
        said = io.StringIO()
        call_command("makemigrations", "library", "--check", "--dry-run", stdout=said)

    def test_a_queryset_can_be_pickled(self, parts: list[Part]) -> None:
        rows = pickle.loads(pickle.dumps(Part.objects.filter(pk=parts[-1].pk)))
        assert list(rows) == [parts[-1]]
        with pytest.raises(ConflictError):
            rows.update(name="written")

    def test_a_queryset_that_has_written_is_as_before(self, parts: list[Part]) -> None:
        rows = Part.objects.exclude(pk=parts[-1].pk)
        bulk_update(rows)
        with pytest.raises(ConflictError):
            (rows | Part.objects.all()).update(name="written")


class TestRelatedManagers:
    """Those of a foreign key write with the default manager, all but ``add``."""

    @pytest.fixture
    def person(self, db: None) -> Person:
        person = Person.objects.create(name="Agnes")
        for _ in range(2):
            Film.objects.create(director=person, writer=person)
        return person

    @pytest.mark.parametrize(
        "write",
        [
            lambda films: films.update(writer=None),
            lambda films: films.clear(),
            lambda films: films.set([]),
            lambda films: films.remove(*films.all()),
            lambda films: films.all().delete(),
        ],
        ids=["update", "clear", "set", "remove", "delete"],
    )
    def test_a_held_row_is_not_taken_away(
        self, person: Person, write: Callable[[Any], object]
    ) -> None:
        film, _ = person.written.all()
        film.archive.enqueue()
        with pytest.raises(ConflictError):
            write(person.written)
        assert person.written.count() == 2
        deliver()
        write(person.written)
        assert not person.written.exists()

    def test_add_saves_each_object_only_when_asked(self, person: Person) -> None:
        other = Person.objects.create(name="Chris")
        film, _ = person.written.all()
        film.archive.enqueue()
        with pytest.raises(ConflictError):
            other.written.add(film, bulk=False)
        assert not other.written.exists()
        other.written.add(film)  # Django takes the base manager for it: past the guard
        assert other.written.get() == film


class TestWaiting:
    """On a server an update may have to wait for a row; SQLite's writers come one by one."""

    @pytest.mark.parametrize("write", SOME_WRITES)
    @pytest.mark.parametrize("matches", ["before", "after"])
    def test_a_row_that_only_matches_before_or_after_it_waited_is_not_written(
        self, stage: Stage, matches: str, write: Write
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("here nobody has looked before the other has committed")
        make_project(parts=2)
        first, second = Part.objects.order_by("pk")
        open_, before = stage.stop(), "no" if matches == "after" else "part 1"
        if matches == "after":
            Part.objects.filter(pk=second.pk).update(name="no")

        def change() -> None:
            with transaction.atomic():
                Part.objects.filter(pk=first.pk).update(effects=1)
                Part.objects.filter(pk=second.pk).update(name="yes", effects=1)
                open_.wait_here()

        rows = Part.objects.filter(name__in=["part 0", before if matches == "before" else "yes"])
        changer = stage.act(change, "changer")
        open_.wait_until_reached()
        writer = stage.act(lambda: write(rows), "writer")
        writer.wait_until_blocked()
        open_.let_go()
        changer.result()
        writer.result()
        assert Part.objects.get(pk=second.pk).name == "yes"
        assert not Part.objects.filter(pk=first.pk, name="part 0").exists()

    @pytest.mark.parametrize("write", SOME_WRITES[:2])
    def test_an_update_that_a_deadlock_has_undone_is_tried_again(
        self, stage: Stage, write: Write
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("it has one writer")
        make_project(parts=2)
        first, second = Part.objects.order_by("pk")
        begun = stage.stop()
        locks: list[str] = []

        def count(execute: Any, sql: str, *rest: Any) -> Any:
            if sql.endswith((" FOR NO KEY UPDATE", " FOR UPDATE")):
                locks.append(sql)
            return execute(sql, *rest)

        def back() -> None:
            with transaction.atomic():
                Part._base_manager.filter(pk=second.pk).update(effects=1)
                # MariaDB undoes the one that has written less
                Tag.objects.bulk_create([Tag(name="much") for _ in range(50)])
                begun.wait_here()
                writer.wait_until_blocked()  # who waits longest finds the deadlock
                Part._base_manager.filter(pk=first.pk).update(effects=1)

        def forth() -> None:
            with connection.execute_wrapper(count):
                write(Part.objects.all())

        other = stage.act(back, "back")
        begun.wait_until_reached()
        writer = stage.act(forth, "forth")
        begun.let_go()
        other.result()
        writer.result()
        assert len(locks) == 2  # there was a deadlock
        assert set(Part.objects.values_list("name", "effects")) == {("written", 1)}

    def test_new_rows_that_refer_to_what_is_updated_do_not_wait(self, stage: Stage) -> None:
        if not connection.features.has_select_for_no_key_update:
            pytest.skip("SQLite has one writer; MariaDB lets nobody refer to a row that is written")
        make_project(parts=1)
        open_, part = stage.stop(), Part.objects.get()

        def write() -> None:
            with transaction.atomic():
                Part.objects.update(name="written")
                open_.wait_here()

        writer = stage.act(write, "writer")
        open_.wait_until_reached()
        stage.act(lambda: Bolt.objects.bulk_create([Bolt(name="M12", part=part)])).result()
        open_.let_go()
        writer.result()


class TestCost:
    """As many queries for a thousand rows as for one."""

    @pytest.mark.parametrize(
        "write",
        [
            pytest.param(lambda rows: rows.update(name="written"), id="update"),
            pytest.param(
                lambda rows: rows.filter(project__name="bridge").update(effects=1), id="join"
            ),
            pytest.param(
                lambda rows: rows.bulk_update(list(rows), ["name"], 100), id="bulk_update"
            ),
            pytest.param(lambda rows: type(rows)(Bolt).delete(), id="delete"),
            pytest.param(lambda rows: rows.delete(), id="cascade"),
        ],
    )
    def test_it_does_not_grow(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        # what one statement may carry is up to the engine and Django
        monkeypatch.setattr(connection.ops, "bulk_batch_size", lambda fields, objs: 10**6)
        assert self.more_than_django(write, rows=1) == self.more_than_django(write, rows=1000)

    def more_than_django(self, write: Write, rows: int) -> int:
        counts = []
        for manager in (Part._base_manager, Part.objects):
            Project._base_manager.all().delete()
            make_project(parts=rows, bolts=1)
            counts.append(queries(partial(write, manager.all())))
        return counts[1] - counts[0]

    def test_what_writes_nothing_asks_nothing(self) -> None:
        assert queries(lambda: Part.objects.update()) == 0

    def test_unguarded_it_is_one_statement(self, settings: Any) -> None:
        make_project(parts=1)
        assert queries(lambda: Part.objects.update(name="written")) > 1
        settings.POWERCRUD_SETTINGS = {**settings.POWERCRUD_SETTINGS, "GUARD_WRITES": False}
        assert queries(lambda: Part.objects.update(name="written")) == 1
