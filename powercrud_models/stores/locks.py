"""The locks in Redis, by name: what the scripts do for any number of objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from json import dumps
from typing import Any, NamedTuple
from uuid import uuid4

from powercrud_models.stores import scripts
from powercrud_models.stores.scripts import AT_ONCE, CHUNK
from powercrud_models.stores.server import Server


@dataclass(eq=False)
class Answer:
    """Who holds what, or what was acquired."""

    others: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The objects that others hold, by holder."""
    ages: dict[str, float] = field(default_factory=dict)
    """Milliseconds since each of them has last acquired something."""
    new: list[str] = field(default_factory=list)
    """The objects that nobody held before."""
    taken: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The objects that were taken from others, by holder."""
    epoch: str = ""
    is_refused: bool = False


class State(NamedTuple):
    """What tells whether a task still holds what it held."""

    epoch: str
    server: str
    held: int
    """How many objects the task holds."""


class RedisLocks:
    """Acquires and releases objects; each is text, and so is a task."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def acquire(self, task: str, objects: Sequence[str], yields: Collection[str] = ()) -> Answer:
        """Acquire all of them, in their order, or none; ``yields``: tasks that they are taken from.

        A few thousand take one round trip; it is a second one that gives back the first chunks
        when a later one is refused.
        """
        is_part = len(objects) > CHUNK
        is_new, others = uuid4().hex, sorted(yields)
        names = [*self._names(task), self._server.name("refused", is_new if is_part else "")]
        names += [self._server.name("held", other) for other in others]
        rest = (is_new, _json(others), int(is_part))
        parts = list(_chunks(objects))
        calls = [(names, (task, _json(part), *rest)) for part in parts]
        whole = Answer()
        for part, answer in zip(parts, self._server.run_all(scripts.ACQUIRE, calls), strict=True):
            _add(whole, part, answer)
        if whole.is_refused and (whole.new or whole.taken):
            self.undo(task, whole.new, whole.taken)
        return whole

    def undo(self, task: str, new: Sequence[str], taken: dict[str, list[str]]) -> None:
        """Free what was new, and give back what was taken, as far as the task holds it."""
        for other, objects in taken.items():
            names = [*self._names(task), self._server.name("held", other)]
            calls = [(names, (task, _json(part), other)) for part in _chunks(objects)]
            self._server.run_all(scripts.GIVE_BACK, calls)
        if new:
            self.release(task, new)

    def release(self, task: str, objects: Sequence[str]) -> None:
        """Free those that the task holds."""
        names = self._names(task)
        calls = [(names, (task, _json(part))) for part in _chunks(objects)]
        self._server.run_all(scripts.RELEASE, calls)

    def release_all(self, task: str) -> None:
        """Free all that the task holds."""
        call = self._names(task), (task, CHUNK)
        parts = AT_ONCE // CHUNK
        while left := self._server.run_all(scripts.RELEASE_SOME, [call] * parts)[-1]:
            parts = -(-left // CHUNK)

    def holders(self, objects: Sequence[str]) -> Answer:
        """Who holds them."""
        names = [self._server.name("locks"), self._server.name("tasks")]
        parts = list(_chunks(objects))
        calls = [(names, (_json(part),)) for part in parts]
        whole = Answer()
        for part, answer in zip(parts, self._server.run_all(scripts.HOLDERS, calls), strict=True):
            _add(whole, part, answer)
        return whole

    def held(self, task: str) -> set[str]:
        """All that the task holds."""
        held: set[str] = set()
        names, cursor = [self._server.name("held", task)], "0"
        while True:
            answer = self._server.run(scripts.HELD, names, cursor, AT_ONCE, CHUNK)
            held.update(answer["objects"])
            cursor = answer["cursor"]
            if cursor == "0":
                return held

    def state(self, task: str) -> State:
        """How the task's locks stand."""
        names = [self._server.name("locks"), self._server.name("held", task)]
        return State(**self._server.run(scripts.STATE, names))

    def idle_tasks(self, seconds: float, skip: int, most: int = 500) -> list[str]:
        """Tasks that hold something, and have acquired nothing for so long; the oldest first."""
        names = [self._server.name("tasks")]
        answer = self._server.run(scripts.IDLE_TASKS, names, int(seconds * 1000), skip, most)
        return list(answer["tasks"])

    def _names(self, task: str) -> list[str]:
        server = self._server
        return [server.name("locks"), server.name("held", task), server.name("tasks")]


def _chunks(objects: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(objects), CHUNK):
        yield objects[first : first + CHUNK]


def _json(value: Any) -> str:
    return dumps(value, ensure_ascii=False)


def _add(whole: Answer, part: Sequence[str], answer: dict[str, Any]) -> None:
    """Add what a script says about a chunk; it counts from 1, and takes no list for a dict."""
    for holder, places in dict(answer.get("others") or {}).items():
        whole.others[holder] += [part[place - 1] for place in places]
    for holder, age in dict(answer.get("ages") or {}).items():
        whole.ages[holder] = float(age)
    if answer.get("is_refused"):
        whole.is_refused = True
    elif "epoch" in answer:
        whole.epoch = answer["epoch"]
        old = set(answer["mine"] or ())
        for holder, places in dict(answer["taken"] or {}).items():
            whole.taken[holder] += [part[place - 1] for place in places]
            old.update(places)
        if not old:
            whole.new += part
        else:
            whole.new += [each for place, each in enumerate(part, 1) if place not in old]
