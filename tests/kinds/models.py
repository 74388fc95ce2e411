"""Small models, one for each kind of declaration and of work that the tests need."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from django.db import models
from django.db.models import F
from django.utils.module_loading import import_string

from powercrud_models import AsyncModelMixin, async_method, async_save, descendants


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
    def file(self) -> str:
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
