"""Small models, one for each kind of declaration and of work that the tests need."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, ClassVar

from django.db import models
from django.db.models import F
from django.utils.module_loading import import_string

from powercrud_models import (
    AsyncModelMixin,
    AsyncQuerySet,
    async_method,
    async_save,
    descendants,
)
from tests.kinds import declared

__all__ = ["declared"]  # its tables


class Tag(models.Model):
    """A descendant without the mixin: locked, but its own save does not look."""

    name = models.CharField(max_length=50)

    def __str__(self) -> str:
        return self.name


class Project(AsyncModelMixin):
    """Its work does what a test gave to ``script``, and then counts one effect."""

    name = models.CharField(max_length=50)
    effects = models.IntegerField(default=0)
    tags = models.ManyToManyField(Tag, related_name="projects")

    script: ClassVar[Callable[[Project], object] | None] = None

    def __str__(self) -> str:
        return self.name

    @async_save
    @descendants("parts", "tags")
    def rebuild(self) -> object:
        returned = Project.script(self) if Project.script else None
        Project.objects.filter(pk=self.pk).update(effects=F("effects") + 1)
        return returned

    @descendants(of="rebuild")
    def neighbours(self) -> object:
        return Neighbour.objects.filter(project=self)


class Part(AsyncModelMixin):
    name = models.CharField(max_length=50)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="parts")
    effects = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.name

    @descendants("bolts")
    @async_save
    def tighten(self) -> None:
        self.effects += 1
        self.save(update_fields=["effects"])


class Bolt(AsyncModelMixin):
    """It declares no work: its save only looks for locks."""

    name = models.CharField(max_length=50)
    part = models.ForeignKey(Part, on_delete=models.CASCADE, related_name="bolts")

    def __str__(self) -> str:
        return self.name


class Neighbour(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")

    def __str__(self) -> str:
        return f"neighbour {self.pk}"


class Report(AsyncModelMixin):
    """Work that runs only when asked, and work that runs only after the first save."""

    author = models.OneToOneField(Project, on_delete=models.CASCADE, related_name="report")
    text = models.TextField(blank=True)

    def __str__(self) -> str:
        return f"report {self.pk}"

    @async_method(label="print")
    @descendants("author", "author__parts__bolts")
    def render(self, copies: int = 1) -> str:
        """The text, so many times."""
        return self.text * copies

    @async_save(on="create", name="announced")
    def announce(self) -> None:
        type(self).objects.filter(pk=self.pk).update(text=F("text"))


class Note(AsyncModelMixin):
    """Its children inherit the work, override it, or take the mark away."""

    text = models.TextField()

    steps: ClassVar[list[str]] = []

    def __str__(self) -> str:
        return self.text

    @async_save
    def file(self) -> str:
        Note.steps.append("note")
        return "note"


class Letter(Note):
    @async_save(on="create")
    @descendants("note_ptr")
    def file(self) -> str:
        Note.steps.append("letter, then")
        return f"letter on {super().file()}"


class Memo(Note):
    def file(self) -> str:  # type: ignore[override]
        Note.steps.append("memo, then")
        return f"memo on {super().file()}"


class Brief(Note):
    """It adds nothing."""


class Scripted(AsyncModelMixin):
    """Its work counts one effect and does what ``script`` names, in whatever process it runs."""

    name = models.CharField(max_length=50)
    script = models.CharField(max_length=100, blank=True)
    effects = models.IntegerField(default=0)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name

    def play(self) -> object:
        type(self)._base_manager.filter(pk=self.pk).update(effects=F("effects") + 1)
        self.refresh_from_db(fields=["effects"])
        return import_string(self.script)(self) if self.script else None


class Machine(Scripted):
    """Work in autocommit: others see what it does at once."""

    @async_save(atomic=False)
    @descendants("gears")
    def assemble(self) -> object:
        return self.play()


class Gear(Scripted):
    """Work in one transaction, with descendants that its machine does not name."""

    machine = models.ForeignKey(Machine, on_delete=models.CASCADE, related_name="gears")

    @async_save
    @descendants("teeth")
    def turn(self) -> object:
        return self.play()


class Tooth(AsyncModelMixin):
    gear = models.ForeignKey(Gear, on_delete=models.CASCADE, related_name="teeth")

    def __str__(self) -> str:
        return f"tooth {self.pk}"


class Peer(AsyncModelMixin):
    """Its work touches its peers, and theirs touches it: locks are wanted from both ends."""

    name = models.CharField(max_length=50)
    effects = models.IntegerField(default=0)
    peers = models.ManyToManyField("self")

    def __str__(self) -> str:
        return self.name

    @async_save
    @descendants("peers")
    def align(self) -> None:
        Peer.objects.filter(pk=self.pk).update(effects=F("effects") + 1)


class Crew(AsyncModelMixin):
    """A method tells its descendants, and one of its works runs in autocommit."""

    name = models.CharField(max_length=50)

    script: ClassVar[Callable[[Crew], object] | None] = None

    def __str__(self) -> str:
        return self.name

    @async_save
    def brief(self) -> None:
        """It is its locks that the tests are about."""

    @async_method(atomic=False)
    def post(self) -> object:
        return Crew.script(self) if Crew.script else None

    @descendants(of="brief")
    def members(self) -> object:
        return Member.objects.filter(crew=self)


class Member(AsyncModelMixin):
    """It stays when its crew is deleted, without one: Django then writes its row."""

    name = models.CharField(max_length=50)
    crew = models.ForeignKey(Crew, null=True, on_delete=models.SET_NULL, related_name="+")

    def __str__(self) -> str:
        return self.name

    @async_method
    def train(self) -> None:
        """It locks its object alone."""

    @async_save(on="create")
    @descendants("crew")
    def welcome(self) -> None:
        """It locks what a new row refers to."""


class Person(models.Model):
    """Its key is text, and its manager does not show everybody."""

    name = models.CharField(max_length=50, primary_key=True)
    retired = models.BooleanField(default=False)

    class Working(models.Manager["Person"]):
        def get_queryset(self) -> models.QuerySet[Person]:
            return super().get_queryset().filter(retired=False)

    objects = Working()

    def __str__(self) -> str:
        return self.name


class Film(AsyncModelMixin):
    """Relations of every kind, and a UUID as its key; what a method finds is up to the test."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    director = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="+")
    writer = models.ForeignKey(Person, null=True, on_delete=models.CASCADE, related_name="written")
    original = models.OneToOneField(
        "self", null=True, on_delete=models.CASCADE, related_name="sequel"
    )
    cast = models.ManyToManyField(Person, through="Role", related_name="films")
    similar = models.ManyToManyField("self", symmetrical=False, related_name="similar_from")

    found: ClassVar[Callable[[Film], object]] = staticmethod(lambda film: None)

    def __str__(self) -> str:
        return f"film {self.pk}"

    @async_method
    @descendants("role", "cast", "similar")
    def archive(self) -> list[str]:
        """Return what is locked meanwhile."""
        return [str(lock) for lock in self.holder.locks.all()]

    @descendants(of="archive")
    def more(self) -> object:
        return Film.found(self)


class Documentary(Film):
    """A table of its own, and the relations of its parent."""


class FilmOfTheMonth(Film):
    class Meta:
        proxy = True


class Role(AsyncModelMixin):
    """A reverse foreign key without related_name, and a many-to-many table that is guarded."""

    film = models.ForeignKey(Film, on_delete=models.CASCADE)
    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="roles")

    def __str__(self) -> str:
        return f"role {self.pk}"


class Ticket(models.Model):
    film = models.ForeignKey(
        Film, on_delete=models.CASCADE, related_name="tickets", related_query_name="sold"
    )

    def __str__(self) -> str:
        return f"ticket {self.pk}"


class Poster(models.Model):
    """Its key is that of its film."""

    film = models.OneToOneField(Film, on_delete=models.CASCADE, primary_key=True)

    def __str__(self) -> str:
        return f"poster of {self.pk}"


class Seat(AsyncModelMixin):
    """A composite key."""

    pk = models.CompositePrimaryKey("row", "number")
    row = models.CharField(max_length=2)
    number = models.IntegerField()
    film = models.ForeignKey(Film, null=True, on_delete=models.CASCADE, related_name="seats")

    def __str__(self) -> str:
        return f"seat {self.row}{self.number}"

    @async_method
    @descendants("film")
    def reserve(self) -> list[str]:
        """Return what is locked meanwhile."""
        return [str(lock) for lock in self.holder.locks.all()]


class Badge(AsyncModelMixin):
    """Between a member and its pins: it declares no work."""

    member = models.ForeignKey(Member, on_delete=models.CASCADE, related_name="+")

    def __str__(self) -> str:
        return f"badge {self.pk}"


class Pin(AsyncModelMixin):
    badge = models.ForeignKey(Badge, on_delete=models.CASCADE, related_name="+")

    def __str__(self) -> str:
        return f"pin {self.pk}"

    @async_save
    def polish(self) -> None:
        """It locks its object alone."""


class Clock(AsyncModelMixin):
    """One work runs after each save; the other, which a test gives to ``script``, when asked."""

    strikes = models.IntegerField(default=0)

    script: ClassVar[Callable[[Clock], object] | None] = None

    def __str__(self) -> str:
        return f"clock {self.pk}"

    @async_save
    def strike(self) -> None:
        Clock.objects.filter(pk=self.pk).update(strikes=F("strikes") + 1)

    @async_method
    def wind(self) -> object:
        return Clock.script(self) if Clock.script else None


class Telegram(Note):
    """It has columns of its own: a save need not write its parent's row."""

    words = models.IntegerField(default=0)


class StampedQuerySet(models.QuerySet["Label"]):
    """A queryset of a project's own, which counts its updates."""

    def update(self, **kwargs: Any) -> int:
        return super().update(stamps=F("stamps") + 1, **kwargs)


class LabelQuerySet(StampedQuerySet, AsyncQuerySet["Label"]):  # type: ignore[override]  # as_manager
    def red(self) -> LabelQuerySet:
        return self.filter(name__startswith="red")


LabelManager = models.Manager.from_queryset(LabelQuerySet)


class Label(models.Model):
    """Without the mixin: its querysets are guarded, its own save is not."""

    name = models.CharField(max_length=50)
    stamps = models.IntegerField(default=0)

    objects = LabelQuerySet.as_manager()
    from_queryset = LabelManager()

    def __str__(self) -> str:
        return self.name


class Parcel(AsyncModelMixin):
    """Its work starts on a condition."""

    name = models.CharField(max_length=50)
    is_sealed = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.name

    @async_save(condition=lambda parcel: not parcel.is_sealed)
    @descendants("goods")
    def weigh(self) -> None:
        """It locks its object and the goods."""


class Goods(AsyncModelMixin):
    parcel = models.ForeignKey(Parcel, on_delete=models.CASCADE, related_name="goods")

    def __str__(self) -> str:
        return f"goods {self.pk}"
