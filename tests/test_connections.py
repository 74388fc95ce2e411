"""Runs and the connections of others: threads with the context of work, and a second database."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context

import pytest
from django.db import connection, connections

from powercrud_models import LeaseLost, PowerCRUDError, hold
from powercrud_models.models import AsyncTask, ObjectLock
from tests.deliveries import deliver, task_of
from tests.kinds.models import Clock, Member, Project
from tests.stage import DEADLINE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


class Helper:
    """A thread that work starts with its context, and that begins when it is told to."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._go = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,))
        self._thread.start()

    def _run(self) -> None:
        try:
            assert self._go.wait(DEADLINE)
            self._call()
        except BaseException as error:  # noqa: BLE001  the test looks at it
            self.error = error
        finally:
            connections.close_all()

    def finish(self) -> None:
        self._go.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


@pytest.fixture
def member(db: None) -> Member:
    [member] = Member.objects.bulk_create([Member(name="Ada")])
    return member


def rename(member: Member) -> None:
    member.name = "late"
    member.save()


def test_a_thread_that_outlives_atomic_work_may_write_nothing(member: Member) -> None:
    helpers: list[Helper] = []
    Project.script = lambda _: helpers.append(Helper(lambda: rename(member)))
    [project] = Project._base_manager.bulk_create([Project(name="bridge")])
    project.save()
    deliver()
    assert task_of(project).status == AsyncTask.Status.SUCCESS
    helpers[0].finish()
    assert isinstance(helpers[0].error, LeaseLost)
    assert "has ended" in str(helpers[0].error)
    assert Member.objects.get().name == "Ada"
    assert not ObjectLock.objects.exists()


def test_a_thread_of_atomic_work_does_not_wait_for_it_for_ever(member: Member) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("SQLite's one writer lets nobody begin")
    errors: list[BaseException | None] = []

    def script(_: Project) -> None:
        helper = Helper(lambda: rename(member))
        helper.finish()  # it is waited for
        errors.append(helper.error)

    Project.script = script
    [project] = Project._base_manager.bulk_create([Project(name="bridge")])
    project.save()
    deliver()
    assert task_of(project).status == AsyncTask.Status.SUCCESS, task_of(project).error
    assert isinstance(errors[0], PowerCRUDError)
    assert "Let threads write in work with atomic=False" in str(errors[0])
    assert Member.objects.get().name == "Ada"


def test_a_thread_of_an_inline_run_leaves_no_lock(member: Member) -> None:
    helpers: list[Helper] = []
    Clock.script = lambda _: helpers.append(Helper(lambda: rename(member)))
    [clock] = Clock.objects.bulk_create([Clock()])
    clock.wind()
    helpers[0].finish()
    assert helpers[0].error is None
    assert Member.objects.get().name == "late"
    assert not ObjectLock.objects.exists()


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("how", ["save", "hold"])
def test_work_on_another_database_leaves_no_lock(member: Member, how: str) -> None:
    [there] = Clock.objects.using("other").bulk_create([Clock()])
    held: list[bool] = []

    def script(_: Clock) -> None:
        if how == "save":
            rename(member)
            return
        with hold(member):
            held.append(ObjectLock.objects.exists())

    Clock.script = script
    there.wind()
    assert held == ([] if how == "save" else [True])
    assert not ObjectLock.objects.exists()
