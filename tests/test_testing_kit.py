"""``powercrud_models.testing``: what passes there passes in a worker, on a real database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import ClassVar

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import QuerySet
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils import translation

from powercrud_models import PowerCRUDError, acting_user, get_current_task, inline, progress
from powercrud_models.conf import get_conf
from powercrud_models.context import current_user
from powercrud_models.exceptions import TaskFailed
from powercrud_models.launches import never_commits
from powercrud_models.lifecycle import claim
from powercrud_models.models import AsyncTask, TaskPulse
from powercrud_models.testing import (
    assert_locked,
    assert_not_locked,
    assert_not_queued,
    assert_queued,
    assert_refused,
    queue_tasks,
    queued_tasks,
    run_queued,
    running,
)
from tests.deliveries import held_by, messages, task_of
from tests.kinds.models import Bolt, Clock, Machine, Part, Project, Report
from tests.promises.made import effects, make_project

Status = AsyncTask.Status


@pytest.fixture(
    params=[
        pytest.param("rolled back", marks=pytest.mark.django_db),
        pytest.param("committed", marks=pytest.mark.django_db(transaction=True)),
    ]
)
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that never commits, and the same on a database that does; the queue is on."""
    assert never_commits("default") is (request.param == "rolled back")
    with queue_tasks():
        yield


@pytest.fixture
def project(database: None) -> Project:
    """A project with a part and its bolt; nothing is queued."""
    return make_project(parts=1, bolts=1)


class TestRunQueued:
    def test_it_returns_the_tasks_as_they_have_ended(self, project: Project) -> None:
        Project.script = lambda project: project.name
        project.save()
        launched = task_of(project)

        [task] = run_queued()

        assert (task, task.status, task.result()) == (launched, Status.SUCCESS, "bridge")
        assert launched.status == Status.PENDING
        assert effects(project) == 1
        assert run_queued() == []

    def test_it_runs_in_the_order_of_launch(self, database: None) -> None:
        projects = [make_project(f"{number}") for number in range(12)]
        for project in projects:
            project.save()
        AsyncTask.objects.update(created_at=projects[0].async_task.created_at)  # by a coarse clock

        assert queued_tasks() == run_queued() == [task_of(project) for project in projects]

    def test_work_gets_an_object_from_the_database(self, project: Project) -> None:
        seen: list[tuple[str, bool]] = []
        Project.script = lambda project: seen.append((project.name, hasattr(project, "request")))
        project.request = "of the view"  # type: ignore[attr-defined]

        project.save(skip_async=True)  # inline, it is the caller's own instance
        project.save()
        project.name = "never saved"
        run_queued()

        assert seen == [("bridge", True), ("bridge", False)]

    def test_nothing_of_the_tests_context_is_there(self, project: Project) -> None:
        own: ContextVar[str] = ContextVar("own", default="of nobody")
        seen: list[object] = []

        def look(project: Project) -> None:
            language = translation.get_language()
            seen.append((own.get(), current_user(), language, get_current_task()))
            Part.objects.get().save()

        Project.script = look
        token = own.set("of the test")
        user = User.objects.create(username="ann")
        with acting_user(user):
            project.save()
            with translation.override("de"), inline():
                [task] = run_queued()
            assert current_user() == user
        assert own.get() == "of the test"
        own.reset(token)

        assert seen == [("of nobody", None, settings.LANGUAGE_CODE, task)]
        assert task.user == user

    def test_a_failed_task_fails_the_test_when_all_have_run(self, project: Project) -> None:
        other = make_project("other")
        Project.script = lambda project: 1 // (project.name == "other")
        project.save()
        other.save()

        with pytest.raises(TaskFailed, match="ZeroDivisionError") as caught:
            run_queued()

        assert caught.value.task == task_of(project)
        assert (effects(project), effects(other)) == (0, 1)
        assert_not_locked()

    def test_or_returns_it(self, project: Project) -> None:
        Project.script = lambda project: 1 // 0
        project.save()
        [task] = run_queued(raise_errors=False)
        assert task.status == Status.FAILED
        assert "ZeroDivisionError" in task.error

    def test_work_in_autocommit(self, database: None) -> None:
        machine = Machine.objects.create(name="crane")
        run_queued()
        machine.refresh_from_db()
        assert machine.effects == 1

    def test_what_on_commit_callbacks_queue_is_run(self, project: Project) -> None:
        part = Part.objects.get()
        seen: list[object] = []

        def register(project: Project) -> None:
            transaction.on_commit(lambda: seen.append((get_current_task(), effects(project))))
            transaction.on_commit(lambda: transaction.on_commit(part.save))

        Project.script = register
        project.save()

        assert run_queued() == [task_of(project), task_of(part)]
        assert seen == [(None, 1)]
        part.refresh_from_db()
        assert part.effects == 1

    def test_what_they_queue_waits_for_its_turn(self, project: Project, immediate: None) -> None:
        part = Part.objects.get()
        turns: list[list[AsyncTask]] = []

        def save_part() -> None:
            part.save()
            turns.append(queued_tasks())

        def register(project: Project) -> None:
            transaction.on_commit(save_part)

        Project.script = register
        project.save()
        ran = run_queued()

        if never_commits("default"):
            assert ran == [task_of(project), task_of(part)]
        else:
            assert ran == []  # they ran at the commit
        assert turns == [[task_of(part)] if never_commits("default") else []]
        assert {task_of(each).status for each in (project, part)} == {Status.SUCCESS}

    def test_callbacks_of_work_that_failed_are_not_called(self, project: Project) -> None:
        called: list[str] = []

        def fail(project: Project) -> None:
            transaction.on_commit(lambda: called.append("of the work"))
            raise ValueError

        Project.script = fail
        transaction.on_commit(lambda: called.append("of the test"))
        project.save()
        run_queued(raise_errors=False)

        assert called == ([] if never_commits("default") else ["of the test"])

    @pytest.mark.parametrize(("robust", "called"), [(True, 2), (False, 1)])
    def test_a_callback_that_raises_is_logged(
        self, project: Project, caplog: pytest.LogCaptureFixture, robust: bool, called: int
    ) -> None:
        calls: list[int] = []

        def fail() -> None:
            calls.append(1)
            raise ValueError

        def register(project: Project) -> None:
            transaction.on_commit(fail, robust=robust)
            transaction.on_commit(lambda: calls.append(2))

        Project.script = register
        project.save()
        with caplog.at_level(logging.ERROR):
            [task] = run_queued()

        assert (task.status, len(calls)) == (Status.SUCCESS, called)
        assert "Error" in caplog.text

    def test_callbacks_are_called_once_in_a_block_that_captures_them(
        self, db: None, project: Project
    ) -> None:
        calls: list[int] = []
        Project.script = lambda project: transaction.on_commit(lambda: calls.append(1))
        with TestCase.captureOnCommitCallbacks(execute=True):
            project.save()
            run_queued()
        assert calls == [1]

    def test_a_task_that_another_holds_up_is_run_after_it(self, project: Project) -> None:
        part, other = Part.objects.get(), make_project("other")
        other.save()
        part.save()
        QuerySet(Part).update(project=other)  # the part that is held becomes a descendant

        assert run_queued() == [task_of(other), task_of(part)]
        assert (task_of(other).conflicts, task_of(other).attempts) == (1, 1)

    def test_a_task_that_cannot_start_fails_the_test(self, project: Project) -> None:
        part, other = Part.objects.get(), make_project("other")
        other.save()
        part.save()
        QuerySet(Part).update(project=other)
        assert claim(task_of(part).key)  # by a worker

        with pytest.raises(AssertionError, match=r"could not start: part \d+ is held by the task"):
            run_queued()
        assert run_queued(raise_errors=False) == [task_of(other)]

    def test_tasks_that_never_end_are_a_failure(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(running, "MOST_ROUNDS", 3)
        runs: list[Project] = []

        def again(project: Project) -> None:
            runs.append(project)
            transaction.on_commit(project.save)

        Project.script = again
        project.save()
        with pytest.raises(AssertionError, match="does it ever end"):
            run_queued()
        assert len(runs) == 3

    def test_a_transaction_that_is_open_hides_its_tasks(self, project: Project) -> None:
        with transaction.atomic():
            project.save()
            with pytest.raises(PowerCRUDError, match="Call it after the atomic"):
                run_queued()
        assert len(run_queued()) == 1

    def test_it_takes_the_tasks_of_django_q2(self, project: Project, queued: None) -> None:
        project.save()
        assert messages() == [task_of(project).key]
        [task] = run_queued()
        assert task.status == Status.SUCCESS

    def test_immediate_tasks_run_by_themselves_where_there_is_a_commit(
        self, project: Project, immediate: None
    ) -> None:
        project.save()
        assert len(run_queued()) == never_commits("default")
        assert task_of(project).status == Status.SUCCESS
        assert effects(project) == 1

    def test_signs_of_life_are_given_where_somebody_sees_them(self, project: Project) -> None:
        threads: list[str] = []

        def look(project: Project) -> None:
            list(progress(range(3)))
            threads.extend(thread.name.split()[0] for thread in threading.enumerate())

        Project.script = look
        project.save()
        run_queued()
        assert ("heartbeat" in threads) is not never_commits("default")
        assert TaskPulse.objects.count() == 1


class TestAssertions:
    def test_queued(self, project: Project) -> None:
        report = Report.objects.create(author=project)
        for work in (None, "announced", "announce"):  # the stored name, or the method's
            assert_queued(report, work)
            with pytest.raises(AssertionError, match=f"of kinds.report {report.pk} is queued"):
                assert_not_queued(report, work)
        with pytest.raises(AssertionError, match=r"^A task is queued. Queued is: announced of"):
            assert_not_queued()
        assert_not_queued(report, "render")

        run_queued()

        assert_not_queued()
        with pytest.raises(AssertionError, match=r"^announce of .* not queued. Queued is: nothing"):
            assert_queued(report, "announce")

    def test_not_queued_tells_what_is(self, project: Project) -> None:
        other = make_project("other")
        project.save()
        expected = (
            f"Work of kinds.project {other.pk} is not queued. "
            f"Queued is: rebuild of kinds.project {project.pk}."
        )
        with pytest.raises(AssertionError) as caught:
            assert_queued(other)
        assert str(caught.value) == expected
        assert_not_queued(Bolt(pk=project.pk))

    def test_a_slip_in_the_name_of_a_work(self, project: Project) -> None:
        for check in (assert_queued, assert_not_queued):
            with pytest.raises(ValueError, match=r"no work named 'rebuidl'; it has: rebuild\.$"):
                check(project, "rebuidl")

    def test_locked(self, project: Project) -> None:
        part, bolt, other = Part.objects.get(), Bolt.objects.get(), make_project("other")
        assert_not_locked()
        project.save()
        other.save()

        assert_locked(project, part)
        assert_locked(project, part, by=task_of(project))
        assert_not_locked(bolt)
        with pytest.raises(AssertionError, match=rf"^Not locked: kinds.bolt {bolt.pk}. Locked is:"):
            assert_locked(part, bolt)
        with pytest.raises(AssertionError, match=rf"^Held by others .*: kinds.part {part.pk} by “"):
            assert_locked(other, part, by=task_of(other))
        for objects in ((), (bolt, part)):
            with pytest.raises(
                AssertionError, match=rf"Locked: .*kinds.part {part.pk} by “rebuild"
            ):
                assert_not_locked(*objects)
        with pytest.raises(TypeError, match="there are none"):
            assert_locked()

    def test_refused(self, project: Project) -> None:
        part, bolt = Part.objects.get(), Bolt.objects.get()
        project.save()

        with assert_refused(part) as refusal:
            part.save()
        assert refusal.conflicts[0].holder == task_of(project)
        with assert_refused():
            project.save()
        with (
            pytest.raises(AssertionError, match=rf"but not for kinds.bolt {bolt.pk}: part"),
            assert_refused(bolt),
        ):
            part.save()
        with (
            pytest.raises(AssertionError, match=r"^Nothing was refused. Locked is: kinds.part"),
            assert_refused(),
        ):
            bolt.save()
        with pytest.raises(ZeroDivisionError), assert_refused():
            1 / 0  # noqa: B018
        run_queued()
        part.save()

    def test_a_long_list_is_cut_short(self, database: None) -> None:
        project = make_project(parts=30)
        project.save()
        with pytest.raises(AssertionError, match="and 11 more"):
            assert_not_locked()


class TestTheQueueOfATest:
    def test_it_needs_no_django_q2(self, database: None, settings) -> None:
        del settings.Q_CLUSTER
        project = make_project()
        project.save()
        assert messages() == []
        assert_queued(project)

    def test_other_settings_stay(self, db: None, settings) -> None:
        settings.POWERCRUD_SETTINGS = {"LEASE_SECONDS": 77}
        with queue_tasks():
            assert (get_conf().ASYNC_ENABLED, get_conf().LEASE_SECONDS) == (True, 77)
        assert (get_conf().ASYNC_ENABLED, get_conf().LEASE_SECONDS) == (False, 77)

    def test_it_starts_from_no_settings_at_all(self, db: None, async_off: None) -> None:
        with queue_tasks():
            Clock.objects.create()
        assert len(run_queued()) == 1
        assert Clock.objects.create().async_task is None

    @queue_tasks()
    def test_it_decorates_a_test(self, db: None) -> None:
        Clock.objects.create()
        assert len(run_queued()) == 1

    def test_a_deployment_is_warned(self, db: None, settings, capsys) -> None:
        def warned() -> bool:
            call_command("check", "--deploy", "--tag", "powercrud_models")
            return "powercrud_models.W016" in capsys.readouterr().err

        assert not warned()
        settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": "testing"}
        assert warned()


class Kit:
    """The same in unittest's classes."""

    launched: ClassVar[Project]

    def test_it_runs_what_is_queued(self) -> None:
        project = make_project(parts=1)
        project.save()
        assert_queued(project, "rebuild")
        assert_locked(project, *project.parts.all(), by=task_of(project))
        with assert_refused(project):
            Project.objects.get(pk=project.pk).save()

        assert task_of(project) in run_queued()

        assert_not_queued()
        assert_not_locked()
        project.refresh_from_db()
        project.save()
        run_queued()
        assert effects(project) == 2

    async def test_it_runs_in_async_tests(self) -> None:
        project = await sync_to_async(make_project)()
        await project.asave()
        ran = await sync_to_async(run_queued)()
        assert await sync_to_async(lambda: project.async_task)() in ran
        assert await sync_to_async(effects)(project) == 1

    def test_a_save_in_work_joins_its_task(self) -> None:
        def save_part(project: Project) -> object:
            for part in project.parts.all():
                part.save()
                assert part.async_task is None
            return sorted(held_by(get_current_task().key))

        project = make_project(parts=1, bolts=1)
        Project.script = save_part
        project.save()
        assert "kinds.bolt" in str(run_queued()[-1].result())
        assert connection.in_atomic_block is never_commits("default")


@queue_tasks()
class TestKitInTestCase(Kit, TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.launched = make_project("of the class")
        cls.launched.save()

    def test_what_the_class_has_queued_is_there_for_each_test(self) -> None:
        assert_queued(self.launched)
        run_queued()
        assert effects(self.launched) == 1

    test_and_again = test_what_the_class_has_queued_is_there_for_each_test


@queue_tasks()
class TestKitInTransactionTestCase(Kit, TransactionTestCase):
    pass


def test_queue_tasks_keeps_what_is_overridden_around_it() -> None:
    queue = queue_tasks()
    with override_settings(POWERCRUD_SETTINGS={"GUARD_WRITES": False}):
        with queue:
            conf = get_conf()
        assert (conf.GUARD_WRITES, conf.QUEUE) == (False, "testing")
        assert get_conf().QUEUE == "auto"
