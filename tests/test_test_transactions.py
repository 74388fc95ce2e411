"""One transaction, one task: in a test that never commits as on a database that commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from powercrud_models import ConflictError, PowerCRUDError, launches
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.testing import queue_tasks
from tests.deliveries import NOTHING, held_by, rows, task_of, undone
from tests.kinds.models import Bolt, Part, Project
from tests.promises.made import make_project, name_of


@pytest.fixture(
    params=[
        pytest.param("rolled back", marks=pytest.mark.django_db),
        pytest.param("committed", marks=pytest.mark.django_db(transaction=True)),
    ]
)
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that never commits, and the same on a database that does; the queue is on."""
    assert launches.never_commits("default") is (request.param == "rolled back")
    with queue_tasks():
        yield


@pytest.fixture
def two(database: None) -> tuple[Project, Project]:
    return make_project("one", parts=1, bolts=1), make_project("other")


Block = Callable[[], transaction.Atomic]
_reused = transaction.atomic()

blocks = pytest.mark.parametrize(
    "block",
    [transaction.atomic, lambda: transaction.atomic(savepoint=False), lambda: _reused],
    ids=["atomic", "without a savepoint", "reused"],
)


def test_two_saves_are_two_tasks(two: tuple[Project, Project]) -> None:
    for project in two:
        project.save()
    assert task_of(two[0]) != task_of(two[1])


@blocks
def test_saves_of_one_block_are_one_task(two: tuple[Project, Project], block: Block) -> None:
    with block():
        two[0].save()
        with transaction.atomic():
            two[1].save()
    assert task_of(two[0]) == task_of(two[1]) == AsyncTask.objects.get()


@blocks
def test_saves_of_two_blocks_are_two_tasks(two: tuple[Project, Project], block: Block) -> None:
    for project in two:
        with block():
            project.save()
    assert task_of(two[0]) != task_of(two[1])


def test_calls_of_a_decorated_function_are_a_task_each(two: tuple[Project, Project]) -> None:
    @transaction.atomic
    def save(project: Project) -> None:
        project.save()

    for project in two:
        save(project)
    assert task_of(two[0]) != task_of(two[1])


def test_a_nested_block_does_not_end_the_transaction(two: tuple[Project, Project]) -> None:
    with transaction.atomic():
        with transaction.atomic():
            two[0].save()
        two[0].save()
        Part.objects.get().save()
    assert AsyncTask.objects.get() == task_of(two[0])


def test_after_a_rollback_the_next_save_launches_its_own(two: tuple[Project, Project]) -> None:
    with undone():
        two[0].save()
    assert rows() == NOTHING
    with transaction.atomic():
        with undone():
            two[0].save()
        two[1].save()
    assert held_by(task_of(two[1]).key) == {("kinds.project", str(two[1].pk))}


def test_after_a_rollback_by_hand_the_transactions_own_writes_pass(
    two: tuple[Project, Project],
) -> None:
    with transaction.atomic():
        savepoint = connection.savepoint()  # what transaction.savepoint() calls
        assert savepoint is not None
        two[0].save()
        connection.savepoint_rollback(savepoint)
        two[1].save()
        two[1].save()
    assert AsyncTask.objects.get() == task_of(two[1])


@pytest.mark.parametrize("model", [Project, Part, Bolt])
def test_what_a_transaction_that_has_ended_holds_is_refused(
    two: tuple[Project, Project], model: type[Project | Part | Bolt]
) -> None:
    held = model.objects.order_by("pk")[0]
    with transaction.atomic():
        two[0].save()
        Part.objects.get().save()  # the transaction's own writes pass
        held.name = "passed"
        held.save()
    held.name = "late"
    with pytest.raises(ConflictError):
        held.save()
    with pytest.raises(ConflictError), transaction.atomic():
        held.save()
    with pytest.raises(ConflictError):
        held.save(skip_async=True)
    with pytest.raises(ConflictError):
        held.delete()
    assert name_of(held) == "passed"


def test_an_inline_save_does_not_join_the_task_of_another_transaction(
    two: tuple[Project, Project],
) -> None:
    two[0].save()
    two[1].save(skip_async=True)
    assert held_by(task_of(two[0]).key) == set(ObjectLock.objects.values_list("model", "object_id"))
    two[1].refresh_from_db()
    assert two[1].effects == 1
    two[1].save()


def test_the_result_is_not_waited_for_inside_the_transaction_of_the_launch(
    two: tuple[Project, Project],
) -> None:
    with transaction.atomic():
        two[0].save()
        with pytest.raises(PowerCRUDError, match="it is queued when this transaction commits"):
            task_of(two[0]).result()


def test_the_result_is_not_waited_for_inside_a_test(database: None) -> None:
    project = make_project()
    project.save()
    error = PowerCRUDError if launches.never_commits("default") else TimeoutError
    with pytest.raises(error, match=r"run_queued\(\) first|has not ended within"):
        task_of(project).result(timeout=0)


MARK = "_from_testcase"


@pytest.fixture
def unmarked(db: None) -> Iterator[None]:
    """As if Django did not mark the blocks of its TestCase."""
    blocks = list(connection.atomic_blocks)
    for block in blocks:
        delattr(block, MARK)
    yield
    for block in blocks:
        setattr(block, MARK, True)


def test_without_djangos_mark_a_test_is_one_transaction(unmarked: None) -> None:
    one, other = make_project("one"), make_project("other")
    with queue_tasks():
        one.save()
        other.save()
    assert not launches.never_commits("default")
    assert task_of(one) == task_of(other)


class TwoSaves:
    """The same with unittest, whose TestCase opens one block for the class and one for a test."""

    def setUp(self) -> None:
        self.project, self.other = make_project("one"), make_project("other")

    def test_two_saves_are_two_tasks(self) -> None:
        self.project.save()
        self.other.save()
        assert task_of(self.project) != task_of(self.other)
        with pytest.raises(ConflictError):
            self.project.save()

    def test_saves_of_one_block_are_one_task(self) -> None:
        with transaction.atomic():
            self.project.save()
            self.other.save()
        assert task_of(self.project) == task_of(self.other)


@queue_tasks()
class InTestCase(TwoSaves, TestCase):
    shared: ClassVar[Project]

    @classmethod
    def setUpTestData(cls) -> None:
        cls.shared = make_project("shared")
        cls.shared.save()

    def test_what_the_class_has_launched_is_not_joined(self) -> None:
        launched = self.shared.holder
        self.project.save()
        assert launched not in (None, task_of(self.project))
        with pytest.raises(ConflictError):
            self.shared.save()


@queue_tasks()
class InTransactionTestCase(TwoSaves, TransactionTestCase):
    pass
