"""Promise 10: a rollback leaves no row, no lock, no message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
from django.db import transaction

from tests.deliveries import (
    NOTHING,
    rows,
    undone,
)
from tests.kinds.models import Project
from tests.promises.made import effects, make_project, name_of

pytestmark = pytest.mark.django_db(transaction=True)


Outer = Callable[[], AbstractContextManager[object]]
in_each_scope = pytest.mark.parametrize(
    "outer", [nullcontext, transaction.atomic], ids=["transaction", "savepoint"]
)


@in_each_scope
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda project: project.save(), id="save"),
        pytest.param(lambda project: project.save(skip_async=True), id="inline save"),
        pytest.param(lambda project: project.rebuild(), id="direct call"),
        pytest.param(lambda project: project.rebuild.enqueue(), id="enqueue"),
    ],
)
def test_no_row_no_lock_no_message(
    queued: None, ask: Callable[[Project], object], outer: Outer
) -> None:
    project = make_project(parts=3)
    project.name = "changed"

    with outer(), undone():
        ask(project)

    assert rows() == NOTHING
    assert (name_of(project), effects(project)) == ("bridge", 0)


@in_each_scope
def test_nothing_runs_in_this_process_either(immediate: None, outer: Outer) -> None:
    project = make_project()
    with outer(), undone():
        project.save()
    assert rows() == NOTHING
    assert effects(project) == 0


def test_work_that_raises_inline_takes_its_save_with_it(async_off: None) -> None:
    project = make_project(parts=3)
    project.name = "changed"
    Project.script = lambda project: 1 / 0

    with transaction.atomic(), pytest.raises(ZeroDivisionError):
        project.save()

    assert rows() == NOTHING
    assert (name_of(project), effects(project)) == ("bridge", 0)


def test_enqueue_with_async_off_leaves_nothing_of_work_that_raises(async_off: None) -> None:
    project = make_project(parts=3)
    Project.script = lambda project: 1 / 0

    with transaction.atomic(), pytest.raises(ZeroDivisionError):
        project.rebuild.enqueue()

    assert rows() == NOTHING
    assert effects(project) == 0
