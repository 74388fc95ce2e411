"""A session that a heartbeat keeps awake is one that the work uses meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, connections, transaction

from powercrud_models.sessions import keep_awake, kept_awake
from tests.kinds.models import Project
from tests.stage import DEADLINE, Stage

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("queued"),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no sessions"),
]


@pytest.mark.skipif(connection.vendor != "mysql", reason="psycopg has a lock of its own")
@pytest.mark.parametrize("talk", ["commit", "rollback", "query"])
def test_whoever_uses_it_waits_until_the_heartbeat_has_its_answer(stage: Stage, talk: str) -> None:
    mine = connections["default"]
    asked, has_talked, interrupted = threading.Event(), threading.Event(), list[bool]()

    def slow_in_the_heartbeat(*query: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            asked.set()
            interrupted.append(has_talked.wait(0.3))
        return answer(*query)

    with kept_awake(mine):
        with transaction.atomic():
            Project.objects.create(name="bridge")
            session: Any = mine.connection
            answer = session.query
            session.query = slow_in_the_heartbeat
            heart = stage.act(lambda: keep_awake(mine), "heartbeat")
            assert asked.wait(DEADLINE)
            transaction.set_rollback(talk == "rollback")
            if talk == "query":
                Project.objects.count()
                has_talked.set()
        has_talked.set()
        heart.result()
        del session.query
    assert interrupted == [False]


def test_a_task_in_a_task_leaves_the_outer_one_as_it_was() -> None:
    mine = connections["default"]
    with kept_awake(mine):
        with transaction.atomic(), kept_awake(mine):
            Project.objects.create(name="inner")
        with transaction.atomic():
            Project.objects.create(name="outer")
            keep_awake(mine)
    assert Project.objects.count() == 2
