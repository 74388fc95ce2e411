"""Redis is emptied, restarted, away or slow in mid task: nothing half done, nothing for ever.

The servers are the tests' own. A task runs in this process, when the broker's messages are
delivered.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection, transaction

from powercrud_models import ConflictError, LeaseLost, hold, progress
from powercrud_models.context import current_run
from powercrud_models.exceptions import StoreUnavailable
from powercrud_models.lifecycle import sweep
from powercrud_models.models import AsyncTask
from powercrud_models.stores import get_store
from powercrud_models.types import ObjectKey
from tests.deliveries import deliver, expire_lease, make_overdue, task_of
from tests.gates import until
from tests.kinds.models import Bolt, Part, Project
from tests.promises.made import effects, make_project
from tests.stores.asking import elsewhere, held, release
from tests.stores.redis_server import OwnServer

Status = AsyncTask.Status

FAILURES: dict[str, Callable[[OwnServer], object]] = {
    "emptied": lambda server: server.client.flushall(),
    "restarted": lambda server: server.restart(),
}


@pytest.fixture(params=FAILURES)
def fail(request, server: OwnServer) -> Callable[[], object]:
    """Redis loses all that it has."""
    return lambda: FAILURES[request.param](server)


@pytest.fixture
def project(server: OwnServer) -> Project:
    return make_project(parts=2)


def keys_of(project: Project) -> set[ObjectKey]:
    return {ObjectKey.of(obj) for obj in [project, *project.parts.all()]}


def acquire_elsewhere(task_key: str, *objects: Project | Part | Bolt) -> None:
    """Another process, which saw no lock, has begun with these objects."""
    keys = {ObjectKey.of(obj) for obj in objects}
    elsewhere(lambda: get_store().acquire(task_key, keys, "default"))


def save_launches(project: Project) -> AsyncTask:
    project.save()
    task = task_of(project)
    assert held(get_store(), task.key) == keys_of(project)
    return task


def take_up_again(task: AsyncTask) -> None:
    """Its lease runs out, and a worker takes it up."""
    expire_lease(task.key)
    make_overdue(task.key)
    sweep()
    deliver()
    task.refresh_from_db()


class TestLocksThatGotLost:
    def test_in_mid_task_are_acquired_again(self, project: Project, fail, caplog) -> None:
        task = save_launches(project)
        held_after: list[set[ObjectKey]] = []

        def work(project: Project) -> None:
            fail()
            get_store().confirm(task.key, "default")  # as the heartbeat does
            held_after.append(held(get_store(), task.key))

        Project.script = work
        deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.SUCCESS, 1)
        assert held_after == [keys_of(project)]
        assert held(get_store(), task.key) == set()
        assert f"Redis had lost 3 locks of the task {task.key}" in caplog.text

    def test_are_noticed_when_the_item_ends(self, project: Project, fail, caplog) -> None:
        task = save_launches(project)
        Project.script = lambda project: fail()
        deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.SUCCESS, 1)
        assert "Redis had lost 3 locks" in caplog.text

    def test_between_launch_and_claim_are_acquired_by_the_worker(
        self, project: Project, fail
    ) -> None:
        task = save_launches(project)
        fail()
        seen: list[set[ObjectKey]] = []
        Project.script = lambda project: seen.append(held(get_store(), task.key))
        deliver()
        assert seen == [keys_of(project)]

    def test_of_a_target_without_descendants_too(self, server: OwnServer, fail) -> None:
        part = Part.objects.create(name="pier", project=make_project())
        deliver()
        part.tighten.enqueue()
        fail()
        deliver()
        part.refresh_from_db()
        assert part.effects == 2

    def test_are_joined_by_what_the_work_saves(self, project: Project, fail) -> None:
        """The save acquires for a task whose epoch has ended."""
        task = save_launches(project)
        bolt = Bolt.objects.create(name="bolt", part=project.parts.all()[0])
        deliver_nothing_of(bolt)
        seen: list[set[ObjectKey]] = []

        def work(project: Project) -> None:
            fail()
            part = project.parts.all()[0]
            part.name = "written by the work"
            part.save()
            seen.append(held(get_store(), task.key))

        Project.script = work
        deliver()
        task.refresh_from_db()
        assert task.status == Status.SUCCESS, task.error
        assert seen == [keys_of(project) | {ObjectKey.of(bolt)}]


def deliver_nothing_of(obj: Bolt) -> None:
    """Its save has launched nothing."""
    assert obj.async_task is None


class TestLocksThatOthersHaveSince:
    def test_the_item_is_undone_and_the_task_taken_up_again(
        self, project: Project, fail, caplog
    ) -> None:
        task = save_launches(project)
        part = project.parts.all()[0]

        def work(project: Project) -> None:
            fail()
            acquire_elsewhere("other", part)

        Project.script = work
        deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.IN_PROGRESS, 0)
        assert f"has lost locks of the task {task.key}" in caplog.text
        assert held(get_store(), "other") == {ObjectKey.of(part)}

        Project.script = None
        release(get_store(), "other")
        take_up_again(task)
        assert (task.status, effects(project)) == (Status.SUCCESS, 1)

    def test_a_save_in_the_work_raises_lease_lost(self, project: Project, fail) -> None:
        task = save_launches(project)
        part, other = project.parts.all()
        raised: list[Exception] = []

        def work(project: Project) -> None:
            fail()
            acquire_elsewhere("other", other)
            part.name = "written by the work"
            try:
                part.save()
            except LeaseLost as error:
                raised.append(error)
                raise

        Project.script = work
        deliver()
        task.refresh_from_db()
        part.refresh_from_db()
        assert len(raised) == 1
        assert (task.status, effects(project)) == (Status.IN_PROGRESS, 0)
        assert part.name != "written by the work"

    @pytest.mark.skipif(
        connection.vendor == "sqlite", reason="its heartbeat waits for the transaction of the work"
    )
    def test_the_next_step_of_a_loop_raises_it(self, project: Project, fail) -> None:
        task = save_launches(project)
        part = project.parts.all()[0]
        steps: list[int] = []

        def work(project: Project) -> None:
            fail()
            acquire_elsewhere("other", part)
            until(lambda: current_run().live.lost, "the heartbeat notices")
            steps.extend(progress(range(3)))

        Project.script = work
        deliver()
        task.refresh_from_db()
        assert steps == []
        assert (task.status, effects(project)) == (Status.IN_PROGRESS, 0)

    def test_between_launch_and_claim_send_the_task_back_to_wait(
        self, project: Project, fail
    ) -> None:
        task = save_launches(project)
        fail()
        acquire_elsewhere("other", project)
        deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.PENDING, 0)
        release(get_store(), "other")
        make_overdue(task.key)
        sweep()
        deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.SUCCESS, 1)


class TestHold:
    def test_its_heartbeat_acquires_again(self, project: Project, fail) -> None:
        with hold(project) as task:
            fail()
            until(lambda: held(get_store(), task.key) == {ObjectKey.of(project)}, "held again")
        assert held(get_store(), task.key) == set()
        assert AsyncTask.objects.get().status == Status.SUCCESS

    def test_it_ends_with_lease_lost_when_others_have_its_objects(
        self, project: Project, fail
    ) -> None:
        def reserve() -> None:
            with hold(project) as task:
                fail()
                acquire_elsewhere("other", project)
                until(lambda: is_lost(task.key), "the heartbeat notices")
                with pytest.raises((LeaseLost, ConflictError)):
                    project.save()

        with pytest.raises(LeaseLost):
            reserve()
        assert effects(project) == 0
        assert AsyncTask.objects.get().status == Status.FAILED
        assert held(get_store(), "other") == {ObjectKey.of(project)}


def is_lost(task_key: str) -> bool:
    try:
        get_store().confirm(task_key, "default")
    except LeaseLost:
        return True
    return False


@pytest.mark.redis_options(socket_timeout=0.5)
class TestAwayOrSlow:
    @pytest.fixture(params=["away", "hanging"])
    def gone(self, request, server: OwnServer):
        """Nobody reaches it, or it does not answer, for the length of a block."""
        return getattr(server, request.param)

    def test_a_save_is_refused_and_leaves_nothing(self, project: Project, gone) -> None:
        project.name = "written while Redis is gone"
        with gone(), pytest.raises(StoreUnavailable, match="Locks are kept in Redis"):
            project.save()
        project.refresh_from_db()
        assert project.name != "written while Redis is gone"
        assert not AsyncTask.objects.exists()
        project.save()
        deliver()
        assert effects(project) == 1

    def test_in_mid_task_the_item_is_undone_and_done_later(
        self, project: Project, server: OwnServer, gone
    ) -> None:
        task = save_launches(project)
        blocks = []

        def work(project: Project) -> None:
            block = gone()
            block.__enter__()
            blocks.append(block)

        Project.script = work
        deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.IN_PROGRESS, 0)
        blocks.pop().__exit__(None, None, None)
        Project.script = None
        take_up_again(task)
        assert (task.status, effects(project)) == (Status.SUCCESS, 1)
        assert held(get_store(), task.key) == set()

    def test_at_the_claim_the_task_stays_pending(self, project: Project, gone) -> None:
        task = save_launches(project)
        with gone(), pytest.raises(StoreUnavailable):
            deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.PENDING, 0)
        make_overdue(task.key)
        sweep()
        deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.SUCCESS, 1)

    def test_a_nested_save_is_no_failure_of_the_work(
        self, project: Project, server: OwnServer, gone
    ) -> None:
        task = save_launches(project)
        part = project.parts.all()[0]

        def work(project: Project) -> None:
            with gone():
                part.save()

        Project.script = work
        deliver()
        task.refresh_from_db()
        assert (task.status, effects(project)) == (Status.IN_PROGRESS, 0)
        Project.script = None
        take_up_again(task)
        assert (task.status, effects(project)) == (Status.SUCCESS, 1)


@pytest.mark.redis_options("--appendonly", "yes")
class TestVoidLocks:
    """What nobody could undo or release is released by whoever runs into it, and by the sweep."""

    def test_of_a_task_that_ended_while_redis_was_away(
        self, project: Project, server: OwnServer, finds
    ) -> None:
        task = save_launches(project)
        with transaction.atomic():
            task.cancel()
            server.kill()
        server.start()
        task.refresh_from_db()
        assert task.status == Status.CANCELLED
        assert held(get_store(), task.key) == keys_of(project)
        with pytest.raises(ConflictError):
            project.save()  # its holder may have been tried again, in a transaction that is open
        make_void(server, task.key)
        finds(project)
        assert held(get_store(), task.key) == set()

    def test_of_a_launch_that_was_rolled_back_while_redis_was_away(
        self, project: Project, server: OwnServer, finds
    ) -> None:
        with transaction.atomic():
            project.save()
            task = task_of(project)
            server.kill()
            transaction.set_rollback(True)
        server.start()
        assert not AsyncTask.objects.exists()
        assert held(get_store(), task.key) == keys_of(project)
        make_void(server, task.key)
        finds(project)
        assert held(get_store(), task.key) == set()

    def test_those_of_an_old_task_that_has_not_ended_are_none(
        self, project: Project, server: OwnServer
    ) -> None:
        task = save_launches(project)
        make_void(server, task.key)
        with pytest.raises(ConflictError):
            project.save()
        assert sweep()["released"] == 0
        assert held(get_store(), task.key) == keys_of(project)


@pytest.fixture(params=["a save", "a look", "the sweep"])
def finds(request) -> Callable[[Project], object]:
    """Who finds them."""
    return {
        "a save": lambda project: project.save(),
        "a look": lambda project: project.holder,
        "the sweep": lambda project: sweep(),
    }[request.param]


def make_void(server: OwnServer, task_key: str) -> None:
    """As if the task had acquired nothing for longer than a lease."""
    for name in server.client.keys("*:tasks"):
        if server.client.zscore(name, task_key) is not None:
            server.client.zadd(name, {task_key: 0})
