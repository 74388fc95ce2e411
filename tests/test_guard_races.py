"""Writes against launches, on connections of their own, in every order.

At the end of each test a witness swears that no object was written while a task held it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Model

from powercrud_models import AsyncModelMixin, ConflictError
from powercrud_models.models import AsyncTask
from powercrud_models.tasks import run_task
from powercrud_models.types import ObjectKey
from tests.deliveries import deliver, held_by, rows, task_of
from tests.kinds.models import Badge, Bolt, Crew, Member, Part, Pin, Project, Report
from tests.stage import Actor, Stage, Stop
from tests.witness import Witness, assert_refused, locks, row

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

LOOK = "powercrud_models_objectlock"
"""What stands in each statement that looks; the first one looks before the write."""


@dataclass(frozen=True)
class Rows:
    """One of each: ``get`` loads an instance of one's own."""

    project: int
    part: int
    bolt: int
    report: int

    def get(self, model: type[Any]) -> Any:
        return model.objects.get(pk=getattr(self, model._meta.model_name))


@pytest.fixture
def made(db: None) -> Rows:
    (project,) = Project.objects.bulk_create([Project(name="as made")])
    (part,) = Part.objects.bulk_create([Part(name="as made", project=project)])
    (bolt,) = Bolt.objects.bulk_create([Bolt(name="as made", part=part)])
    (report,) = Report.objects.bulk_create([Report(text="as made", author=project)])
    return Rows(project.pk, part.pk, bolt.pk, report.pk)


def contents() -> dict[str, list[object]]:
    """All rows that a write of these tests may touch."""
    models: tuple[type[Model], ...] = (Project, Part, Bolt, Report)
    return {model.__name__: list(model._base_manager.order_by("pk").values()) for model in models}


# The launches, by what they lock


def save_project(made: Rows) -> AsyncTask:
    """It locks the project and its parts."""
    project = made.get(Project)
    project.save()
    return task_of(project)


def save_part(made: Rows) -> AsyncTask:
    """It locks the part and its bolts."""
    part = made.get(Part)
    part.save()
    return task_of(part)


def enqueue_report(made: Rows) -> AsyncTask:
    """It locks the report, its project and the bolts, but not the parts between them."""
    task: AsyncTask = made.get(Report).render.enqueue()
    return task


# The writes that they collide with


def rename(model: type[Any], **how: Any) -> Callable[[Rows], None]:
    def write(made: Rows) -> None:
        obj = made.get(model)
        obj.name = "written"
        obj.save(**how)

    return write


def delete(model: type[Any]) -> Callable[[Rows], None]:
    def write(made: Rows) -> None:
        made.get(model).delete()

    return write


def update_all(model: type[Any]) -> Callable[[Rows], None]:
    def write(made: Rows) -> None:
        assert model.objects.filter(name="as made").update(name="written") == 1

    return write


def update_with_a_join(made: Rows) -> None:
    assert Bolt.objects.filter(part__project=made.project).update(name="written") == 1


def bulk_update(model: type[Any]) -> Callable[[Rows], None]:
    def write(made: Rows) -> None:
        obj = made.get(model)
        obj.name = "written"
        assert model.objects.bulk_update([obj], ["name"]) == 1

    return write


def delete_all(model: type[Any]) -> Callable[[Rows], None]:
    def write(made: Rows) -> None:
        assert model.objects.filter(pk=getattr(made, model._meta.model_name)).delete()[0]

    return write


def call_tighten(made: Rows) -> None:
    made.get(Part).tighten()


def enqueue_tighten(made: Rows) -> None:
    made.get(Part).tighten.enqueue()


@dataclass(frozen=True)
class Case:
    """A launch, a write of something that it locks, and the statement that writes it."""

    launch: Callable[[Rows], AsyncTask]
    write: Callable[[Rows], object]
    statement: str
    launch_ends: str
    """How the launch ends that has waited for this write to commit."""
    looks_as_it_writes: bool = False
    """Whether the first look and the write are one statement; on SQLite it is a transaction."""


CASES = {
    "save": Case(save_part, rename(Bolt), 'UPDATE "kinds_bolt"', "holds", looks_as_it_writes=True),
    "save with update_fields": Case(
        save_part,
        rename(Bolt, update_fields=["name"]),
        'UPDATE "kinds_bolt"',
        "holds",
        looks_as_it_writes=True,
    ),
    "save that launches": Case(save_project, rename(Part), 'UPDATE "kinds_part"', "conflicts"),
    "save with inline work": Case(
        save_project, rename(Part, skip_async=True), 'UPDATE "kinds_part"', "holds"
    ),
    "direct call": Case(save_project, call_tighten, 'UPDATE "kinds_part"', "holds"),
    "enqueue": Case(save_project, enqueue_tighten, "ASC LIMIT 1", "conflicts"),
    "delete": Case(save_part, delete(Bolt), 'DELETE FROM "kinds_bolt"', "holds the rest"),
    "cascade": Case(enqueue_report, delete(Part), 'DELETE FROM "kinds_bolt"', "holds the rest"),
    "long cascade": Case(save_part, delete(Project), 'DELETE FROM "kinds_part"', "is gone"),
    "update": Case(save_part, update_all(Bolt), 'UPDATE "kinds_bolt"', "holds"),
    "update with a join": Case(save_part, update_with_a_join, 'UPDATE "kinds_bolt"', "holds"),
    "bulk_update": Case(save_part, bulk_update(Bolt), 'UPDATE "kinds_bolt"', "holds"),
    "delete of all": Case(
        save_part, delete_all(Bolt), 'DELETE FROM "kinds_bolt"', "holds the rest"
    ),
    "cascade of all": Case(
        enqueue_report, delete_all(Part), 'DELETE FROM "kinds_bolt"', "holds the rest"
    ),
    "long cascade of all": Case(
        save_part, delete_all(Project), 'DELETE FROM "kinds_part"', "is gone"
    ),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@contextmanager
def statements() -> Iterator[list[str]]:
    """What this thread's connection executes."""
    seen: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        seen.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield seen


class TestWriteAgainstLaunch:
    def test_the_launch_has_committed(self, case: Case, made: Rows, witness: Witness) -> None:
        task = witness.watch(lambda: case.launch(made))()
        before, tasks = contents(), rows()

        with statements() as executed, pytest.raises(ConflictError) as caught:
            case.write(made)

        assert_refused(caught.value, task)
        writes = [sql for sql in executed if sql.startswith(("UPDATE", "DELETE", "INSERT"))]
        assert not writes or (case.looks_as_it_writes and all(LOOK in sql for sql in writes))
        assert (contents(), rows()) == (before, tasks)

    def test_the_launch_commits_between_the_first_look_and_the_write(
        self, case: Case, made: Rows, stage: Stage, witness: Witness
    ) -> None:
        looked = stage.stop()
        fused = case.looks_as_it_writes
        between = looked.at("before", case.statement) if fused else looked.at("after", LOOK)

        def write() -> None:
            with between:
                case.write(made)

        writer = stage.act(write, "writer")
        looked.wait_until_reached()
        task = witness.watch(lambda: case.launch(made))()
        before, tasks = contents(), rows()
        looked.let_go()

        assert_refused(writer.error(), task)
        assert (contents(), rows()) == (before, tasks)

    def test_the_launch_comes_between_the_write_and_the_second_look(
        self, case: Case, made: Rows, stage: Stage, witness: Witness
    ) -> None:
        written = stage.stop()

        def write() -> None:
            with written.at("after", case.statement):
                case.write(made)

        before = contents()
        writer = stage.act(write, "writer")
        written.wait_until_reached()
        launcher = stage.act(witness.watch(lambda: case.launch(made)), "launcher")
        if not (case.looks_as_it_writes and connection.vendor == "sqlite"):
            launcher.wait_until_blocked()
        written.let_go()

        writer.result()
        self.assert_launch_came_second(case, made, launcher.error(), before)

    @pytest.mark.parametrize("ends", ["commits", "is rolled back"])
    def test_the_write_is_open_when_the_launch_comes(
        self, case: Case, made: Rows, stage: Stage, witness: Witness, ends: str
    ) -> None:
        open_, before = stage.stop(), contents()

        def write() -> None:
            with transaction.atomic():
                case.write(made)
                open_.wait_here()
                transaction.set_rollback(ends == "is rolled back")

        writer = stage.act(write, "writer")
        open_.wait_until_reached()
        launcher = stage.act(witness.watch(lambda: case.launch(made)), "launcher")
        launcher.wait_until_blocked()
        open_.let_go()

        writer.result()
        if ends == "commits":
            self.assert_launch_came_second(case, made, launcher.error(), before)
        else:
            task = launcher.result()
            assert contents() == before
            assert list(AsyncTask.objects.all()) == [task]

    @pytest.mark.parametrize("ends", ["commits", "is rolled back"])
    def test_the_launch_is_open_when_the_write_comes(
        self, case: Case, made: Rows, stage: Stage, witness: Witness, ends: str
    ) -> None:
        open_, before = stage.stop(), contents()

        def launch() -> AsyncTask:
            with transaction.atomic():
                task = case.launch(made)
                open_.wait_here()
                transaction.set_rollback(ends == "is rolled back")
            return task

        launcher = stage.act(witness.watch(launch), "launcher")
        open_.wait_until_reached()
        writer = stage.act(lambda: case.write(made), "writer")
        writer.wait_until_blocked()
        open_.let_go()

        task = launcher.result()
        if ends == "commits":
            assert_refused(writer.error(), task)
            assert contents() == before
            assert list(AsyncTask.objects.all()) == [task]
        else:
            writer.result()
            assert task not in AsyncTask.objects.all()

    def assert_launch_came_second(
        self, case: Case, made: Rows, error: BaseException | None, before: dict[str, list[object]]
    ) -> None:
        """It has waited for the write, and found what that one left."""
        if case.launch_ends == "conflicts":
            assert_refused(error, AsyncTask.objects.get())
            return
        assert contents() != before
        if case.launch_ends == "is gone":
            assert error is not None
            assert not AsyncTask.objects.exists()
            return
        assert error is None, repr(error)
        held = {key for _, key in locks()}
        bolt = ObjectKey("kinds.bolt", str(made.bolt))
        assert (bolt in held) == (case.launch_ends == "holds" and case.launch is save_part)
        assert held
        for key in held:
            assert row(key), f"{key} is locked and does not exist"


@pytest.fixture
def crew(db: None) -> Crew:
    """A crew with one member; a method tells that the member is its descendant."""
    (crew,) = Crew.objects.bulk_create([Crew(name="night")])
    Member.objects.bulk_create([Member(name="as made", crew=crew)])
    return crew


def test_a_launch_waits_for_an_open_save_of_what_a_method_told(
    crew: Crew, stage: Stage, witness: Witness
) -> None:
    open_ = stage.stop()

    def write() -> None:
        with transaction.atomic():
            member = Member.objects.get()
            member.name = "written"
            member.save()
            open_.wait_here()

    writer = stage.act(write, "writer")
    open_.wait_until_reached()
    launcher = stage.act(witness.watch(crew.save), "launcher")
    launcher.wait_until_blocked()
    open_.let_go()
    writer.result()
    launcher.result()
    assert Member.objects.get().name == "written"
    assert ObjectKey.of(Member.objects.get()) in held_by(task_of(crew).key)


class TestWhatDjangoWritesWithADelete:
    def delete_after_first_look(self, stage: Stage, obj: Model) -> tuple[Actor[object], Stop]:
        looked = stage.stop()

        def write() -> object:
            with looked.at("after", LOOK):
                return obj.delete()

        writer = stage.act(write, "writer")
        looked.wait_until_reached()
        return writer, looked

    def test_a_row_that_it_sets_to_null_is_guarded(self, crew: Crew, witness: Witness) -> None:
        task = witness.watch(Member.objects.get().train.enqueue)()

        with transaction.atomic(), pytest.raises(ConflictError) as caught:
            crew.delete()

        assert_refused(caught.value, task)
        assert Crew.objects.get() == crew

    def test_a_row_that_it_sets_to_null_is_looked_at_twice(
        self, crew: Crew, stage: Stage, witness: Witness
    ) -> None:
        writer, looked = self.delete_after_first_look(stage, crew)
        task = witness.watch(Member.objects.get().train.enqueue)()
        looked.let_go()
        assert_refused(writer.error(), task)

    def test_a_child_that_came_after_the_first_look_is_not_deleted_while_it_is_held(
        self, made: Rows, stage: Stage, witness: Witness
    ) -> None:
        new = Part(name="new", project_id=made.project)
        writer, looked = self.delete_after_first_look(stage, made.get(Project))
        witness.watch(new.save)()
        looked.let_go()

        assert_refused(writer.error(), task_of(new))
        assert Part.objects.count() == 2

    @pytest.mark.parametrize("new", ["child", "grandchild"])
    def test_nothing_new_comes_between_what_it_looked_at_and_what_it_deletes(
        self, crew: Crew, stage: Stage, witness: Witness, new: str
    ) -> None:
        (member,) = Member.objects.all()
        (badge,) = Badge.objects.bulk_create([Badge(member=member)])
        witness.watch(Pin(badge=badge).save)()
        deliver()
        deleting, pin = stage.stop(), Pin(badge_id=badge.pk)
        deleted: AsyncModelMixin = badge if new == "child" else member

        def write() -> object:
            with deleting.at("before", "DELETE FROM"):
                return deleted.delete()

        writer = stage.act(write, "writer")
        deleting.wait_until_reached()
        launcher = stage.act(witness.watch(pin.save), "launcher")
        launcher.wait_until_blocked()
        deleting.let_go()
        writer.result()
        assert isinstance(launcher.error(), IntegrityError)
        assert not Pin.objects.exists()
        assert not AsyncTask.objects.filter(status__in=AsyncTask.UNFINISHED).exists()


class TestAWorkersOpenTransaction:
    """The worker has written rows that its task holds, and goes on for a long time."""

    @pytest.fixture
    def at_work(self, stage: Stage) -> Stop:
        return stage.stop()

    @pytest.fixture
    def task(self, made: Rows, stage: Stage, witness: Witness, at_work: Stop) -> AsyncTask:
        def work(project: Project) -> None:
            for model in (Part, Bolt):
                obj = made.get(model)
                obj.name = "by the worker"
                obj.save()
            at_work.wait_here()

        Project.script = work
        project = made.get(Project)
        witness.watch(project.save)()
        task: AsyncTask = project.async_task
        self.worker = stage.act(lambda: run_task(task.key), "worker")
        at_work.wait_until_reached()
        return task

    def assert_the_worker_has_the_last_word(self, made: Rows, task: AsyncTask) -> None:
        self.worker.result()
        task.refresh_from_db()
        assert task.status == AsyncTask.Status.SUCCESS, task.error
        assert (made.get(Part).name, made.get(Bolt).name) == ("by the worker", "by the worker")

    @pytest.mark.parametrize(
        "write",
        [
            pytest.param(rename(Part), id="save"),
            pytest.param(rename(Part, skip_async=True), id="inline save"),
            pytest.param(delete(Part), id="delete"),
            pytest.param(delete(Project), id="cascade"),
            pytest.param(save_project, id="save of the target"),
            pytest.param(enqueue_tighten, id="enqueue"),
            pytest.param(update_all(Part), id="update"),
            pytest.param(bulk_update(Part), id="bulk_update"),
            pytest.param(delete_all(Part), id="delete of all"),
            pytest.param(delete_all(Project), id="cascade of all"),
        ],
    )
    def test_a_write_is_refused_at_once(
        self,
        write: Callable[[Rows], object],
        made: Rows,
        task: AsyncTask,
        stage: Stage,
        at_work: Stop,
    ) -> None:
        writer = stage.act(lambda: write(made), "writer")
        assert_refused(writer.error(), task)  # it has ended, while the worker has not
        at_work.let_go()
        self.assert_the_worker_has_the_last_word(made, task)

    def test_a_launch_that_wants_a_written_descendant_is_refused_at_once(
        self, made: Rows, task: AsyncTask, stage: Stage, at_work: Stop
    ) -> None:
        launcher = stage.act(lambda: enqueue_report(made), "launcher")
        if connection.features.has_select_for_update_nowait:
            assert_refused(launcher.error(), task)
            at_work.let_go()
        else:  # SQLite: whoever launches waits for the only write lock, and finds all ended
            launcher.wait_until_blocked()
            at_work.let_go()
            assert held_by(launcher.result().key) >= {ObjectKey("kinds.bolt", str(made.bolt))}
        self.assert_the_worker_has_the_last_word(made, task)
