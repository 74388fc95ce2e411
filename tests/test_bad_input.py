"""Bad input gets a message that names object and method, and loses nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Model
from django.db.transaction import TransactionManagementError
from django_q.models import OrmQ

from powercrud_models import PowerCRUDError, descendants, get_current_task, inline
from powercrud_models.context import current_run
from powercrud_models.exceptions import TaskFailed
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from powercrud_models.tasks import run_task
from tests.deliveries import undone
from tests.kinds.models import Bolt, Film, Neighbour, Part, Person, Project, Tag

pytestmark = pytest.mark.django_db

commits = pytest.mark.django_db(transaction=True)
"""For tests in which a task is launched by one transaction and run by another."""

TABLES: tuple[type[Model], ...] = (
    *(AsyncTask, TaskItem, ObjectLock, OrmQ),
    *(Project, Part, Bolt, Tag, Neighbour, Film, Person),
)


def contents() -> dict[str, list[Any]]:
    """All that could be lost or left behind."""
    rows = {model.__name__: list(model._base_manager.values()) for model in TABLES}
    return {name: sorted(found, key=repr) for name, found in rows.items()}


@pytest.fixture
def unchanged() -> Iterator[None]:
    """Ask for it last: the database is afterwards as it was when the test began."""
    before = contents()
    yield
    assert contents() == before


@pytest.fixture
def project(db) -> Project:
    """A project with two parts, which no save has written."""
    [project] = Project.objects.bulk_create([Project(name="p")])
    Part.objects.bulk_create([Part(name="a", project=project), Part(name="b", project=project)])
    return project


@pytest.fixture
def script(monkeypatch) -> Callable[[Callable[[Project], object]], None]:
    def script(work: Callable[[Project], object]) -> None:
        monkeypatch.setattr(Project, "script", staticmethod(work))

    return script


def raw(sql: str, *parameters: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def ran(task: AsyncTask | None) -> AsyncTask:
    """The task after a worker has had it."""
    assert task is not None
    run_task(task.key)
    task.refresh_from_db()
    return task


def nothing_is_held() -> bool:
    return not ObjectLock.objects.exists()


# -------------------------------------------------------------------------- an unsaved relation


@pytest.mark.parametrize("arguments", [{}, {"skip_async": True}])
def test_an_unsaved_relation(queued, unchanged, arguments) -> None:
    part = Part(name="a", project=Project(name="new"))
    with pytest.raises(
        ValueError, match=r"save\(\) prohibited .* unsaved related object 'project'"
    ):
        part.save(**arguments)
    assert part.pk is None
    assert part.async_task is None


@commits
def test_it_can_be_saved_once_the_relation_is(queued) -> None:
    project = Project(name="new")
    part = Part(name="a", project=project)
    with pytest.raises(ValueError, match="unsaved"):
        part.save()
    project.save()
    run_task(project.async_task.key)
    part.project = project
    part.save()
    assert ran(part.async_task).status == "success"


def replace_neighbours(monkeypatch, method) -> None:
    monkeypatch.setattr(Project, "neighbours", descendants(of="rebuild")(method))


def test_an_unsaved_descendant(queued, project, monkeypatch, unchanged) -> None:
    replace_neighbours(monkeypatch, lambda self: [Neighbour(project=self)])
    project.name = "changed"
    for call in (project.save, project.rebuild.enqueue, project.rebuild):
        with pytest.raises(ValueError, match="has not been saved") as error:
            call()
        assert f"Project.neighbours of project {project.pk} returned a neighbour" in str(
            error.value
        )
    assert project.async_task is None


def test_a_nonsense_descendant(queued, project, monkeypatch, unchanged) -> None:
    replace_neighbours(monkeypatch, lambda self: "all of them")
    with pytest.raises(TypeError) as error:
        project.save()
    said = f"Project.neighbours of project {project.pk} returned 'all of them'; what can be locke"
    assert str(error.value).startswith(said)


def test_work_of_an_object_that_is_new(queued, unchanged) -> None:
    for call in (Project(name="n").rebuild, Project(name="n").rebuild.enqueue):
        with pytest.raises(PowerCRUDError, match=r"Project\.rebuild.* of project None: save the"):
            call()


# ------------------------------------------------------------------- objects that are deleted


@commits
def test_a_descendant_that_was_deleted_meanwhile(queued, project) -> None:
    project.save()
    gone, stays = Part.objects.order_by("pk")
    assert gone.holder == project.async_task
    raw("DELETE FROM kinds_part WHERE id = %s", gone.pk)

    task = ran(project.async_task)
    assert (task.status, task.error) == ("success", "")
    assert nothing_is_held()
    assert list(Part.objects.all()) == [stays]
    project.refresh_from_db()
    assert project.effects == 1


@commits
def test_a_descendant_that_is_deleted_while_the_work_goes_over_it(
    immediate, project, script
) -> None:
    def work(project) -> None:
        for part in list(project.parts.all()):
            raw("DELETE FROM kinds_part WHERE id = %s", part.pk)
            part.save(update_fields=["name"])

    script(work)
    project.save()
    task = project.async_task
    assert task.status == "failed"
    assert "did not affect any rows" in task.error
    assert Part.objects.count() == 2
    assert nothing_is_held()


def delete_raw(project: Project) -> None:
    raw("DELETE FROM kinds_part WHERE project_id = %s", project.pk)
    raw("DELETE FROM kinds_project WHERE id = %s", project.pk)


@commits
def test_an_object_that_was_deleted_before_its_task_runs(queued, project) -> None:
    project.save()
    delete_raw(project)

    task = ran(project.async_task)
    said = f"project {project.pk} was deleted before “rebuild” could run on it."
    item = task.items.get()
    assert (task.status, item.status) == ("failed", "failed")
    assert said in item.error
    assert said in task.error
    with pytest.raises(TaskFailed, match=said):
        task.result()
    assert nothing_is_held()


@commits
def test_the_other_objects_of_the_task_are_done(queued, project) -> None:
    [other] = Project.objects.bulk_create([Project(name="other")])
    with transaction.atomic():
        project.save()
        other.save()
    delete_raw(project)

    task = ran(project.async_task)
    assert task == other.async_task
    assert [item.status for item in task.items.order_by("pk")] == ["failed", "done"]
    assert (task.status, nothing_is_held()) == ("failed", True)
    other.refresh_from_db()
    assert other.effects == 1


def test_work_asked_of_an_object_that_was_deleted(queued, project, unchanged) -> None:
    gone = Project(pk=project.pk + 1, name="gone")
    for call, name in ((gone.rebuild, "rebuild"), (gone.rebuild.enqueue, "rebuild.enqueue")):
        with pytest.raises(PowerCRUDError) as error:
            call()
        said = f"Project.{name} of project {gone.pk}: the object has been deleted."
        assert str(error.value) == said


# ----------------------------------------------------------------------------- work that raises


def broken(project: Project) -> None:
    Part.objects.update(name="written")
    Tag.objects.create(name="written")
    raise ZeroDivisionError("the reason")


@commits
def test_work_that_raises_fails_its_task(queued, project, script) -> None:
    script(broken)
    project.name = "changed"
    project.save()

    task = ran(project.async_task)
    item = task.items.get()
    assert (task.status, item.status) == ("failed", "failed")
    for error in (task.error, item.error):
        assert error.startswith(f"kinds.project {project.pk}: rebuild\nTraceback")
        assert 'raise ZeroDivisionError("the reason")' in error
        assert "in broken" in error
    with pytest.raises(TaskFailed, match=rf"“rebuild project {project.pk}”") as refused:
        task.result()
    assert str(refused.value).endswith("ZeroDivisionError: the reason")
    assert refused.value.task == task
    assert nothing_is_held()

    assert not Part.objects.filter(name="written").exists()
    assert not Tag.objects.exists()
    project.refresh_from_db()
    assert (project.name, project.effects) == ("changed", 0)  # the save itself is not undone


@commits
def test_work_that_raises_leaves_the_items_before_and_after_it(queued, script) -> None:
    projects = Project.objects.bulk_create([Project(name=name) for name in ("a", "b", "c")])
    script(lambda project: broken(project) if project.name == "b" else project.name)
    with transaction.atomic():
        for project in projects:
            project.save()

    task = ran(projects[0].async_task)
    assert [item.status for item in task.items.order_by("pk")] == ["done", "failed", "done"]
    assert [p.effects for p in Project.objects.order_by("pk")] == [1, 0, 1]
    assert (task.status, nothing_is_held()) == ("failed", True)
    assert not Tag.objects.exists()


@pytest.mark.parametrize(
    "call",
    [
        lambda project: project.save(skip_async=True),
        lambda project: project.rebuild(),
        lambda project: async_to_sync(project.asave)(skip_async=True),
    ],
    ids=["save", "call", "asave"],
)
def test_inline_the_exception_is_the_callers_and_the_save_is_undone(
    queued, project, script, call, unchanged
) -> None:
    script(broken)
    project.name = "changed"
    with pytest.raises(ZeroDivisionError, match="the reason"):
        call(project)
    assert current_run() is None


@commits
def test_inline_in_a_block_of_its_own(queued, project, script, unchanged) -> None:
    script(broken)
    project.name = "changed"
    with inline(), pytest.raises(ZeroDivisionError):
        project.save()
    with transaction.atomic(), inline(), pytest.raises(ZeroDivisionError):
        project.save()  # the exception is caught inside the caller's transaction


def test_with_async_off_the_exception_is_the_callers(async_off, project, script, unchanged) -> None:
    script(broken)
    for call in (project.save, project.rebuild, project.rebuild.enqueue):
        with pytest.raises(ZeroDivisionError, match="the reason"):
            call()


@commits
def test_work_that_swallows_a_database_error_is_no_success(immediate, project, script) -> None:
    def work(project) -> None:
        Tag.objects.create(name="written")
        with contextlib.suppress(IntegrityError):
            Tag(pk=Tag.objects.get().pk, name="twice").save(force_insert=True)

    script(work)
    project.save()
    assert project.async_task.status == "failed"
    assert not Tag.objects.exists()
    assert nothing_is_held()


NUL = "\0"
HALF_A_PAIR = "\udc80"  # what os.fsdecode() makes of a byte that is no text


@commits
@pytest.mark.parametrize("text", [NUL, HALF_A_PAIR, f"{NUL} {HALF_A_PAIR} é 😀"])
def test_work_that_raises_what_a_database_cannot_store(queued, project, script, text) -> None:
    def work(project) -> None:
        raise ValueError(text)

    script(work)
    project.save()
    task = ran(project.async_task)
    assert (task.status, nothing_is_held()) == ("failed", True)
    assert "raise ValueError(text)" in task.error
    stored = text.replace(NUL, r"\x00").replace(HALF_A_PAIR, r"\udc80")
    assert stored in task.error
    assert stored in task.items.get().error


@commits
@pytest.mark.parametrize("text", [NUL, HALF_A_PAIR, "whole pair 😀", r"\u0000 \ud800"])
def test_what_a_database_cannot_store_is_returned_or_named(queued, project, script, text) -> None:
    script(lambda project: {"text": [text]})
    project.save()
    task = ran(project.async_task)
    assert (task.status, nothing_is_held()) == ("success", True)
    project.refresh_from_db()
    assert project.effects == 1
    if task.items.get().returned_as_text:
        assert text in (NUL, HALF_A_PAIR)
        with pytest.raises(PowerCRUDError, match=rf"kinds.project {project.pk}: rebuild returned"):
            task.result()
    else:
        assert task.result() == {"text": [text]}


@commits
@pytest.mark.parametrize(
    "value", [object(), {1, 2}, float("nan"), {"deep": [b"bytes"]}, {(1, 2): 3}]
)
def test_a_value_that_json_cannot_carry_is_named(queued, project, script, value) -> None:
    script(lambda project: value)
    project.save()
    task = ran(project.async_task)
    assert task.status == "success"
    with pytest.raises(PowerCRUDError) as error:
        task.result()
    assert str(error.value).startswith(f"kinds.project {project.pk}: rebuild returned ")
    assert "The work is done" in str(error.value)


# ------------------------------------------------------------------- skip_async where it cannot be


def test_skip_async_on_a_model_without_the_mixin(queued, unchanged) -> None:
    tag: Any = Tag(name="t")
    with pytest.raises(
        TypeError, match=r"save\(\) got an unexpected keyword argument 'skip_async'"
    ):
        tag.save(skip_async=True)


ASKS: dict[str, Callable[[Part], object]] = {
    "save": lambda part: part.save(skip_async=False),
    "asave": lambda part: async_to_sync(part.asave)(skip_async=False),
    "tighten.enqueue": lambda part: part.tighten.enqueue(),
}


@commits
@pytest.mark.parametrize("method", list(ASKS))
def test_a_task_of_its_own_inside_a_task(immediate, project, script, method) -> None:
    told = []

    def work(project) -> None:
        part = project.parts.earliest("pk")
        part.name = "changed"
        try:
            ASKS[method](part)
        except PowerCRUDError as error:
            told.append((str(error), get_current_task().key))
            raise

    script(work)
    project.save()
    task = project.async_task
    [(message, key)] = told
    part = Part.objects.earliest("pk")
    name = method.removeprefix("a") if method == "asave" else method
    assert message.startswith(f"Part.{name} of part {part.pk} asks for a task of its own inside ")
    assert f"inside task {key}. A task ends when all that it set in motion has ended" in message
    assert (key, task.status, part.name) == (task.key, "failed", "a")
    assert message in task.error
    assert AsyncTask.objects.count() == 1
    assert nothing_is_held()


@commits
@pytest.mark.parametrize("method", list(ASKS))
def test_a_task_of_its_own_that_was_refused_may_be_survived(
    immediate, project, script, method
) -> None:
    def work(project) -> None:
        part = project.parts.earliest("pk")
        with pytest.raises(PowerCRUDError):
            ASKS[method](part)
        part.name = "inline"
        part.save()

    script(work)
    project.save()
    assert project.async_task.status == "success"
    part = Part.objects.earliest("pk")
    assert (part.name, part.effects) == ("inline", 1)
    assert AsyncTask.objects.count() == TaskItem.objects.count() == 1
    assert nothing_is_held()


@pytest.mark.parametrize("method", list(ASKS))
def test_a_task_of_its_own_inside_an_inline_run(queued, project, script, method, unchanged) -> None:
    script(lambda project: ASKS[method](project.parts.earliest("pk")))
    project.name = "changed"
    with pytest.raises(
        PowerCRUDError, match=r"of part \d+ asks for a task of its own inside an in"
    ):
        project.save(skip_async=True)


@pytest.mark.parametrize("wrong", ["no", 0, 1, "", "false"])
def test_skip_async_is_true_false_or_none(queued, project, unchanged, wrong) -> None:
    for save in (project.save, async_to_sync(project.asave)):
        with pytest.raises(TypeError, match=rf"Project\.save of project {project.pk}: skip_async"):
            save(skip_async=wrong)


# --------------------------------------------------------------------------- Django's own refusals


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"force_insert": True, "force_update": True}, ValueError),
        ({"update_fields": ["nothing"]}, ValueError),
        ({"force_insert": True}, IntegrityError),
        ({"nonsense": True}, TypeError),
    ],
)
def test_what_django_refuses_launches_nothing(queued, project, unchanged, arguments, error) -> None:
    with pytest.raises(error):
        project.save(**arguments)
    assert project.async_task is None


def test_an_update_of_a_row_that_is_gone(queued, project, unchanged) -> None:
    gone = Project(pk=project.pk + 1, name="gone")
    with pytest.raises(DatabaseError):
        gone.save(force_update=True)
    assert gone.async_task is None


# --------------------------------------------------------------------------- broken transactions


def break_it() -> None:
    """What an error inside atomic() leaves behind when it is caught too early."""
    with pytest.raises(IntegrityError):
        Tag(pk=Tag.objects.create(name="t").pk, name="t").save(force_insert=True)


def break_it_in_sql() -> None:
    """The same without Django's knowing."""
    with pytest.raises(DatabaseError):
        raw("SELECT nothing FROM nowhere")


BREAKS = [break_it, break_it_in_sql]
if connection.vendor != "postgresql":
    BREAKS.remove(break_it_in_sql)  # others go on after an error


CALLS: dict[str, Callable[[Project], object]] = {
    "Project.save": lambda project: project.save(),
    "Project.save, inline": lambda project: project.save(skip_async=True),
    "Project.save, empty": lambda project: Project(name="new").save(),
    "Project.delete": lambda project: project.delete(),
    "Project.rebuild": lambda project: project.rebuild(),
    "Project.rebuild.enqueue": lambda project: project.rebuild.enqueue(),
    "Bolt.save": lambda project: Bolt(name="b", part=project.parts.model(pk=1)).save(),
}


@pytest.mark.parametrize("guard", [True, False], ids=["guard on", "guard off"])
@pytest.mark.parametrize("breaking", BREAKS)
@pytest.mark.parametrize("call", list(CALLS))
def test_a_broken_transaction(settings, project, breaking, call, guard, unchanged) -> None:
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "GUARD_WRITES": guard}
    with undone():
        breaking()
        with pytest.raises(TransactionManagementError) as error:
            CALLS[call](project)
        name, _, kind = call.partition(", ")
        pk = None if kind == "empty" or name == "Bolt.save" else project.pk
        said = f"{name} of {name.partition('.')[0].lower()} {pk}: an error has broken the transac"
        assert str(error.value).startswith(said)


@commits
def test_after_the_broken_transaction_it_can_be_saved(queued, project) -> None:
    with undone():
        break_it()
    project.save()
    assert ran(project.async_task).status == "success"


@commits
def test_a_savepoint_that_was_rolled_back_breaks_nothing(queued, project) -> None:
    with transaction.atomic():
        with pytest.raises(IntegrityError), transaction.atomic():
            Tag(pk=Tag.objects.create(name="t").pk, name="t").save(force_insert=True)
        project.save()
    assert ran(project.async_task).status == "success"


# ------------------------------------------------------------- results that nobody could wait for


@commits
def test_result_inside_the_launching_transaction(queued, project) -> None:
    with transaction.atomic():
        project.save()
        task = project.async_task
        for block in (transaction.atomic(savepoint=False), transaction.atomic()):
            with block, pytest.raises(PowerCRUDError) as error:
                task.result(timeout=0.1)
            assert str(error.value) == (
                f"Waiting here for the result of “rebuild project {project.pk}” would never end: "
                "it is queued when this transaction commits. Ask for it after the commit."
            )
    assert ran(task).result() is None
    assert nothing_is_held()


@commits
def test_result_of_a_task_that_a_savepoint_took_back(queued, project) -> None:
    with transaction.atomic():
        with undone():
            project.save()
            task = project.async_task
        assert project.async_task is None
        with pytest.raises(AsyncTask.DoesNotExist):
            task.result(timeout=0)
    assert not AsyncTask.objects.exists()
    assert nothing_is_held()


@commits
def test_result_of_the_task_that_is_running_here(immediate, project, script) -> None:
    script(lambda project: get_current_task().result(timeout=0.1))
    project.save()
    task = project.async_task
    assert task.status == "failed"
    waiting = f"PowerCRUDError: Waiting here for the result of “rebuild project {project.pk}”"
    assert f"{waiting} would never end: this code is part of it." in task.error


@commits
def test_result_in_time(queued, project) -> None:
    project.save()
    with pytest.raises(
        TimeoutError, match=rf"“rebuild project {project.pk}”.* not ended within 0 s"
    ):
        project.async_task.result(timeout=0)
    assert project.async_task.status == "pending"
