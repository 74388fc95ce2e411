"""Projects with more than one database: tasks and locks stay on the one they are written to.

The database "other" has the tables of ``tests.kinds`` only: whoever looks for a task there fails.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.db.models import Model

from powercrud_models import PowerCRUDError
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.types import ObjectKey
from tests.deliveries import deliver, task_of
from tests.kinds.models import Crew, Member, Part, Project
from tests.stage import Stage
from tests.takeover import SECOND, overtake

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

Status = AsyncTask.Status


class ReadsElsewhere:
    """A project that reads from a replica, which lags behind."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str | None:
        return "other" if model._meta.app_label in ("kinds", "powercrud_models") else None

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        return "default"

    def allow_relation(self, one: Model, other: Model, **hints: Any) -> bool:
        return True


@pytest.fixture
def reads_elsewhere(settings) -> None:
    settings.DATABASE_ROUTERS = [ReadsElsewhere()]


@pytest.fixture
def replicated() -> Project:
    """A project with one part, in both databases, as it is read from the replica."""
    project = Project(pk=7, name="bridge")
    part = Part(pk=70, name="pier", project_id=7)
    for alias in ("default", "other"):
        Project.objects.using(alias).bulk_create([project])
        Part.objects.using(alias).bulk_create([part])
    return Project.objects.using("other").get()


def held() -> set[ObjectKey]:
    locks = ObjectLock.objects.using("default")
    return {ObjectKey(*lock) for lock in locks.values_list("model", "object_id")}


def effects(alias: str) -> int:
    return Project.objects.using(alias).values_list("effects", flat=True).get()


ALL = {ObjectKey("kinds.project", "7"), ObjectKey("kinds.part", "70")}


@pytest.mark.parametrize("ask", ["save", "enqueue"])
def test_a_task_runs_though_reads_go_elsewhere(
    queued: None, reads_elsewhere: None, replicated: Project, ask: str
) -> None:
    Project.script = lambda project: 42
    if ask == "save":
        replicated.save()
        task = task_of(replicated)
    else:
        task = replicated.rebuild.enqueue()
    assert held() == ALL
    assert replicated.holder == task
    assert (task.progress.items_done, task.progress.items_total) == (0, 1)
    with pytest.raises(TimeoutError):
        task.result(timeout=0.05)
    assert deliver() == 1

    assert task.result(timeout=30) == 42
    assert task.status == Status.SUCCESS
    assert (task.progress.items_done, task.progress.items_total) == (1, 1)
    assert "1 of 1 done, 100%" in task.describe()
    assert (effects("default"), effects("other")) == (1, 0)
    assert held() == set()


def test_a_direct_call_locks_though_reads_go_elsewhere(
    queued: None, reads_elsewhere: None, replicated: Project
) -> None:
    Project.script = lambda project: held()
    assert replicated.rebuild() == ALL
    assert held() == set()
    assert (effects("default"), effects("other")) == (1, 0)


def test_enqueue_with_async_off_is_recorded_though_reads_go_elsewhere(
    async_off: None, reads_elsewhere: None, replicated: Project
) -> None:
    Project.script = lambda project: 42
    assert replicated.rebuild.enqueue().result() == 42
    assert held() == set()


def make_part(alias: str) -> Part:
    project = Project(pk=7, name="bridge")
    Project.objects.using(alias).bulk_create([project])
    return Part(name="pier", project=project)


def save_here(part: Part) -> None:
    part.save(using="other", skip_async=True)


def save_with_async_off(part: Part) -> None:
    part.save(using="other")


@pytest.mark.parametrize(
    ("configured", "save"), [("queued", save_here), ("async_off", save_with_async_off)]
)
def test_an_inline_save_on_another_database_does_its_work(
    request: pytest.FixtureRequest, configured: str, save: Any
) -> None:
    request.getfixturevalue(configured)
    part = make_part("other")
    save(part)
    save(part)

    part.refresh_from_db()
    assert part._state.db == "other"
    assert part.effects == 2
    assert not Part.objects.using("default").exists()
    assert held() == set()


def test_a_queued_save_on_another_database_is_refused(queued: None) -> None:
    part = make_part("other")
    with pytest.raises(PowerCRUDError, match="is on the database 'other', tasks and locks are on"):
        part.save(using="other")

    assert part._state.adding
    assert part.async_task is None
    assert not Part.objects.using("other").exists()
    assert not AsyncTask.objects.exists()


def test_a_delete_on_another_database_looks_for_no_locks(queued: None) -> None:
    held_here = make_part("default").project
    held_here.save()
    part = make_part("other")
    part.save(using="other", skip_async=True)

    Project.objects.using("other").get(pk=held_here.pk).delete()

    assert not Project.objects.using("other").exists()
    assert not Part.objects.using("other").exists()
    assert Project.objects.using("default").get() == held_here
    assert held() == {ObjectKey.of(held_here)}


def make_crew() -> tuple[Crew, Member]:
    (crew,) = Crew.objects.bulk_create([Crew(name="night")])
    (member,) = Member.objects.using("other").bulk_create([Member(name="Ada")])
    return crew, member


def name_of(member: Member) -> str:
    return Member.objects.using("other").values_list("name", flat=True).get(pk=member.pk)


def test_work_in_autocommit_saves_an_object_of_another_database(queued: None) -> None:
    crew, member = make_crew()

    def work(crew: Crew) -> str:
        member.name = "saved"
        member.save()
        with transaction.atomic(using="other"):
            member.save()
        return "done"

    Crew.script = work
    task = crew.post.enqueue()
    deliver()

    assert task.result(timeout=30) == "done"
    assert name_of(member) == "saved"
    assert held() == set()


@pytest.mark.parametrize("write", ["save", "delete"])
def test_stale_work_in_autocommit_does_not_write_to_another_database(
    queued: None, stage: Stage, write: str
) -> None:
    crew, member = make_crew()
    task, raised = overtake(stage, crew, member, lambda _, member: getattr(member, write)())
    assert len(raised) == 1
    assert name_of(member) == "Ada"
    assert task.result(timeout=30) == SECOND
