"""Tasks whose works are declared wrongly by now: new code was deployed without its checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from powercrud_models import async_method, descendants
from powercrud_models.declarations import works_of
from powercrud_models.lifecycle import sweep
from powercrud_models.models import AsyncTask, ObjectLock
from tests.deliveries import deliver, die, lose_messages, messages
from tests.kinds.declared import Attempt

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status
Deploy = Callable[[], None]
REASON = "Attempt.wander: @descendants('nowhere')"


@pytest.fixture
def attempt(db: None) -> Attempt:
    return Attempt.objects.create()


def wander(attempt: Attempt) -> None: ...


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploy]:
    """Declare a path that does not exist, as if the class had been loaded with it."""

    def deploy() -> None:
        works_of.cache_clear()
        work = async_method(descendants("nowhere")(wander))
        monkeypatch.setattr(Attempt, "wander", work, raising=False)

    yield deploy
    monkeypatch.undo()
    works_of.cache_clear()


def test_the_item_fails_and_says_why(attempt: Attempt, deploy: Deploy) -> None:
    task = attempt.persist.enqueue()
    deploy()
    deliver()
    task.refresh_from_db()
    assert task.status == Status.FAILED
    assert REASON in task.error
    assert not ObjectLock.objects.exists()


def test_a_dead_workers_task_is_sent_again_as_often_as_without_options(
    attempt: Attempt, deploy: Deploy
) -> None:
    task = attempt.once_only.enqueue()
    lose_messages()
    die(task)
    deploy()
    assert sweep() == {"sent": 1, "failed": 0, "released": 0, "deleted": 0}
    assert messages() == [task.key]
    deliver()
    task.refresh_from_db()
    assert (task.status, task.recoveries) == (Status.FAILED, 1)
    assert REASON in task.error
    assert not ObjectLock.objects.exists()
