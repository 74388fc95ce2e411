"""Promise 3: a launch gets every lock it asked for or none, and its write is undone with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction

from powercrud_models import ConflictError
from powercrud_models.models import ObjectLock
from powercrud_models.types import ObjectKey
from tests.deliveries import (
    NOTHING,
    held_by,
    rows,
)
from tests.kinds.models import Crew, Member, Part, Project, Tag
from tests.promises.made import effects, make_project, name_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


MANY = 200


@pytest.mark.parametrize("position", [0, MANY // 2, MANY - 1])
def test_one_conflict_among_many_descendants_undoes_everything(position: int) -> None:
    project = make_project(parts=MANY)
    held = Part.objects.order_by("pk")[position]
    held.save()
    before = rows()
    project.name = "changed"

    with pytest.raises(ConflictError) as caught:
        project.save()

    (conflict,) = caught.value.conflicts
    assert (conflict.model, conflict.pk, conflict.holder) == (Part, held.pk, held.async_task)
    assert rows() == before
    assert name_of(project) == "bridge"


def test_every_holder_is_named() -> None:
    project = make_project(parts=5)
    first, second = Part.objects.order_by("pk")[1:3]
    first.save()
    second.save()

    with pytest.raises(ConflictError) as caught:
        project.save()

    assert {(conflict.pk, conflict.holder) for conflict in caught.value.conflicts} == {
        (first.pk, first.async_task),
        (second.pk, second.async_task),
    }
    assert f"part {first.pk} is held by the task “tighten part {first.pk}”" in str(caught.value)


def test_what_is_locked_without_the_mixin_conflicts_as_well() -> None:
    one, other = make_project("one"), make_project("other")
    tag = Tag.objects.create(name="shared")
    one.tags.add(tag)
    other.tags.add(tag)
    one.save()
    before = rows()
    other.name = "changed"

    with pytest.raises(ConflictError, match=f"tag {tag.pk} is held by"):
        other.save()

    assert rows() == before
    assert name_of(other) == "other"


def test_the_write_is_undone_even_where_its_error_is_caught() -> None:
    project, bystander = make_project(parts=MANY), make_project("bystander")
    held = Part.objects.order_by("pk")[MANY // 2]
    held.save()
    before = rows()
    project.name = "changed"

    with transaction.atomic():
        Project.objects.filter(pk=bystander.pk).update(name="written before")
        with pytest.raises(ConflictError):
            project.save()
        Project.objects.filter(pk=bystander.pk).update(effects=7)

    assert name_of(project) == "bridge"
    assert (name_of(bystander), effects(bystander)) == ("written before", 7)
    assert rows() == before


def test_a_new_row_is_undone() -> None:
    crew = Crew.objects.create(name="night")
    before = rows()
    assert crew.holder is not None

    with transaction.atomic(), pytest.raises(ConflictError):
        Member(name="Ada", crew=crew).save()

    assert not Member.objects.exists()
    assert rows() == before


def test_a_refused_launch_leaves_the_one_before_it_whole() -> None:
    one, other = make_project("one", parts=2), make_project("other", parts=MANY)
    held = Part.objects.filter(project=other).order_by("pk")[MANY // 2]
    held.save()

    with transaction.atomic():
        one.save()
        with pytest.raises(ConflictError):
            other.save()

    task = one.async_task
    assert [item.object_id for item in task.items.all()] == [str(one.pk)]
    assert held_by(task.key) == {
        ObjectKey.of(obj) for obj in (one, *Part.objects.filter(project=one))
    }


def test_inline_work_leaves_no_lock_and_no_effect_of_a_conflict() -> None:
    project = make_project(parts=MANY)
    held = Part.objects.order_by("pk")[MANY // 2]
    held.save()
    before = rows()
    project.name = "changed"

    with transaction.atomic(), pytest.raises(ConflictError):
        project.save(skip_async=True)

    assert rows() == before
    assert (name_of(project), effects(project)) == ("bridge", 0)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(lambda project: project.save(skip_async=True), id="save"),
        pytest.param(lambda project: project.rebuild(), id="direct call"),
    ],
)
def test_inline_work_holds_its_locks_for_the_call_alone(run: Callable[[Project], object]) -> None:
    project = make_project(parts=2)
    locked: list[set[tuple[str, str]]] = []
    owners: set[str] = set()

    def look(project: Project) -> None:
        Part.objects.order_by("pk")[0].save()
        locks = ObjectLock.objects.values_list("model", "object_id", "task_id")
        locked.append({(model, pk) for model, pk, _ in locks})
        owners.update(owner for *_, owner in locks)

    Project.script = look
    run(project)

    assert locked == [{ObjectKey.of(obj) for obj in (project, *Part.objects.all())}]
    assert len(owners) == 1
    assert rows() == NOTHING
    assert effects(project) == 1
