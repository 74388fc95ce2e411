"""The main job on a real qcluster: tasks that are locked, watched, killed, and finished once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.forms import inlineformset_factory, modelform_factory
from library.models import Book, Scene, Speech
from library.plays import count_lines, count_words, find_plays

from powercrud_models import ConflictError, acting_user
from powercrud_models.exceptions import TaskFailed
from powercrud_models.lifecycle import send, sweep
from powercrud_models.lifecycle.claiming import expired
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem, TaskPulse
from tests import scripts
from tests.cluster import Cluster
from tests.gates import PATIENCE, until
from tests.kinds.models import Gear, Machine, Scripted, Tooth
from tests.machines import effects, items, keys, locks, new_gear, new_machine, new_tooth, saved

pytestmark = pytest.mark.cluster

Status = AsyncTask.Status


@pytest.fixture(scope="module")
def shared_cluster(
    django_db_setup: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture
def idle_cluster(
    shared_cluster: Cluster, transactional_db: None, queued: None
) -> Iterator[Cluster]:
    """A cluster to be started; what it printed is shown when the test fails."""
    start = shared_cluster.log_size
    shared_cluster.reset()
    yield shared_cluster
    shared_cluster.open_all_gates()
    try:
        shared_cluster.wait_until_idle()
    except TimeoutError:
        shared_cluster.stop()
        raise
    finally:
        sys.stdout.write(shared_cluster.log(start))


@pytest.fixture
def cluster(idle_cluster: Cluster) -> Cluster:
    """A cluster whose leases last longer than any test takes."""
    idle_cluster.start()
    return idle_cluster


@pytest.fixture
def mortal_cluster(idle_cluster: Cluster, settings: Any) -> Cluster:
    """A cluster to be killed: leases last two seconds, for tasks launched by the test as well."""
    settings.POWERCRUD_SETTINGS = {
        **settings.POWERCRUD_SETTINGS,
        "LEASE_SECONDS": 2,
        "HEARTBEAT_SECONDS": 1,
    }
    idle_cluster.start(lease_seconds=2)
    return idle_cluster


def sweep_until_finished(*tasks: AsyncTask) -> None:
    def all_have_finished() -> bool:
        sweep()
        for task in tasks:
            task.refresh_from_db()
        return all(task.is_finished for task in tasks)

    until(all_have_finished, "every task was finished after sweeps")


@pytest.mark.parametrize(
    "script",
    [scripts.save_gears_with_skip_async, scripts.save_gears, scripts.save_gears_in_inline],
)
def test_nested_saves_put_their_descendants_under_the_locks_of_the_task(
    cluster: Cluster, script: Callable[..., Any]
) -> None:
    machine = new_machine(script)
    gear, foreign = new_gear(machine=machine, teeth=2), new_gear(teeth=1)
    task = saved(machine)
    assert set(locks()) == keys(machine, gear)

    cluster.gate(machine).wait_for_arrival()

    held = keys(machine, gear, foreign, *Tooth.objects.all())
    assert locks() == dict.fromkeys(held, task.key)
    assert [each.key for each in AsyncTask.objects.all()] == [task.key]
    assert items(task) == [("kinds.machine", str(machine.pk), "assemble", "todo")]
    for tooth in Tooth.objects.all():
        with pytest.raises(ConflictError) as refused:
            tooth.save()
        assert [conflict.holder for conflict in refused.value.conflicts] == [task]

    cluster.gate(machine).open()
    task.result(timeout=PATIENCE)
    assert not ObjectLock.objects.exists()
    assert [each.key for each in AsyncTask.objects.all()] == [task.key]
    assert effects(machine, gear, foreign) == [1, 1, 1]
    for tooth in Tooth.objects.all():
        tooth.save()


def test_a_form_that_saves_a_parent_and_then_its_children_is_one_task(cluster: Cluster) -> None:
    machine = new_machine()
    edited, untouched = new_gear(machine=machine, teeth=1), new_gear(machine=machine)
    form_class: Any = modelform_factory(Machine, fields=["name"])
    formset_class: Any = inlineformset_factory(Machine, Gear, fields=["name"], extra=1)
    data = {
        "name": "loom",
        "gears-TOTAL_FORMS": "3",
        "gears-INITIAL_FORMS": "2",
        "gears-0-id": str(edited.pk),
        "gears-0-name": "edited",
        "gears-1-id": str(untouched.pk),
        "gears-1-name": untouched.name,
        "gears-2-name": "added",
    }
    form, formset = form_class(data, instance=machine), formset_class(data, instance=machine)
    assert form.is_valid()
    assert formset.is_valid()

    with transaction.atomic():
        form.save()
        formset.save()

    task = AsyncTask.objects.get()
    task.result(timeout=PATIENCE)
    added = Gear.objects.get(name="added")
    assert items(task) == [
        ("kinds.machine", str(machine.pk), "assemble", "done"),
        ("kinds.gear", str(edited.pk), "turn", "done"),
        ("kinds.gear", str(added.pk), "turn", "done"),
    ]
    assert effects(machine, edited, untouched, added) == [1, 1, 0, 1]
    assert AsyncTask.objects.get() == task
    assert not ObjectLock.objects.exists()


@pytest.mark.parametrize("new_object", [new_machine, new_gear])
def test_work_that_saves_its_own_object_does_not_start_itself_again(
    cluster: Cluster, new_object: Callable[..., Scripted]
) -> None:
    obj = new_object(scripts.save_itself)
    assert saved(obj).result(timeout=PATIENCE) == "new saved"
    obj.refresh_from_db()
    assert (obj.name, obj.effects) == ("new saved", 1)
    assert AsyncTask.objects.count() == TaskItem.objects.count() == 1
    assert not ObjectLock.objects.exists()


@pytest.mark.parametrize("new_object", [new_machine, new_gear])
def test_a_running_task_can_be_watched_and_names_itself_to_who_is_refused(
    cluster: Cluster, new_object: Callable[..., Machine | Gear]
) -> None:
    obj = new_object(scripts.step_by_step)
    if isinstance(obj, Gear) and connection.vendor == "sqlite":
        pytest.skip("a transaction that is open keeps the heartbeat out: SQLite has one writer")
    descendant = new_gear(machine=obj) if isinstance(obj, Machine) else new_tooth(obj)
    ada = User.objects.create_user("ada")
    with acting_user(ada):
        task = saved(obj)
    names_it = f"{obj._meta.verbose_name} {obj.pk}”, started by ada at .*in progress"
    seen = []

    def has_shown(step: int) -> bool:
        progress = task.progress
        assert progress.total is None or progress.current <= progress.total
        seen.append((progress.current, progress.fraction))
        return (progress.current, progress.total) == (step, scripts.STEPS)

    for step in range(scripts.STEPS):
        cluster.gate(obj, step).wait_for_arrival()
        until(partial(has_shown, step), f"step {step} was shown")
        for held in (obj, descendant):
            assert held.holder == task
            with pytest.raises(ConflictError, match=names_it) as refused:
                type(held)._base_manager.get(pk=held.pk).save()
            [conflict] = refused.value.conflicts
            assert (conflict.model, conflict.pk, conflict.holder) == (type(held), held.pk, task)
        with pytest.raises(TimeoutError):
            task.result(timeout=0)
        cluster.gate(obj, step).open()

    task.result(timeout=PATIENCE)
    assert seen == sorted(seen)
    assert all(fraction < 1 for _, fraction in seen)
    assert (task.progress.items_done, task.progress.fraction) == (1, 1.0)
    assert task.user == ada
    assert obj.holder is descendant.holder is None
    assert effects(obj) == [1]
    obj.script = ""
    saved(obj).result(timeout=PATIENCE)
    descendant.save()


def test_the_steps_of_one_item_are_not_counted_for_the_next(cluster: Cluster) -> None:
    first, second = new_machine(scripts.step_by_step), new_machine(scripts.wait)
    task = saved(first, second)

    def has_shown(step: int) -> bool:
        return task.progress.current == step

    for step in range(scripts.STEPS):
        cluster.gate(first, step).wait_for_arrival()
        until(partial(has_shown, step), f"step {step} was shown")
        cluster.gate(first, step).open()

    def second_has_begun() -> bool:
        progress = task.progress
        assert progress.fraction <= 0.5, progress
        return cluster.gate(second).arrivals > 0 and progress.items_done == 1

    until(second_has_begun, "the second item was at work")
    assert task.progress.fraction == 0.5
    cluster.gate(second).open()
    task.result(timeout=PATIENCE)


def test_a_transaction_that_rolls_back_leaves_nothing_for_the_cluster(cluster: Cluster) -> None:
    undone, undone_in_savepoint, kept = new_gear(), new_gear(), new_gear()
    with suppress(KeyError), transaction.atomic():
        undone.save()
        raise KeyError
    with transaction.atomic():
        with suppress(KeyError), transaction.atomic():
            undone_in_savepoint.save()
            raise KeyError
        kept.save()
    assert undone.async_task is undone_in_savepoint.async_task is None

    kept.async_task.result(timeout=PATIENCE)
    cluster.wait_until_idle()
    assert effects(undone, undone_in_savepoint, kept) == [0, 0, 1]
    assert [each.key for each in AsyncTask.objects.all()] == [kept.async_task.key]
    assert TaskItem.objects.count() == 1
    assert not ObjectLock.objects.exists()


def test_of_several_items_one_fails_and_the_others_are_done(cluster: Cluster) -> None:
    before, broken, after = new_gear(), new_gear(scripts.fail), new_gear()
    task = saved(before, broken, after)

    with pytest.raises(TaskFailed, match="new is broken"):
        task.result(timeout=PATIENCE)

    assert task.status == Status.FAILED
    assert [status for *_, status in items(task)] == ["done", "failed", "done"]
    failed = task.items.get(status="failed")
    assert failed.object_id == str(broken.pk)
    assert "in fail\n" in failed.error
    assert effects(before, broken, after) == [1, 0, 1]
    assert not ObjectLock.objects.exists()


def test_a_duplicate_message_does_nothing(cluster: Cluster) -> None:
    machine = new_machine(scripts.wait)
    task = saved(machine)
    cluster.gate(machine).wait_for_arrival()
    send(task.key)
    cluster.wait_until_idle(but_for=1)
    cluster.gate(machine).open()
    assert task.result(timeout=PATIENCE) == 1
    send(task.key)
    cluster.wait_until_idle()
    task.refresh_from_db()
    assert (task.attempts, task.fence, effects(machine)) == (1, 1, [1])


def test_every_play_is_recounted_as_it_was_parsed(cluster: Cluster) -> None:
    call_command("load_library", limit=2, verbosity=0)
    with transaction.atomic():
        for book in Book.objects.all():
            book.save()
    words = AsyncTask.objects.get().result(timeout=PATIENCE)

    assert words == list(Book.objects.order_by("pk").values_list("words", flat=True))
    for source in find_plays()[:2]:
        play = source.parse()
        book = Book.objects.get(slug=source.slug)
        speeches = [speech for scene in play.scenes for speech in scene.speeches]
        assert (book.words, book.lines, book.speaking_parts) == (
            sum(count_words(speech.text) for speech in speeches),
            sum(count_lines(speech.text) for speech in speeches),
            len({speech.speaker for speech in speeches} - {""}),
        )
        assert list(book.scenes.values_list("words", "lines", "speaking_parts")) == [
            (
                sum(count_words(speech.text) for speech in scene.speeches),
                sum(count_lines(speech.text) for speech in scene.speeches),
                len({speech.speaker for speech in scene.speeches} - {""}),
            )
            for scene in play.scenes
        ]
        assert list(
            Speech.objects.filter(scene__book=book)
            .order_by("scene__position", "position")
            .values_list("words", "lines")
        ) == [(count_words(speech.text), count_lines(speech.text)) for speech in speeches]
    assert AsyncTask.objects.count() == 1
    assert TaskItem.objects.count() == 2
    assert not ObjectLock.objects.exists()
    Scene.objects.earliest("pk").save()


def test_a_heartbeat_renews_the_lease(mortal_cluster: Cluster) -> None:
    machine = new_machine(scripts.wait)
    task = saved(machine)
    mortal_cluster.gate(machine).wait_for_arrival()
    lease = TaskPulse.objects.get(task=task).lease_until
    until(lambda: TaskPulse.objects.get(task=task).lease_until > lease, "the lease was renewed")
    mortal_cluster.gate(machine).open()
    assert task.result(timeout=PATIENCE) == 1


def test_who_is_refused_by_silent_work_is_told_so(mortal_cluster: Cluster) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("only where one transaction writes at a time, the heartbeat falls silent")
    gear = new_gear(scripts.wait)
    task = saved(gear)
    mortal_cluster.gate(gear).wait_for_arrival()
    mine = AsyncTask.objects.filter(expired("default"), pk=task.pk)
    until(mine.exists, "the lease ran out")

    with pytest.raises(ConflictError) as refused:
        gear.save()

    assert [conflict.holder for conflict in refused.value.conflicts] == [task]
    mortal_cluster.gate(gear).open()
    assert task.result(timeout=PATIENCE) == 1


def test_a_task_whose_cluster_is_killed_is_finished_once(mortal_cluster: Cluster) -> None:
    done, halfway, todo = new_gear(), new_gear(scripts.wait, teeth=1), new_gear()
    task = saved(done, halfway, todo)
    mortal_cluster.gate(halfway).wait_for_arrival()
    mortal_cluster.kill()

    assert [status for *_, status in items(task)] == ["done", "todo", "todo"]
    assert effects(done, halfway, todo) == [1, 0, 0]
    assert locks() == dict.fromkeys(keys(done, halfway, todo, *Tooth.objects.all()), task.key)
    mortal_cluster.gate(halfway).open()
    mortal_cluster.start(lease_seconds=2)
    sweep_until_finished(task)

    assert task.result() == [None, 1, None]
    assert mortal_cluster.gate(halfway).arrivals > 1
    assert task.attempts > 1
    assert effects(done, halfway, todo) == [1, 1, 1]
    assert AsyncTask.objects.count() == 1
    assert not ObjectLock.objects.exists()
    for gear in (done, halfway, todo):
        gear.refresh_from_db()
        gear.save()


def test_work_that_was_committed_when_the_cluster_is_killed_is_not_repeated(
    mortal_cluster: Cluster,
) -> None:
    committed, todo = new_gear(scripts.wait_after_commit), new_gear()
    task = saved(committed, todo)
    mortal_cluster.gate(committed).wait_for_arrival()
    mortal_cluster.kill()

    assert effects(committed, todo) == [1, 0]
    mortal_cluster.gate(committed).open()
    mortal_cluster.start(lease_seconds=2)
    sweep_until_finished(task)

    assert task.status == Status.SUCCESS
    assert effects(committed, todo) == [1, 1]
    assert not ObjectLock.objects.exists()


def test_tasks_that_wait_when_the_cluster_is_killed_are_run_once(mortal_cluster: Cluster) -> None:
    busy = [new_machine(scripts.wait), new_machine(scripts.wait)]
    running = [saved(machine) for machine in busy]
    for machine in busy:  # as many as there are workers
        mortal_cluster.gate(machine).wait_for_arrival()
    gears = [new_gear() for _ in range(6)]
    waiting = [saved(gear) for gear in gears]
    mortal_cluster.kill()

    pending = AsyncTask.objects.filter(status=Status.PENDING)
    assert {task.key for task in pending} == {task.key for task in waiting}
    assert set(locks().values()) == {task.key for task in (*running, *waiting)}
    mortal_cluster.open_all_gates()
    mortal_cluster.start(lease_seconds=2)
    sweep_until_finished(*running, *waiting)

    assert {(task.status, task.error) for task in (*running, *waiting)} == {(Status.SUCCESS, "")}
    assert effects(*gears) == [1] * len(gears)
    assert AsyncTask.objects.count() == len(running) + len(waiting)
    assert not ObjectLock.objects.exists()
