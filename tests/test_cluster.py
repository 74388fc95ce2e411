"""The main job on a real qcluster: what is saved is locked, and done once by its workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.forms import inlineformset_factory, modelform_factory
from library.models import Book, Scene, Speech
from library.plays import count_lines, count_words, find_plays

from powercrud_models import ConflictError
from powercrud_models.exceptions import TaskFailed
from powercrud_models.lifecycle import send
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from tests import scripts
from tests.cluster import Cluster
from tests.gates import PATIENCE
from tests.kinds.models import Gear, Machine, Scripted, Tooth
from tests.machines import effects, items, keys, locks, new_gear, new_machine, saved

pytestmark = pytest.mark.cluster

Status = AsyncTask.Status


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
