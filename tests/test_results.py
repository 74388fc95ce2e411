"""``result()``: how long it waits, and what it says of a task whose user is gone."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from powercrud_models import acting_user
from powercrud_models.exceptions import TaskFailed
from powercrud_models.models import AsyncTask
from tests.deliveries import deliver, task_of
from tests.kinds.models import Project
from tests.promises.made import make_project

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


def test_a_user_who_was_deleted_by_raw_sql_is_left_out_of_the_messages() -> None:
    user = get_user_model().objects.create(username="ada")
    project = make_project()
    Project.script = lambda project: 1 / 0
    with acting_user(user):
        project.save()
    assert " by ada at " in task_of(project).describe()
    deliver()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM auth_user WHERE id = %s", [user.pk])
    task = AsyncTask.objects.get()
    assert task.user_id == user.pk

    with pytest.raises(TaskFailed) as failed:
        task.result()
    assert "ZeroDivisionError" in str(failed.value)
    assert task.label in str(failed.value)
    assert ", started at " in task.describe()


@pytest.mark.parametrize("timeout", [0.03, 0.05, 0.1])
def test_a_timeout_is_waited_out(timeout: float) -> None:
    project = make_project()
    project.save()
    task = task_of(project)

    begun = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"has not ended within {timeout} s\."):
        task.result(timeout=timeout)
    assert time.monotonic() - begun >= timeout
