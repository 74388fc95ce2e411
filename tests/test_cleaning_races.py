"""The record of a task that ended long ago is deleted while somebody tries that task again."""

from __future__ import annotations

import pytest
from django.db import connection, transaction

from powercrud_models import PowerCRUDError
from powercrud_models.clock import clock_plus
from powercrud_models.conf import get_conf
from powercrud_models.lifecycle import sweep
from powercrud_models.models import AsyncTask
from tests.deliveries import NOTHING, deliver, rows
from tests.kinds.models import Project
from tests.stage import Stage

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("queued"),
    pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="SQLite has one writer: the sweep waits for it",
    ),
]


@pytest.fixture
def old(project: Project, task: AsyncTask) -> AsyncTask:
    """A task that was cancelled so long ago that a sweep deletes it."""
    task.cancel()
    long_ago = clock_plus(-get_conf().CLEANUP_GRACE_PERIOD - 10)
    AsyncTask.objects.update(finished_at=long_ago)
    return task


def test_one_that_is_just_tried_again_is_kept(old: AsyncTask, stage: Stage) -> None:
    tried = stage.stop()

    def retry() -> None:
        with transaction.atomic():
            old.retry()
            tried.wait_here()

    trier = stage.act(retry, "who tries it again")
    tried.wait_until_reached()
    assert stage.act(sweep, "sweep").result()["deleted"] == 0
    tried.let_go()
    trier.result()
    assert deliver() == 1
    old.refresh_from_db()
    assert (old.status, old.items.get().status) == (AsyncTask.Status.SUCCESS, "done")
    assert Project.objects.get().effects == 1


def test_who_comes_too_late_is_told_and_leaves_nothing(old: AsyncTask, stage: Stage) -> None:
    deleting = stage.stop()

    def clean() -> dict[str, int]:
        with deleting.at("before", 'DELETE FROM "powercrud_models_taskitem"'):
            return sweep()

    sweeper = stage.act(clean, "sweep")
    deleting.wait_until_reached()
    trier = stage.act(old.retry, "who tries it again")
    trier.wait_until_blocked()
    deleting.let_go()
    assert sweeper.result()["deleted"] == 1
    assert isinstance(trier.error(), PowerCRUDError)
    assert rows() == NOTHING
