"""``cancel()``, ``retry()`` and ``aresult()``: what people ask of a task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction

from powercrud_models import (
    ConflictError,
    LeaseLost,
    PowerCRUDError,
    TaskCancelled,
    hold,
    progress,
)
from powercrud_models.exceptions import TaskFailed
from powercrud_models.lifecycle import cancel_rest, claim, sweep
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem, TaskPulse
from powercrud_models.tasks import run_task
from tests.deliveries import deliver, expire_lease, lose_messages, make_overdue, messages, task_of
from tests.kinds.models import Crew, Part, Project
from tests.stage import DEADLINE, Stage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


def statuses(task: AsyncTask) -> list[str]:
    task.refresh_from_db()
    return [task.status, *task.items.order_by("pk").values_list("status", flat=True)]


@pytest.fixture
def three(db: None) -> list[Project]:
    return Project.objects.bulk_create([Project(name=name) for name in "abc"])


def save_all(projects: list[Project]) -> AsyncTask:
    with transaction.atomic():
        for project in projects:
            project.save()
    return task_of(projects[0])


class TestPending:
    def test_it_ends_at_once(self, three: list[Project]) -> None:
        task = save_all(three)
        task.cancel()
        assert statuses(task) == ["cancelled", "skipped", "skipped", "skipped"]
        assert task.finished_at is not None
        assert not ObjectLock.objects.exists()

    def test_its_message_finds_nothing_to_do(self, three: list[Project]) -> None:
        task = save_all(three)
        task.cancel()
        assert deliver() == 1
        assert statuses(task)[0] == "cancelled"
        assert set(Project.objects.values_list("effects", flat=True)) == {0}

    def test_waiting_for_it_raises(self, three: list[Project]) -> None:
        task = save_all(three)
        task.cancel()
        with pytest.raises(TaskCancelled, match="has been cancelled"):
            task.result(timeout=DEADLINE)

    def test_again_changes_nothing(self, three: list[Project]) -> None:
        task = save_all(three)
        task.cancel()
        ended = task.finished_at
        task.cancel()
        assert task.finished_at == ended

    def test_with_the_transaction_that_asked(self, three: list[Project]) -> None:
        task = save_all(three)
        with transaction.atomic():
            task.cancel()
            transaction.set_rollback(True)
        deliver()
        assert statuses(task) == ["success", "done", "done", "done"]


class TestInProgress:
    def test_at_its_next_item(self, three: list[Project]) -> None:
        def work(project: Project) -> None:
            if project.name == "b":
                AsyncTask.objects.get().cancel()

        Project.script = work
        task = save_all(three)
        deliver()
        assert statuses(task) == ["cancelled", "done", "done", "skipped"]
        assert sorted(Project.objects.values_list("effects", flat=True)) == [0, 1, 1]
        assert not ObjectLock.objects.exists()

    def test_at_the_next_step_of_its_progress(self, stage: Stage) -> None:
        """In autocommit, so that SQLite's heartbeat and whoever cancels get their turn."""
        [crew] = Crew.objects.bulk_create([Crew(name="night")])
        at_work = threading.Event()
        steps: list[int] = []

        def work(crew: Crew) -> None:
            for step in progress(until_stopped()):
                steps.append(step)
                Crew._base_manager.filter(pk=crew.pk).update(name=f"step {step}")
                at_work.set()

        def until_stopped() -> Iterator[int]:
            pause, step = threading.Event(), 0
            while step < DEADLINE * 100:
                pause.wait(0.01)
                yield step
                step += 1

        Crew.script = work
        task = crew.post.enqueue()
        lose_messages()
        worker = stage.act(lambda: run_task(task.key), "worker")
        assert at_work.wait(DEADLINE)
        task.cancel()
        worker.result()
        assert statuses(task) == ["cancelled", "skipped"]
        assert len(steps) < DEADLINE * 100
        assert not ObjectLock.objects.exists()

    def test_what_an_atomic_item_has_written_is_undone(self, three: list[Project]) -> None:
        def work(project: Project) -> None:
            Part.objects.create(name="new", project=project)
            raise TaskCancelled(AsyncTask.objects.get())

        Project.script = work
        task = save_all(three)
        deliver()
        assert statuses(task) == ["cancelled", "skipped", "skipped", "skipped"]
        assert not Part.objects.exists()

    def test_after_its_end_it_stays_what_it_is(self, three: list[Project]) -> None:
        task = save_all(three)
        deliver()
        task.cancel()
        assert statuses(task) == ["success", "done", "done", "done"]

    def test_whoever_takes_it_over_does_not_go_on(self, three: list[Project]) -> None:
        task = save_all(three)
        lose_messages()
        assert claim(task.key)
        task.cancel()
        assert statuses(task)[0] == "in_progress"
        expire_lease(task.key)
        make_overdue(task.key)
        sweep()
        deliver()
        assert statuses(task) == ["cancelled", "skipped", "skipped", "skipped"]
        assert set(Project.objects.values_list("effects", flat=True)) == {0}

    def test_a_worker_that_was_taken_over_skips_nothing(self, three: list[Project]) -> None:
        task = save_all(three)
        lose_messages()
        first = claim(task.key)
        assert first is not None
        expire_lease(task.key)
        assert claim(task.key) is not None
        with pytest.raises(LeaseLost):
            cancel_rest(first)
        assert statuses(task) == ["in_progress", "todo", "todo", "todo"]

    def test_a_cancel_that_comes_after_a_takeover_is_not_the_queues_trouble(self) -> None:
        def work(_: Crew) -> None:
            AsyncTask.objects.update(fence=99)  # as another worker would
            raise TaskCancelled(AsyncTask.objects.get())

        [crew] = Crew.objects.bulk_create([Crew(name="night")])
        Crew.script = work
        task = crew.post.enqueue()  # in autocommit: what it did to the fence stays
        deliver()
        assert statuses(task) == ["in_progress", "todo"]  # both are the other worker's

    def test_a_hold_ends_with_its_block(self, three: list[Project]) -> None:
        with hold(three) as task:
            assert task is not None
            with pytest.raises(PowerCRUDError, match="ends with it"):
                task.cancel()
        assert statuses(task) == ["success"]


class Failing:
    """A script that fails for some names, until it is mended."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __call__(self, project: Project) -> str:
        if project.name in self.names:
            raise ValueError(f"no {project.name}")
        return project.name


class TestRetry:
    def test_what_failed_is_done_and_nothing_else(self, three: list[Project]) -> None:
        Project.script = Failing("b")
        task = save_all(three)
        deliver()
        assert statuses(task) == ["failed", "done", "failed", "done"]
        Project.script = Failing()
        task.retry()
        assert statuses(task) == ["pending", "done", "todo", "done"]
        assert (task.error, task.finished_at, messages()) == ("", None, [task.key])
        assert three[1].holder == task
        deliver()
        assert statuses(task) == ["success", "done", "done", "done"]
        assert task.result() == ["a", "b", "c"]
        assert set(Project.objects.values_list("effects", flat=True)) == {1}
        assert not ObjectLock.objects.exists()

    def test_a_cancelled_task_goes_on_with_the_rest(self, three: list[Project]) -> None:
        task = save_all(three)
        lose_messages()
        task.cancel()
        task.retry()
        deliver()
        assert statuses(task) == ["success", "done", "done", "done"]

    def test_a_cancel_of_the_first_time_is_forgotten(self, three: list[Project]) -> None:
        def work(project: Project) -> None:
            if project.name == "a" and not TaskPulse.objects.get().cancel_requested:
                AsyncTask.objects.get().cancel()

        Project.script = work
        task = save_all(three)
        deliver()
        assert statuses(task)[0] == "cancelled"
        Project.script = None
        task.retry()
        deliver()
        assert statuses(task) == ["success", "done", "done", "done"]

    def test_it_fails_again(self, three: list[Project]) -> None:
        Project.script = Failing("b")
        task = save_all(three)
        deliver()
        task.retry()
        deliver()
        assert statuses(task) == ["failed", "done", "failed", "done"]
        with pytest.raises(TaskFailed, match="no b"):
            task.result()

    def test_what_another_holds_by_now_is_refused(self, three: list[Project]) -> None:
        Project.script = Failing("b")
        task = save_all(three)
        deliver()
        Project.objects.get(name="b").save()
        holder = AsyncTask.objects.get(status=Status.PENDING)
        with pytest.raises(ConflictError) as caught:
            task.retry()
        assert caught.value.conflicts[0].holder == holder
        assert statuses(task) == ["failed", "done", "failed", "done"]

    @pytest.mark.parametrize("when", ["pending", "success"])
    def test_there_is_nothing_to_try(self, three: list[Project], when: str) -> None:
        task = save_all(three)
        if when == "success":
            deliver()
            task.refresh_from_db()
        with pytest.raises(PowerCRUDError, match=f"nothing to try again .* it is {when}"):
            task.retry()
        assert statuses(task)[0] == when

    def test_a_hold_is_never_run_again(self, three: list[Project]) -> None:
        with pytest.raises(ValueError, match="broken"), hold(three):
            raise ValueError("broken")
        with pytest.raises(PowerCRUDError, match="nothing to try again"):
            AsyncTask.objects.get().retry()

    def test_other_saves_of_the_transaction_are_a_task_of_their_own(
        self, three: list[Project]
    ) -> None:
        Project.script = Failing("b")
        task = save_all(three[:2])
        deliver()
        with transaction.atomic():
            task.retry()
            three[2].save()
        assert task_of(three[2]) != task


class TestAresult:
    def test_it_waits(self, three: list[Project], stage: Stage) -> None:
        task = save_all(three)
        Project.script = Failing()
        stage.act(deliver, "worker")
        assert async_to_sync(task.aresult)(timeout=DEADLINE) == ["a", "b", "c"]

    def test_it_lets_other_code_run(self, three: list[Project]) -> None:
        """The task is done by the very loop that waits for it."""
        task = save_all(three)

        async def both() -> object:
            result, _ = await asyncio.gather(
                task.aresult(timeout=DEADLINE), sync_to_async(deliver)()
            )
            return result

        assert async_to_sync(both)() == [None, None, None]

    def test_too_late(self, three: list[Project]) -> None:
        with pytest.raises(TimeoutError, match="has not ended within"):
            async_to_sync(save_all(three).aresult)(timeout=0.05)

    def test_what_it_raises(self, three: list[Project]) -> None:
        task = save_all(three)
        task.cancel()
        with pytest.raises(TaskCancelled):
            async_to_sync(task.aresult)()


def test_templates_start_none_of_these() -> None:
    methods: list[Callable[..., object]] = [AsyncTask.cancel, AsyncTask.retry, AsyncTask.result]
    assert all(method.alters_data for method in methods)  # type: ignore[attr-defined]


def test_an_item_that_was_skipped_keeps_no_outcome(three: list[Project]) -> None:
    task = save_all(three)
    task.cancel()
    assert set(TaskItem.objects.values_list("error", "returned")) == {("", None)}
