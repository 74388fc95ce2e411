"""Work in autocommit that was taken over writes nothing more, guard or no guard."""

from __future__ import annotations

import pytest

from tests.kinds.models import Member
from tests.promises.made import make_crew, name_of
from tests.stage import Stage
from tests.takeover import SECOND, overtake

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("write", ["save", "delete"])
def test_without_the_guard_stale_work_is_stopped_at_its_next_write(
    stage: Stage, settings, write: str
) -> None:
    settings.POWERCRUD_SETTINGS = {
        "ASYNC_ENABLED": True,
        "QUEUE": "django-q2",
        "GUARD_WRITES": False,
    }
    crew, member = make_crew()
    task, raised = overtake(stage, crew, member, lambda _, member: getattr(member, write)())
    assert len(raised) == 1
    assert Member.objects.get() == member
    assert name_of(member) == "Ada"
    assert task.result() == SECOND
