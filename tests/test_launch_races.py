"""Launches that want the same objects, on connections of their own."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest
from django.db import connection, transaction

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.types import ObjectKey
from tests.deliveries import deliver, held_by, task_of
from tests.kinds.models import Peer, Project, Tag
from tests.stage import Stage, Stop
from tests.witness import Witness, assert_refused

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


@pytest.fixture
def peers(db: None) -> list[Peer]:
    """Two that want a third."""
    peers = Peer.objects.bulk_create([Peer(name=name) for name in ("one", "other", "shared")])
    peers[2].peers.add(peers[0], peers[1])
    return peers


@pytest.fixture
def projects(db: None) -> list[Project]:
    """Two that want a tag, whose row nobody locks: it has no mixin."""
    projects = Project.objects.bulk_create([Project(name="one"), Project(name="other")])
    Tag.objects.create(name="shared").projects.set(projects)
    return projects


@pytest.mark.parametrize("wanted", ["peers", "projects"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("ends", ["commits", "is rolled back"])
def test_the_second_waits_for_the_first(
    request: pytest.FixtureRequest,
    stage: Stage,
    witness: Witness,
    wanted: str,
    order: tuple[int, int],
    ends: str,
) -> None:
    made = request.getfixturevalue(wanted)
    first, second = (made[index] for index in order)
    open_ = stage.stop()

    def launch_first() -> AsyncTask:
        with transaction.atomic():
            first.save()
            task = task_of(first)
            open_.wait_here()
            transaction.set_rollback(ends == "is rolled back")
        return task

    def launch_second() -> AsyncTask:
        second.name = "changed"
        second.save()
        return task_of(second)

    winner = stage.act(witness.watch(launch_first), "first")
    open_.wait_until_reached()
    other = stage.act(witness.watch(launch_second), "second")
    other.wait_until_blocked()
    open_.let_go()

    name = type(second).objects.values_list("name", flat=True)
    if ends == "commits":
        task = winner.result()
        assert_refused(other.error(), task)
        assert name.get(pk=second.pk) != "changed"
    else:
        task = other.result()
        assert name.get(pk=second.pk) == "changed"
    assert list(AsyncTask.objects.all()) == [task]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("ask", ["save", "enqueue"])
def test_of_two_that_want_each_other_exactly_one_wins(
    peers: list[Peer], stage: Stage, witness: Witness, order: tuple[int, int], ask: str
) -> None:
    """Each has its own row before it asks for the other's: the database calls it a deadlock."""
    one, other = (peers[index] for index in order)
    one.peers.add(other)
    launchers, stops = [], []
    for peer in (one, other):
        stop = stage.stop()
        launchers.append(stage.act(witness.watch(launched(peer, ask, stop)), peer.name))
        stops.append(stop)
        if connection.features.has_select_for_update or peer == one:
            stop.wait_until_reached()
        else:
            launchers[-1].wait_until_blocked()
    for stop in stops:
        stop.let_go()

    errors = [launcher.error() for launcher in launchers]
    task = AsyncTask.objects.get()
    (refused,) = filter(None, errors)
    assert_refused(refused, task)
    winner, loser = (one, other) if errors[0] is None else (other, one)
    assert [item.object_id for item in task.items.all()] == [str(winner.pk)]
    assert held_by(task.key) == {ObjectKey.of(peer) for peer in peers}
    assert Peer.objects.get(pk=loser.pk).name != "changed"
    assert (Peer.objects.get(pk=winner.pk).name == "changed") == (ask == "save")


@pytest.mark.parametrize("seed", range(3))
def test_many_at_once_hold_all_they_want_or_nothing(
    stage: Stage, witness: Witness, seed: int
) -> None:
    """A ring of six, of which each wants its neighbours, saved by five threads at once."""
    ring = Peer.objects.bulk_create([Peer(name=f"peer {n}") for n in range(6)])
    for one, other in zip(ring, ring[1:] + ring[:1], strict=True):
        one.peers.add(other)
    wanted = {peer.pk: {ObjectKey.of(each) for each in (peer, *peer.peers.all())} for peer in ring}
    chance = random.Random(seed)

    for _ in range(5):
        chosen = chance.sample(ring, 5)
        together = threading.Barrier(len(chosen))

        launchers = [
            stage.act(witness.watch(saved_together(peer, together)), peer.name) for peer in chosen
        ]
        errors = [launcher.error() for launcher in launchers]
        assert {type(error) for error in errors} <= {type(None), ConflictError}, errors
        winners = [peer for peer, error in zip(chosen, errors, strict=True) if error is None]
        assert winners, "somebody must win"
        tasks = {int(task.items.get().object_id): task for task in unfinished()}
        assert tasks.keys() == {peer.pk for peer in winners}
        for pk, task in tasks.items():
            assert held_by(task.key) == wanted[pk]
        witness.swear()
        deliver()
        assert not ObjectLock.objects.exists()


def launched(peer: Peer, ask: str, stop: Stop) -> Callable[[], None]:
    """Ask for its work, and stop when its own row is locked and no other is yet."""

    def launch() -> None:
        if ask == "enqueue":
            with stop.at("after", "ASC LIMIT 1"):
                peer.align.enqueue()
        else:
            peer.name = "changed"
            with stop.at("after", 'UPDATE "kinds_peer"'):
                peer.save()

    return launch


def saved_together(peer: Peer, together: threading.Barrier) -> Callable[[], None]:
    """Save it when the others do."""

    def save() -> None:
        mine = Peer.objects.get(pk=peer.pk)
        together.wait(timeout=30)
        mine.save()

    return save


def unfinished() -> Iterator[AsyncTask]:
    return AsyncTask.objects.filter(status__in=AsyncTask.UNFINISHED).iterator()
