"""``on="create"``: which saves create a row, and what is left of one that was refused."""

from __future__ import annotations

import pytest

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from tests.deliveries import deliver, task_of
from tests.kinds.models import Crew, Member
from tests.promises.made import make_crew

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status


def works() -> list[tuple[str, str]]:
    """What is asked for, on which object."""
    return list(TaskItem.objects.order_by("pk").values_list("work", "object_id"))


def test_the_copy_idiom_creates_a_row() -> None:
    _, member = make_crew()
    member = Member.objects.get()
    first = member.pk
    member.pk = None
    member.save()

    assert Member.objects.count() == 2
    assert member.pk != first
    assert works() == [("welcome", str(member.pk))]
    deliver()
    assert task_of(member).status == Status.SUCCESS


def test_the_next_save_of_a_copy_creates_nothing() -> None:
    _, member = make_crew()
    member.pk = None
    member.save()
    deliver()
    member.save()
    assert len(works()) == 1


def test_a_refused_create_may_be_tried_again() -> None:
    crew, _ = make_crew()
    crew.save()
    new = Member(name="Grace", crew=crew)
    with pytest.raises(ConflictError) as refused:
        new.save()
    [conflict] = refused.value.conflicts
    assert (conflict.model, conflict.pk) == (Crew, crew.pk)
    assert new._state.adding
    assert new.async_task is None
    assert not Member.objects.filter(name="Grace").exists()

    deliver()
    new.save()

    assert Member.objects.get(name="Grace") == new
    assert not new._state.adding
    assert works()[1:] == [("welcome", str(new.pk))]
    deliver()
    assert task_of(new).status == Status.SUCCESS
    assert not ObjectLock.objects.exists()


def test_a_refused_create_does_not_overwrite_a_row_that_came_since() -> None:
    """SQLite takes the number of an undone row back, and gives it to the next one."""
    crew, _ = make_crew()
    crew.save()
    new = Member(name="Grace", crew=crew)
    with pytest.raises(ConflictError):
        new.save()
    Member.objects.bulk_create([Member(name="Mary")])

    deliver()
    new.save()

    assert set(Member.objects.values_list("name", flat=True)) == {"Ada", "Grace", "Mary"}


def test_a_refused_copy_may_be_tried_again() -> None:
    crew, member = make_crew()
    crew.save()
    copy = Member.objects.get()
    copy.pk = None
    with pytest.raises(ConflictError):
        copy.save()

    deliver()
    copy.save()

    assert copy.pk != member.pk
    assert Member.objects.count() == 2
    assert works()[1:] == [("welcome", str(copy.pk))]
