"""A worker that gave no sign of life for too long, and goes on when another has done its task."""

from __future__ import annotations

from collections.abc import Callable

from powercrud_models import LeaseLost
from powercrud_models.models import AsyncTask
from powercrud_models.tasks import run_task
from tests.deliveries import expire_lease
from tests.kinds.models import Crew, Member
from tests.stage import Stage

SECOND = "by the second worker"
"""What the task has returned in the end, if the stale worker has not had its way."""


def overtake(
    stage: Stage, crew: Crew, member: Member, write: Callable[[Crew, Member], object]
) -> tuple[AsyncTask, list[LeaseLost]]:
    """Let work in autocommit write when its task has been taken over.

    Returns the task, and what the write has raised: without an error in it, the write went on.
    """
    stopped = stage.stop()
    raised: list[LeaseLost] = []

    def work(crew: Crew) -> str:
        if stopped.was_reached:
            return SECOND
        stopped.wait_here()
        member.name = "written by the stale worker"
        try:
            write(crew, member)
        except LeaseLost as lost:
            raised.append(lost)
            raise
        return "by the stale worker"

    Crew.script = work
    task: AsyncTask = crew.post.enqueue()
    stale = stage.act(lambda: run_task(task.key), "stale worker")
    stopped.wait_until_reached()
    expire_lease(task.key)
    run_task(task.key)
    stopped.let_go()
    stale.result()
    return task, raised
