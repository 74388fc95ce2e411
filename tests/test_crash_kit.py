"""``assert_survives_crashes``: it finds what does not survive, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from django.db import connection, transaction

from powercrud_models import PowerCRUDError
from powercrud_models.models import AsyncTask
from powercrud_models.testing import assert_survives_crashes, queue_tasks
from tests.deliveries import rows
from tests.kinds.models import Clock, Crew, Machine, Member, Project, Tag
from tests.promises.made import effects, make_crew, make_project, name_of
from tests.stage import in_standard_quotes

Lane = Callable[..., object]


@pytest.fixture(
    params=[
        pytest.param("exception", marks=pytest.mark.django_db),
        pytest.param("sigkill", marks=pytest.mark.django_db(transaction=True)),
    ]
)
def crash(request: pytest.FixtureRequest) -> Lane:
    """The kit, once with each way to die."""
    return partial(assert_survives_crashes, by=request.param)


def make_clock() -> Clock:
    (clock,) = Clock.objects.bulk_create([Clock()])
    return clock


def strikes(clock: Clock) -> int:
    return Clock.objects.values_list("strikes", flat=True).get(pk=clock.pk)


def make_machine() -> Machine:
    (machine,) = Machine.objects.bulk_create([Machine(name="loom")])
    return machine


def machine_effects(machine: Machine) -> int:
    return Machine.objects.values_list("effects", flat=True).get(pk=machine.pk)


def rename(project: Project) -> None:
    Project.objects.filter(pk=project.pk).update(name="tunnel")


class TestWhatItFinds:
    def test_autocommit_work_that_does_not_bear_repetition(self, crash: Lane) -> None:
        with pytest.raises(AssertionError) as found:
            crash(arrange=make_machine, act=Machine.save, effects=machine_effects)
        assert str(found.value).startswith("A crash of the worker at step ")
        assert str(found.value).endswith("the effects are 2 (success) instead of 1 (success)")

    def test_a_save_that_commits_without_its_work(self, crash: Lane) -> None:
        def act(project: Project) -> None:
            rename(project)  # a transaction of its own
            project.rebuild.enqueue()

        with pytest.raises(AssertionError) as found:
            crash(
                arrange=make_project, act=act, effects=lambda each: (name_of(each), effects(each))
            )
        assert str(found.value).startswith("A crash of act at step ")
        assert str(found.value).endswith(
            "the effects are ('tunnel', 0) (no task) instead of ('tunnel', 1) (success), or, as "
            "without act, ('bridge', 0) (no task)"
        )

    @pytest.mark.django_db
    def test_work_that_leaves_it_to_a_callback(self) -> None:
        """What follows the commit is lost with the process."""

        def strike(clock: Clock) -> None:
            clocks = Clock.objects.filter(pk=clock.pk)
            transaction.on_commit(lambda: clocks.update(strikes=12) and None)

        Clock.script = strike
        with pytest.raises(AssertionError) as found:
            assert_survives_crashes(
                arrange=make_clock, act=lambda clock: clock.wind.enqueue(), effects=strikes
            )
        assert str(found.value).startswith("A crash of the worker at step ")
        assert str(found.value).endswith("the effects are 0 (success) instead of 12 (success)")

    def test_work_that_fails_without_any_crash(self, crash: Lane) -> None:
        Clock.script = lambda clock: 1 / 0
        with pytest.raises(
            AssertionError, match=r"(?s)Without any crash: .*ZeroDivisionError"
        ) as found:
            crash(arrange=make_clock, act=lambda clock: clock.wind.enqueue(), effects=strikes)
        assert "step" not in str(found.value)

    def test_an_act_that_launches_nothing(self, crash: Lane) -> None:
        with pytest.raises(AssertionError, match="act has launched no task"):
            crash(arrange=make_project, act=rename, effects=name_of)

    def test_effects_that_cannot_tell(self, crash: Lane) -> None:
        with pytest.raises(AssertionError, match="'bridge' with act and without it"):
            crash(arrange=make_project, act=Project.save, effects=name_of)

    def test_an_error_of_act(self, crash: Lane) -> None:
        with pytest.raises((ZeroDivisionError, AssertionError)) as found:
            crash(arrange=make_clock, act=lambda clock: 1 / 0, effects=strikes)
        shown = "\n".join([str(found.value), *getattr(found.value, "__notes__", [])])
        assert "Without any crash" in shown
        assert "ZeroDivisionError" in shown + repr(found.value)


class TestByException:
    """What is simulated is what a database and a dead process do."""

    @pytest.mark.django_db
    def test_a_dead_process_writes_nothing(self) -> None:
        def post(crew: Crew) -> None:
            try:
                Member.objects.update(name="Bob")
            except BaseException:
                Crew.objects.update(name="renamed by the dead")
                Crew.objects.update(name="and once more")
                raise

        Crew.script = post
        report = assert_survives_crashes(
            arrange=make_crew,
            act=lambda made: made[0].post.enqueue(),
            effects=lambda made: list(map(name_of, made)),
        )
        assert any(
            'UPDATE "kinds_member"' in in_standard_quotes(each) for each in report.statements
        )
        assert report.steps == len(report.statements) > 10

    @pytest.mark.django_db
    def test_a_dead_process_that_keeps_silent_is_dead_all_the_same(self) -> None:
        def act(clock: Clock) -> None:
            try:
                clock.save()
            except BaseException:  # noqa: BLE001  whatever it is
                return

        assert assert_survives_crashes(arrange=make_clock, act=act, effects=strikes).steps

    @pytest.mark.django_db
    def test_blocks_without_a_savepoint_are_transactions(self) -> None:
        """What came before such a block is committed, and repeated, when it dies in the block."""

        def post(crew: Crew) -> None:
            Tag.objects.create(name="new")
            with transaction.atomic(savepoint=False):
                Tag.objects.update(name="old")

        Crew.script = post
        with pytest.raises(AssertionError) as found:
            assert_survives_crashes(
                arrange=make_crew,
                act=lambda made: made[0].post.enqueue(),
                effects=lambda made: Tag.objects.values_list("name", flat=True),
            )
        assert 'in front of “UPDATE "kinds_tag"' in in_standard_quotes(str(found.value))
        assert "the effects are ['old', 'old'] (success) instead of ['old']" in str(found.value)

    @pytest.mark.django_db(transaction=True)
    def test_it_leaves_nothing_behind(self) -> None:
        clock = make_clock()
        with queue_tasks():
            clock.save()
            before = rows()
            assert_survives_crashes(arrange=make_clock, act=Clock.save, effects=strikes)
            with pytest.raises(AssertionError):
                assert_survives_crashes(
                    arrange=make_machine, act=Machine.save, effects=machine_effects
                )
        assert rows() == before
        assert [strikes(each) for each in Clock.objects.all()] == [0]
        assert not connection.in_atomic_block
        assert not Machine.objects.exists()

    @pytest.mark.django_db
    def test_it_is_refused_inside_a_transaction(self) -> None:
        with transaction.atomic(), pytest.raises(PowerCRUDError, match="outside of atomic"):
            assert_survives_crashes(arrange=make_clock, act=Clock.save, effects=strikes)


class TestBySigkill:
    @pytest.mark.django_db(transaction=True)
    def test_a_process_that_hangs_is_killed(self, tmp_path: Path) -> None:
        pid = tmp_path / "pid"

        def hang(clock: Clock) -> None:
            pid.write_text(str(os.getpid()))
            threading.Event().wait()

        with pytest.raises(AssertionError, match="has not ended within 1 s; it is killed"):
            assert_survives_crashes(
                arrange=make_clock, act=hang, effects=strikes, by="sigkill", seconds=1
            )
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)

    @pytest.mark.django_db(transaction=True)
    def test_its_traceback_is_shown(self) -> None:
        def act(clock: Clock) -> None:
            raise SystemExit("said by the child")

        with pytest.raises(AssertionError, match=r"(?s)Without any crash.*said by the child"):
            assert_survives_crashes(arrange=make_clock, act=act, effects=strikes, by="sigkill")

    @pytest.mark.django_db(transaction=True)
    def test_a_kill_by_somebody_else_is_no_step(self) -> None:
        def act(clock: Clock) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        with pytest.raises(AssertionError, match="Another sent signal 9"):
            assert_survives_crashes(arrange=make_clock, act=act, effects=strikes, by="sigkill")

    @pytest.mark.django_db
    def test_it_is_refused_where_nothing_commits(self) -> None:
        with pytest.raises(PowerCRUDError, match="TransactionTestCase"):
            assert_survives_crashes(
                arrange=make_clock, act=Clock.save, effects=strikes, by="sigkill"
            )

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.skipif(connection.vendor != "sqlite", reason="another database is never in memory")
    def test_it_is_refused_in_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(connection.settings_dict, "NAME", ":memory:")
        with pytest.raises(PowerCRUDError, match="cannot see a database in memory"):
            assert_survives_crashes(
                arrange=make_clock, act=Clock.save, effects=strikes, by="sigkill"
            )


@pytest.mark.django_db
def test_another_way_to_die_is_refused() -> None:
    with pytest.raises(ValueError, match="by='sigterm': it must be 'exception' or 'sigkill'"):
        assert_survives_crashes(
            arrange=make_clock,
            act=Clock.save,
            effects=strikes,
            by="sigterm",  # type: ignore[arg-type]
        )
    assert not AsyncTask.objects.exists()
