"""Work in autocommit that was taken over writes nothing more, guard or no guard."""

from __future__ import annotations

import pytest

from powercrud_models import LeaseLost
from powercrud_models.tasks import run_task
from tests.deliveries import expire_lease
from tests.kinds.models import Crew, Member
from tests.promises.made import make_crew, name_of
from tests.stage import Stage

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
    stopped = stage.stop()
    raised: list[BaseException] = []

    def work(crew: Crew) -> str:
        if stopped.was_reached:
            return "by the second worker"
        stopped.wait_here()
        member.name = "written by the stale worker"
        try:
            getattr(member, write)()
        except LeaseLost as lost:
            raised.append(lost)
            raise
        return "by the stale worker"

    Crew.script = work
    task = crew.post.enqueue()
    stale = stage.act(lambda: run_task(task.key), "stale worker")
    stopped.wait_until_reached()
    expire_lease(task.key)
    run_task(task.key)
    stopped.let_go()
    stale.result()

    assert len(raised) == 1
    assert Member.objects.get() == member
    assert name_of(member) == "Ada"
    assert task.result() == "by the second worker"
