"""A process may die at any step: no stuck lock, no false success, no lost save, nothing twice."""

from __future__ import annotations

from typing import Literal

import pytest
from django.db import transaction

from powercrud_models.models import AsyncTask
from powercrud_models.testing import assert_survives_crashes, run_queued
from tests.kinds.models import Clock, Crew, Member, Part, Project
from tests.promises.made import effects, make_crew, make_project, name_of

with_both = pytest.mark.parametrize(
    "by",
    [
        pytest.param("exception", marks=pytest.mark.django_db),
        pytest.param("sigkill", marks=pytest.mark.django_db(transaction=True)),
    ],
)
By = Literal["exception", "sigkill"]


def make_clocks() -> list[Clock]:
    return Clock.objects.bulk_create([Clock(), Clock()])


def strikes(clocks: list[Clock]) -> list[int]:
    mine = Clock.objects.filter(pk__in=[clock.pk for clock in clocks]).order_by("pk")
    return list(mine.values_list("strikes", flat=True))


def named_effects(project: Project) -> tuple[str, int, list[int]]:
    parts = Part.objects.filter(project=project).values_list("effects", flat=True)
    return name_of(project), effects(project), sorted(parts)


@with_both
def test_the_work_of_a_save(by: By) -> None:
    report = assert_survives_crashes(
        arrange=make_clocks, act=lambda clocks: clocks[0].save(), effects=strikes, by=by
    )
    assert report.steps > 10


@pytest.mark.django_db
def test_several_items_of_one_transaction() -> None:
    def act(clocks: list[Clock]) -> None:
        with transaction.atomic():
            for clock in clocks:
                clock.strikes = 10
                clock.save()

    assert assert_survives_crashes(arrange=make_clocks, act=act, effects=strikes).steps


@pytest.mark.django_db
def test_a_save_and_its_nested_saves() -> None:
    """They run inline: with the work of the part, which is a descendant."""

    def act(project: Project) -> None:
        project.name = "tunnel"
        project.save()

    def rebuild(project: Project) -> None:
        for part in project.parts.all():
            part.save()

    Project.script = rebuild
    assert assert_survives_crashes(
        arrange=lambda: make_project(parts=1), act=act, effects=named_effects
    ).steps


@with_both
def test_autocommit_work_that_bears_repetition(by: By) -> None:
    def post(crew: Crew) -> None:
        for member in Member.objects.filter(crew=crew):
            member.name = f"{member.name[:3]} of the {crew.name} crew"
            member.save()

    Crew.script = post
    assert assert_survives_crashes(
        arrange=make_crew,
        act=lambda made: made[0].post.enqueue(),
        effects=lambda made: name_of(made[1]),
        by=by,
    ).steps


@pytest.mark.django_db
def test_a_cancel() -> None:
    """Without it the task runs: whoever dies before the commit has not cancelled."""

    def launch() -> Clock:
        [clock, _] = make_clocks()
        clock.save()
        return clock

    assert assert_survives_crashes(
        arrange=launch,
        run_first=False,
        act=lambda clock: clock.async_task.cancel(),
        effects=lambda clock: strikes([clock]),
    ).steps


@pytest.mark.django_db
def test_a_retry() -> None:
    def fail() -> tuple[Clock, AsyncTask]:
        [clock, _] = make_clocks()
        Clock.script = lambda clock: 1 / 0
        task = clock.wind.enqueue()
        run_queued(raise_errors=False)
        task.refresh_from_db()
        Clock.script = lambda clock: Clock.objects.filter(pk=clock.pk).update(strikes=12)
        return clock, task

    assert assert_survives_crashes(
        arrange=fail,
        act=lambda failed: failed[1].retry(),
        effects=lambda failed: strikes([failed[0]]),
    ).steps
