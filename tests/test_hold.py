"""``hold()``: what it keeps others from, how it ends, and what a dead process leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, connection, transaction
from django.test import TestCase
from django.utils.translation import gettext_lazy

from powercrud_models import (
    ConflictError,
    LeaseLost,
    PowerCRUDError,
    acting_user,
    get_current_task,
    hold,
    progress,
)
from powercrud_models.lifecycle import claim, sweep
from powercrud_models.lifecycle.limits import HOLDER_DIED
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem, TaskPulse
from powercrud_models.tasks import run_task
from powercrud_models.types import ObjectKey
from tests.cluster import ROOT
from tests.deliveries import (
    NOTHING,
    deliver,
    expire_lease,
    held_by,
    lose_messages,
    messages,
    rows,
)
from tests.gates import FOLDER, Gate, until
from tests.kinds.models import Bolt, Clock, Crew, Documentary, Film, Member, Part, Person, Tag
from tests.promises.made import make_crew, make_project, name_of
from tests.stage import Stage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


@pytest.fixture
def member(transactional_db: None) -> Member:
    (member,) = Member.objects.bulk_create([Member(name="Ada")])
    return member


def the_task() -> AsyncTask:
    return AsyncTask.objects.get()


@contextmanager
def held_elsewhere(stage: Stage, *objects: object) -> Iterator[AsyncTask]:
    """Another thread holds the objects, and lets go at the end of the block."""
    inside = stage.stop()

    def work() -> None:
        with hold(objects, label="elsewhere"):
            inside.wait_here()

    holder = stage.act(work, "holder")
    inside.wait_until_reached()
    yield AsyncTask.objects.get(label="elsewhere")
    inside.let_go()
    holder.result()


class TestOthers:
    """What another thread holds."""

    def test_cannot_be_saved_deleted_held_or_given_work(self, stage: Stage) -> None:
        crew, member = make_crew()
        with held_elsewhere(stage, member) as task:
            assert member.holder == task
            writes = (member.save, member.delete, member.train.enqueue, crew.save)
            for write in (*writes, lambda: hold([crew, member]).__enter__()):
                with pytest.raises(ConflictError) as refused:
                    write()
                assert [each.holder for each in refused.value.conflicts] == [task]
                assert "“elsewhere”, started at" in str(refused.value)
            assert AsyncTask.objects.get() == task
            assert held_by(task.key) == {ObjectKey.of(member)}
        member.save()
        with hold([crew, member]):
            pass

    def test_is_waited_for_when_its_save_is_still_open(self, stage: Stage, member: Member) -> None:
        """A lock that did not wait would be taken under a save that commits later."""
        saved = stage.stop()

        def save() -> None:
            with transaction.atomic():
                member.name = "written before"
                member.save()
                saved.wait_here()

        def read() -> str:
            with hold(member):
                return name_of(member)

        saver = stage.act(save, "saver")
        saved.wait_until_reached()
        holder = stage.act(read, "holder")
        holder.wait_until_blocked()
        saved.let_go()
        saver.result()
        assert holder.result() == "written before"

    def test_is_not_waited_for_when_a_task_is_at_work_on_it(self, stage: Stage) -> None:
        crew, member = make_crew()
        at_work = stage.stop()

        def work(crew: Crew) -> None:
            with transaction.atomic():
                member.save()
                at_work.wait_here()

        Crew.script = work
        task = crew.post.enqueue()
        worker = stage.act(lambda: run_task(task.key), "worker")
        at_work.wait_until_reached()
        if connection.features.has_select_for_update:
            with pytest.raises(ConflictError), hold([crew, member]):
                pass
            at_work.let_go()
        else:  # the one writer is waited for, and then its locks are free
            at_work.let_go()
        worker.result()
        with hold([crew, member]):
            pass

    def test_is_seen_by_whoever_asks_while_the_block_runs(self, member: Member) -> None:
        with hold(member) as task:
            assert member.holder == task
            assert AsyncTask.objects.get(status=Status.IN_PROGRESS) == task
        assert member.holder is None


class TestTheObjects:
    def test_are_given_in_every_form(self) -> None:
        project = make_project(parts=3, bolts=1)
        first, second, third = Part.objects.order_by("pk")
        person = Person.objects.create(name="Orson")
        documentary = Documentary.objects.create(director=person)
        lose_messages()
        film, tag = ObjectKey.of(Film.objects.get()), ObjectKey("kinds.tag", "5")
        all_parts = {ObjectKey.of(part) for part in (first, second, third)}
        forms: list[tuple[object, set[ObjectKey]]] = [
            (first, {ObjectKey.of(first)}),
            (Part.objects.order_by("-name"), all_parts),
            ((Part, [second.pk, str(third.pk)]), {ObjectKey.of(second), ObjectKey.of(third)}),
            ([first, (Tag, [5]), Bolt.objects.none()], {ObjectKey.of(first), tag}),
            ((part for part in (first, first)), {ObjectKey.of(first)}),
            ({first, person}, {ObjectKey.of(first), ObjectKey.of(person)}),
            (documentary, {ObjectKey.of(documentary), film}),
            (Documentary.objects.all(), {ObjectKey.of(documentary), film}),
            ([], set()),
            (Part.objects.none(), set()),
            (None, set()),
        ]  # fmt: skip
        for objects, keys in forms:
            with hold(objects) as task:
                assert held_by(task.key) == keys
            assert not ObjectLock.objects.exists()
        assert project.holder is None

    @pytest.mark.parametrize(
        "nonsense", ["Ada", 3, Member, [Member], (Member, 3), (Member, "33"), b"x"]
    )
    def test_that_are_none_are_refused(self, nonsense: object) -> None:
        with pytest.raises(TypeError, match=r"^hold\(\) was given .*objects, querysets"):
            hold(nonsense).__enter__()
        assert rows() == NOTHING

    def test_that_have_no_key_are_refused(self) -> None:
        for unsaved in (Member(name="Ada"), [Member(name="Ada")], (Member, [None])):
            with pytest.raises(
                ValueError, match=r"^hold\(\) was given a member that has not been s"
            ):
                hold(unsaved).__enter__()
        assert rows() == NOTHING

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_of_another_database_are_refused(self) -> None:
        (there,) = Member.objects.using("other").bulk_create([Member(name="Ada")])
        for objects in (there, [there]):
            with pytest.raises(PowerCRUDError, match="on the database 'other'"):
                hold(objects).__enter__()
        assert rows() == NOTHING

    def test_are_all_held_or_none(self, stage: Stage) -> None:
        members = Member.objects.bulk_create([Member(name=str(number)) for number in range(5)])
        with held_elsewhere(stage, members[3]) as task:
            before = rows()
            with pytest.raises(ConflictError) as refused:
                hold(members).__enter__()
            assert [each.pk for each in refused.value.conflicts] == [members[3].pk]
            after = rows()
            assert after.keys() == before.keys()
            assert after["ObjectLock"] == before["ObjectLock"]
            assert AsyncTask.objects.get() == task

    def test_take_the_same_number_of_queries_however_many_there_are(self) -> None:
        counts = []
        for number in (1, 300):
            members = Member.objects.bulk_create([Member(name="x") for _ in range(number)])
            executed: list[str] = []

            def count(execute, sql, *rest, executed=executed):
                executed.append(sql)
                return execute(sql, *rest)

            with connection.execute_wrapper(count), hold((Member, [each.pk for each in members])):
                pass
            counts.append(len(executed))
        assert counts[0] == counts[1]


class TestTheTask:
    def test_is_a_success_at_the_end_of_the_block(self, member: Member) -> None:
        with hold(member, label="nightly import") as task:
            assert (task.status, task.label, task.user) == (
                Status.IN_PROGRESS,
                "nightly import",
                None,
            )
            assert (task.attempts, task.fence) == (1, 1)
            assert task.started_at is not None
            assert get_current_task() == task
        assert get_current_task() is None
        task.refresh_from_db()
        assert (task.status, task.error) == (Status.SUCCESS, "")
        assert task.finished_at is not None
        assert task.started_at is not None
        assert task.finished_at >= task.started_at
        assert not ObjectLock.objects.exists()
        assert messages() == []

    def test_is_refused_to_functions_that_would_run_after_it(self, member: Member) -> None:
        async def coroutine() -> None: ...

        def generator() -> Iterator[None]:
            yield

        for function in (coroutine, generator):
            with pytest.raises(TypeError, match="Decorate a plain function"):
                hold(member)(function)

    def test_fails_with_the_traceback_when_the_block_raises(self, member: Member) -> None:
        with pytest.raises(ValueError, match="invalid literal"), hold(member):
            int("x")
        task = the_task()
        assert task.status == Status.FAILED
        assert 'int("x")' in task.error
        assert "ValueError" in task.error
        assert not ObjectLock.objects.exists()

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_ends_with_whatever_ends_the_block(
        self, member: Member, error: type[BaseException]
    ) -> None:
        with pytest.raises(error), hold(member):
            raise error
        assert the_task().status == Status.FAILED
        assert not ObjectLock.objects.exists()

    def test_is_the_users(self, member: Member) -> None:
        ann, ben = (User.objects.create_user(name) for name in ("ann", "ben"))
        with acting_user(ann):
            with hold(member, user=ben) as task:
                assert task.user == ben
            with hold(member) as task:
                assert task.user == ann
            with hold(member, user=AnonymousUser()) as task:
                assert task.user == ann
        with hold(member, user=AnonymousUser()) as task:
            assert task.user is None

    def test_has_a_label_of_its_own(self, member: Member) -> None:
        (other,) = Member.objects.bulk_create([Member(name="Ben")])
        for objects, label in (
            (member, f"hold member {member.pk}"),
            ([member, other], f"hold member {member.pk} and 1 more"),
            ([], "hold nothing"),
        ):
            with hold(objects) as task:
                assert task.label == label
        with hold(member, label=gettext_lazy("Monday")) as task:
            assert task.label == "Monday"
        with pytest.raises(TypeError, match="label must be text"):
            hold(member, label=3)  # type: ignore[arg-type]

    def test_tells_how_far_it_has_come(self, member: Member) -> None:
        with hold(member) as task:
            assert str(task.progress) == "0 of 1 done, 0%"
            for _ in progress(range(4)):
                pass
            until(lambda: task.progress.current == 4, "the heartbeat told it")
            assert (task.progress.items_done, task.progress.total) == (0, 4)
        assert str(task.progress) == "1 of 1 done, 100%"
        assert task.result(timeout=0) == []

    def test_is_a_function_s_with_a_decorator(self, member: Member) -> None:
        seen: list[set[ObjectKey]] = []

        @hold(each for each in [member])
        def work(result: str) -> str:
            seen.append(held_by(get_current_task().key))
            return result

        @hold(Member.objects.all())
        def work_on_all() -> None:
            seen.append(held_by(get_current_task().key))

        assert [work("first"), work("second")] == ["first", "second"]
        work_on_all()
        (other,) = Member.objects.bulk_create([Member(name="Ben")])
        work_on_all()
        mine, both = {ObjectKey.of(member)}, {ObjectKey.of(member), ObjectKey.of(other)}
        assert seen == [mine, mine, mine, both]
        assert AsyncTask.objects.filter(status=Status.SUCCESS).count() == 4


class TestSavesInTheBlock:
    def test_run_inline_under_its_locks(self) -> None:
        project = make_project(parts=1, bolts=1)
        with hold(project) as task:
            project.save()
            assert project.async_task is None
            project.refresh_from_db()
            assert project.effects == 1
            assert held_by(task.key) == {ObjectKey.of(project), ObjectKey.of(Part.objects.get())}
            with pytest.raises(PowerCRUDError, match="task of its own inside task"):
                project.save(skip_async=False)
            Part.objects.get().delete()
        assert messages() == []
        assert the_task() == task
        assert not TaskItem.objects.exists()
        assert not ObjectLock.objects.exists()

    def test_conflict_with_what_others_hold(self, stage: Stage) -> None:
        crew, member = make_crew()
        with held_elsewhere(stage, member), pytest.raises(ConflictError), hold(crew):
            crew.save()
        assert AsyncTask.objects.exclude(label="elsewhere").get().status == Status.FAILED

    def test_may_be_a_transaction(self, member: Member) -> None:
        with hold(member) as task:
            with transaction.atomic():
                member.name = "kept"
                member.save()
            with suppress(ValueError), transaction.atomic():
                member.name = "undone"
                member.save()
                int("x")
            assert held_by(task.key) == {ObjectKey.of(member)}
        assert name_of(member) == "kept"

    def test_may_break_a_transaction(self, member: Member) -> None:
        with pytest.raises(IntegrityError), hold(member), transaction.atomic():
            Member.objects.bulk_create([Member(pk=member.pk, name="again")])
        assert the_task().status == Status.FAILED
        assert not ObjectLock.objects.exists()

    @pytest.mark.parametrize("settings_in_force", [{}, {"GUARD_WRITES": False}])
    def test_with_async_off(
        self, settings, stage: Stage, settings_in_force: dict[str, object]
    ) -> None:
        settings.POWERCRUD_SETTINGS = settings_in_force
        crew, member = make_crew()
        with held_elsewhere(stage, member) as task:
            with pytest.raises(ConflictError), hold(member):
                pass
            with pytest.raises(ConflictError):
                crew.save()
            if not settings_in_force:
                with pytest.raises(ConflictError):
                    member.save()
            assert member.holder == task
        crew.save()


class TestInsideARun:
    def test_it_joins_the_task_and_is_released_with_it(self, stage: Stage) -> None:
        crew, _ = make_crew()
        (other,) = Member.objects.bulk_create([Member(name="Ben")])
        seen: list[object] = []

        def work(crew: Crew) -> None:
            with hold(other) as inner:
                seen.extend([inner, get_current_task()])
            seen.append(other.holder)
            seen.append(stage.act(other.save).error())

        Crew.script = work
        task = crew.post.enqueue()
        run_task(task.key)
        task.refresh_from_db()
        assert task.status == Status.SUCCESS, task.error
        assert seen[:3] == [task, task, task]
        assert isinstance(seen[3], ConflictError)
        assert not ObjectLock.objects.exists()
        assert the_task() == task

    def test_a_hold_in_a_hold_is_released_with_the_outer_one(self, member: Member) -> None:
        (other,) = Member.objects.bulk_create([Member(name="Ben")])
        with hold(member) as outer:
            with hold([member, other]) as inner:
                assert inner == outer
            assert held_by(outer.key) == {ObjectKey.of(member), ObjectKey.of(other)}
        assert not ObjectLock.objects.exists()
        assert the_task() == outer

    def test_a_conflict_leaves_the_outer_one_as_it_was(self, stage: Stage) -> None:
        members = Member.objects.bulk_create([Member(name=str(number)) for number in range(3)])
        with held_elsewhere(stage, members[2]), hold(members[0]) as outer:
            with pytest.raises(ConflictError), hold(members[1:]):
                pass
            assert held_by(outer.key) == {ObjectKey.of(members[0])}
        outer.refresh_from_db()
        assert outer.status == Status.SUCCESS

    def test_work_that_runs_inline_has_no_task_and_its_locks_end_with_it(
        self, async_off: None
    ) -> None:
        (clock,) = Clock.objects.bulk_create([Clock()])
        (member,) = Member.objects.bulk_create([Member(name="Ada")])
        seen: list[object] = []

        def work(clock: Clock) -> None:
            with hold(member) as task:
                seen.append(task)
                seen.append(ObjectLock.objects.filter(object_id=str(member.pk)).count())

        Clock.script = work
        clock.wind()
        assert seen == [None, 1]
        assert rows() == NOTHING


class TestSharedByThreads:
    def test_each_has_a_block_of_its_own(self, stage: Stage) -> None:
        nothing = hold([], label="shared")
        inside = [stage.stop(), stage.stop()]

        def use(number: int) -> str:
            with nothing as task:
                inside[number].wait_here()
            assert task is not None
            return str(task.key)

        users = [stage.act(partial(use, number), f"user {number}") for number in (0, 1)]
        for stop in inside:
            stop.wait_until_reached()
            stop.let_go()
        assert users[0].result() != users[1].result()
        statuses = AsyncTask.objects.values_list("status", flat=True)
        assert list(statuses) == [Status.SUCCESS, Status.SUCCESS]


class TestInATransaction:
    def test_it_is_refused(self, member: Member) -> None:
        with transaction.atomic():
            with pytest.raises(PowerCRUDError, match="non_atomic_requests"):
                hold(member).__enter__()
            member.save()
        assert rows() == NOTHING

    def test_it_is_refused_without_autocommit(self, member: Member) -> None:
        transaction.set_autocommit(False)
        try:
            with pytest.raises(PowerCRUDError, match="inside a transaction"):
                hold(member).__enter__()
            transaction.rollback()
        finally:
            transaction.set_autocommit(True)
        assert rows() == NOTHING


class TestInATestCase(TestCase):
    """Its transaction never commits: there the locks are as good as committed."""

    def setUp(self) -> None:
        [self.member] = Member.objects.bulk_create([Member(name="Ada")])

    def test_it_works(self) -> None:
        with hold(self.member) as task:
            self.member.save()
            assert self.member.holder == task
        task.refresh_from_db()
        assert task.status == Status.SUCCESS
        assert self.member.holder is None

    def test_it_is_refused_where_the_code_opens_a_transaction(self) -> None:
        with transaction.atomic(), pytest.raises(PowerCRUDError, match="inside a transaction"):
            hold(self.member).__enter__()

    def test_the_error_of_the_block_goes_on_where_it_cannot_be_recorded(self) -> None:
        with (
            pytest.raises(IntegrityError),
            hold(self.member),
            transaction.atomic(savepoint=False),
        ):
            Member.objects.bulk_create([Member(pk=self.member.pk, name="again")])


class TestAsyncCode:
    def test_a_function_that_holds_is_called_with_sync_to_async(self, member: Member) -> None:
        def work() -> AsyncTask:
            with hold(member) as task:
                member.save()
                assert get_current_task() == task
            assert task is not None
            return task

        async def view() -> tuple[AsyncTask, AsyncTask | None]:
            return await sync_to_async(work)(), get_current_task()

        task, after = async_to_sync(view)()
        task.refresh_from_db()
        assert (task.status, after) == (Status.SUCCESS, None)
        assert not ObjectLock.objects.exists()


class TestALostLease:
    def test_the_sweep_frees_the_objects_and_nobody_runs_it_again(self, member: Member) -> None:
        held = hold(member)
        task = held.__enter__()
        assert sweep()["failed"] == 0
        expire_lease(task.key)
        assert sweep() == {"sent": 0, "failed": 1, "released": 0, "deleted": 0}
        task.refresh_from_db()
        assert (task.status, task.error) == (Status.FAILED, HOLDER_DIED)
        assert member.holder is None
        assert messages() == []
        with pytest.raises(LeaseLost, match="have been released"):
            held.__exit__(None, None, None)

    def test_a_worker_that_is_called_with_its_key_runs_nothing(self, member: Member) -> None:
        held = hold(member)
        task = held.__enter__()
        run_task(task.key)
        task.refresh_from_db()
        assert task.status == Status.IN_PROGRESS
        expire_lease(task.key)
        assert claim(task.key) is None
        task.refresh_from_db()
        assert (task.status, task.error) == (Status.FAILED, HOLDER_DIED)
        with pytest.raises(LeaseLost):
            held.__exit__(None, None, None)

    def test_whoever_runs_into_it_frees_the_objects(
        self, settings, stage: Stage, member: Member
    ) -> None:
        settings.POWERCRUD_SETTINGS = {}
        held = hold(member)
        task = held.__enter__()
        expire_lease(task.key)
        refused = stage.act(member.save, "who runs into it")
        assert isinstance(refused.error(), ConflictError)
        task.refresh_from_db()
        assert task.status == Status.FAILED
        stage.act(member.save, "who comes later").result()
        with pytest.raises(LeaseLost):
            held.__exit__(None, None, None)

    def test_later_saves_in_the_block_are_refused(self, member: Member) -> None:
        with suppress(LeaseLost), hold(member) as task:
            expire_lease(task.key)
            sweep()
            for write in (member.save, member.delete, lambda: hold(member).__enter__()):
                with pytest.raises(LeaseLost):
                    write()
        task.refresh_from_db()
        assert (task.status, task.error) == (Status.FAILED, HOLDER_DIED)
        assert name_of(member) == "Ada"

    def test_the_error_of_the_block_goes_on(self, member: Member) -> None:
        def give_up_and_fail() -> None:
            expire_lease(the_task().key)
            sweep()
            int("x")

        with pytest.raises(ValueError, match="invalid literal"), hold(member) as task:
            give_up_and_fail()
        task.refresh_from_db()
        assert (task.status, task.error) == (Status.FAILED, HOLDER_DIED)

    def test_it_lets_go_of_nothing_that_the_next_one_holds(
        self, stage: Stage, member: Member
    ) -> None:
        with suppress(LeaseLost), hold(member) as task:
            expire_lease(task.key)
            sweep()
            inside = stage.stop()

            def work() -> None:
                with hold(member, label="next"):
                    inside.wait_here()

            holder = stage.act(work, "next")
            inside.wait_until_reached()
        assert member.holder.label == "next"
        inside.let_go()
        holder.result()

    def test_the_heartbeat_renews_it(self, settings, member: Member) -> None:
        settings.POWERCRUD_SETTINGS = {"LEASE_SECONDS": 3, "HEARTBEAT_SECONDS": 1}
        with hold(member) as task:
            pulses = TaskPulse.objects.filter(pk=task.key).values_list("lease_until", flat=True)
            first = pulses.get()
            until(lambda: pulses.get() > first, "the heartbeat renewed the lease")
        pulses.get()


DIES = """
import sys
import django
django.setup()
from powercrud_models import hold
from tests.kinds.models import Member
from tests.gates import gate
member = Member.objects.get()
with hold(member, label="import"):
    gate(member).pass_through()
    member.name = "written by the process"
    member.save()
"""


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        "CLUSTER_DATABASE": str(connection.settings_dict["NAME"]),
        "CLUSTER_LEASE_SECONDS": "2",
        "DJANGO_SETTINGS_MODULE": "tests.cluster_settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sample_project")]),
        FOLDER: str(tmp_path),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", DIES],
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
    )
    yield process
    process.kill()
    process.communicate()


class TestAnotherProcess:
    def test_that_holds_an_object_keeps_this_one_out_until_it_ends(
        self, member: Member, other_process: subprocess.Popen[bytes], tmp_path: Path
    ) -> None:
        there = Gate(tmp_path, member)
        until(lambda: there.arrivals or other_process.poll() is not None, "it holds the object")
        assert other_process.poll() is None, other_process.communicate()[1].decode()
        first = TaskPulse.objects.get().lease_until
        until(
            lambda: TaskPulse.objects.get().lease_until > first, "the heartbeat renewed the lease"
        )
        with pytest.raises(ConflictError, match="“import”"):
            member.save()
        there.open()
        assert other_process.wait(60) == 0, other_process.communicate()[1].decode()
        assert the_task().status == Status.SUCCESS
        assert name_of(member) == "written by the process"
        member.save()

    def test_that_is_killed_is_free_after_its_lease_and_its_task_has_failed(
        self, member: Member, other_process: subprocess.Popen[bytes], tmp_path: Path
    ) -> None:
        there = Gate(tmp_path, member)
        until(lambda: there.arrivals or other_process.poll() is not None, "it holds the object")
        other_process.send_signal(signal.SIGKILL)
        other_process.wait(60)
        with pytest.raises(ConflictError):
            member.save()
        until(lambda: sweep()["failed"], "the sweep gave it up")
        task = the_task()
        assert (task.status, task.error, task.attempts) == (Status.FAILED, HOLDER_DIED, 1)
        assert deliver() == 0
        member.save()
        assert name_of(member) == "Ada"
