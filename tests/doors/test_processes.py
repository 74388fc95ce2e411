"""The doors of code without a request: management commands and plain threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections

from powercrud_models import ConflictError, acting_user, get_current_task
from tests.doors.models import Festival, Musician
from tests.doors.programme import finished, held, names, new, the_task, works
from tests.kinds.models import Crew


@pytest.mark.door("management command")
def test_a_command_starts_the_work_of_what_it_saves() -> None:
    new(Festival, "spring"), new(Festival, "autumn")
    call_command("rename_festivals", "winter")
    assert names(Festival) == ["winter", "winter"]
    assert works(the_task()) == [("festival", "measure")] * 2
    assert the_task().user is None
    assert finished(the_task()) == [0, 0]


@pytest.mark.door("management command")
def test_a_command_may_say_for_whom_it_works() -> None:
    new(Festival, "spring")
    ann = User.objects.create_user("ann")
    with acting_user(ann):
        call_command("rename_festivals", "winter")
    assert the_task().user == ann


@pytest.mark.door("management command")
def test_a_command_that_is_refused_fails_and_names_the_holder() -> None:
    new(Festival, "spring")
    task = held(new(Festival, "autumn"))
    with pytest.raises(ConflictError, match=task.label):
        call_command("rename_festivals", "winter")
    assert names(Festival) == ["spring", "autumn"]
    assert the_task() == task


class PlainWorker:
    """What Celery's thread pool is to Django: a thread that knows nothing of its caller."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], Any] | None] = queue.Queue()
        self._outcomes: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while call := self._calls.get():
                try:
                    self._outcomes.put(call())
                except Exception as error:  # noqa: BLE001  the caller asserts what it was
                    self._outcomes.put(error)
        finally:
            connections.close_all()

    def do(self, call: Callable[[], Any]) -> Any:
        """What the call returned in that thread, or the error that it raised."""
        self._calls.put(call)
        return self._outcomes.get(timeout=30)

    def close(self) -> None:
        self._calls.put(None)
        self._thread.join(30)


@pytest.fixture
def worker() -> Any:
    worker = PlainWorker()
    yield worker
    worker.close()


def rename(pk: int) -> str:
    """What a Celery task is: it gets a key, loads the object, and saves it."""
    festival = Festival.objects.get(pk=pk)
    festival.name = "renamed"
    festival.save()
    assert festival.async_task is not None
    return str(festival.async_task.key)


@pytest.mark.door("plain thread")
def test_a_thread_starts_the_work_of_what_it_saves(worker: PlainWorker) -> None:
    festival = new(Festival, "spring")
    with acting_user(User.objects.create_user("ann")):
        assert worker.do(lambda: rename(festival.pk)) == the_task().key
    assert the_task().user is None  # it knows nothing of its caller
    assert finished(the_task()) == 0


@pytest.mark.door("plain thread")
def test_a_thread_is_refused_what_is_held(worker: PlainWorker) -> None:
    festival = new(Festival, "spring")
    task = held(festival)
    refused = worker.do(lambda: rename(festival.pk))
    assert isinstance(refused, ConflictError)
    assert [conflict.holder for conflict in refused.conflicts] == [task]
    assert names(Festival) == ["spring"]


@pytest.mark.door("plain thread")
@pytest.mark.parametrize("knows", [True, False])
def test_a_thread_that_work_uses_is_part_of_its_task_when_it_gets_the_context(
    worker: PlainWorker, knows: bool
) -> None:
    ann = new(Musician, "Ann")

    def save() -> Any:
        ann.name = "Amy"
        ann.save()
        return get_current_task()

    def use_the_thread(crew: Crew) -> str:
        context = copy_context()
        found = worker.do(lambda: context.run(save) if knows else save())
        return str(getattr(found, "key", found))

    Crew.script = use_the_thread
    [crew] = Crew._base_manager.bulk_create([Crew(name="stage")])
    task = crew.post.enqueue()  # atomic=False: an open transaction is one connection's alone
    assert finished(task) == (task.key if knows else "None")
    assert names(Musician) == ["Amy"]


@pytest.mark.door("plain thread")
@pytest.mark.parametrize("knows", [True, False])
def test_only_a_thread_with_the_context_may_save_what_the_task_holds(
    worker: PlainWorker, knows: bool
) -> None:
    def use_the_thread(crew: Crew) -> str:
        crew.name = "changed"
        context = copy_context()
        outcome = worker.do(lambda: context.run(crew.save) if knows else crew.save())
        return type(outcome).__name__

    Crew.script = use_the_thread
    [crew] = Crew._base_manager.bulk_create([Crew(name="stage")])
    task = crew.post.enqueue()
    assert finished(task) == ("NoneType" if knows else "ConflictError")
    assert Crew.objects.get().name == ("changed" if knows else "stage")
