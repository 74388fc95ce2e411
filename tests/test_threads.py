"""Threads and coroutines that work starts: part of its task when they are given its context."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.db.models.signals import post_save

from powercrud_models import ConflictError, get_current_task
from powercrud_models.context import current_run, fence_of
from powercrud_models.models import AsyncTask
from tests.deliveries import deliver, task_of
from tests.kinds.models import Crew, Member

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

DEADLINE = 30


@pytest.fixture
def crew(db: None) -> Crew:
    """``post`` is work in autocommit, so that other connections may write."""
    [crew] = Crew.objects.bulk_create([Crew(name="night")])
    Member.objects.bulk_create([Member(name="as made", crew=crew)])
    return crew


def in_thread(call: Callable[[], object]) -> object:
    """What the call returns, or raises, in a thread with a connection of its own."""

    def closing() -> object:
        try:
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(closing).result(DEADLINE)


def save_crew() -> object:
    crew = Crew.objects.get()
    crew.name = "by a thread"
    crew.save()
    return get_current_task()


def ran(crew: Crew, script: Callable[[Crew], object]) -> AsyncTask:
    Crew.script = script
    task: AsyncTask = crew.post.enqueue()
    deliver()
    task.refresh_from_db()
    return task


def test_a_thread_with_the_context_is_part_of_the_task(crew: Crew) -> None:
    seen: list[object] = []

    def script(_: Crew) -> None:
        context = copy_context()
        seen.append(in_thread(lambda: context.run(save_crew)))

    task = ran(crew, script)
    assert task.status == AsyncTask.Status.SUCCESS, task.error
    assert seen == [task]
    assert Crew.objects.get().name == "by a thread"


def test_a_thread_without_it_is_told_what_it_lacks(crew: Crew) -> None:
    task = ran(crew, lambda _: in_thread(save_crew))
    assert task.status == AsyncTask.Status.FAILED
    assert "ConflictError" in task.error
    assert "Thread(target=copy_context().run, args=(function,))" in task.error
    assert Crew.objects.get().name == "night"


def test_others_are_not_told_so(crew: Crew) -> None:
    crew.save()
    with pytest.raises(ConflictError) as caught:
        Crew.objects.get().save()
    assert "copy_context" not in str(caught.value)
    assert caught.value.conflicts[0].holder == task_of(crew)


def test_threads_do_not_take_each_others_fence_for_their_own(crew: Crew) -> None:
    """One is inside its transaction, which holds the fence; the others are in none."""
    inside, checked = threading.Event(), threading.Event()

    def stop(**_: object) -> None:
        inside.set()
        assert checked.wait(DEADLINE)

    def script(_: Crew) -> list[str]:
        run = current_run()
        assert run is not None
        assert run.claim is not None
        one, other = copy_context(), copy_context()
        thread = threading.Thread(target=in_thread, args=(lambda: one.run(save_crew),))
        thread.start()
        try:
            assert inside.wait(DEADLINE)
            return [other.run(fence_of, run.claim).name, fence_of(run.claim).name]
        finally:
            checked.set()
            thread.join(DEADLINE)

    post_save.connect(stop, sender=Crew)
    try:
        task = ran(crew, script)
    finally:
        post_save.disconnect(stop, sender=Crew)
    assert task.result() == ["FREE", "FREE"]


def test_a_worker_that_was_taken_over_writes_nothing_in_a_thread_either(crew: Crew) -> None:
    def script(_: Crew) -> None:
        AsyncTask.objects.update(fence=99)  # as another worker would
        context = copy_context()
        in_thread(lambda: context.run(save_crew))

    task = ran(crew, script)
    assert Crew.objects.get().name == "night"
    assert task.status == AsyncTask.Status.IN_PROGRESS  # it is the other worker's to end


def test_coroutines_of_work_are_part_of_the_task(crew: Crew) -> None:
    async def save() -> object:
        crew = await Crew.objects.aget()
        crew.name = "by a coroutine"
        await crew.asave()
        await asyncio.gather(sync_to_async(lambda: None)(), asyncio.sleep(0))
        return await sync_to_async(get_current_task)()

    seen: list[object] = []
    task = ran(crew, lambda _: seen.append(async_to_sync(save)()))
    assert task.status == AsyncTask.Status.SUCCESS, task.error
    assert seen == [task]
    assert Crew.objects.get().name == "by a coroutine"
