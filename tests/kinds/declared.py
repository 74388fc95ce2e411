"""Models for what can be declared: above classes, down trees, for whole batches, with options."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.db.models import F

from powercrud_models import AsyncModelMixin, async_method, async_save, descendants
from powercrud_models.fields import KeyField


class Branch(AsyncModelMixin):
    """A tree, and a ring if a test makes one. Its key is text, compared exactly."""

    name = KeyField(max_length=255, primary_key=True)
    parent = models.ForeignKey("self", null=True, on_delete=models.CASCADE, related_name="children")
    twins = models.ManyToManyField("self")

    def __str__(self) -> str:
        return str(self.name)

    @async_method
    @descendants("children", recursive=True)
    def prune(self) -> None: ...

    @async_method
    @descendants("children")
    def water(self) -> None: ...

    @async_method
    @descendants("twins", recursive=True)
    def mirror(self) -> None: ...


class Remark(models.Model):
    """It hangs on an object of any model."""

    content_type = models.ForeignKey(
        ContentType,
        on_delete=models.CASCADE,
        db_constraint=False,  # tables without migrations are made before those that have some
    )
    object_id = models.CharField(max_length=255)
    about = GenericForeignKey()

    def __str__(self) -> str:
        return f"remark {self.pk}"


def is_public(article: Article) -> bool:
    """Whether the row says so."""
    return not Article._base_manager.get(pk=article.pk).is_draft


class Article(AsyncModelMixin):
    """Work that starts only when some fields change, or on some condition."""

    title = models.CharField(max_length=100)
    text = models.TextField(blank=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    branch = models.ForeignKey(Branch, null=True, on_delete=models.SET_NULL, related_name="+")
    is_draft = models.BooleanField(default=False)
    counted = models.IntegerField(default=0)
    published = models.IntegerField(default=0)
    remarks = GenericRelation(Remark)

    def __str__(self) -> str:
        return self.title

    @async_save(fields=("text", "branch"))
    @descendants("remarks")
    def count(self) -> None:
        Article._base_manager.filter(pk=self.pk).update(counted=F("counted") + 1)

    @async_save(on="update", fields=["price"], condition=is_public)
    def publish(self) -> None:
        Article._base_manager.filter(pk=self.pk).update(published=F("published") + 1)


class Piece(AsyncModelMixin):
    """Nothing of it is decorated: its children decorate what they inherit."""

    name = models.CharField(max_length=50)
    rehearsals = models.IntegerField(default=0)

    def __str__(self) -> str:
        return self.name

    def rehearse(self) -> int:
        type(self)._base_manager.filter(pk=self.pk).update(rehearsals=F("rehearsals") + 1)
        return 1


@descendants("movements")
@async_save("rehearse", label="rehearse with everybody")
class Symphony(Piece):
    """Decorated above the class."""


@async_save("rehearse", on="create")
@descendants("movements__bars")
class ShortSymphony(Symphony):
    """It overrides the options, and extends the descendants."""

    class Meta:
        proxy = True


class Movement(AsyncModelMixin):
    symphony = models.ForeignKey(Symphony, on_delete=models.CASCADE, related_name="movements")

    def __str__(self) -> str:
        return f"movement {self.pk}"


class Bar(models.Model):
    movement = models.ForeignKey(Movement, on_delete=models.CASCADE, related_name="bars")

    def __str__(self) -> str:
        return f"bar {self.pk}"


class Orchestra(AsyncModelMixin):
    """A class method finds the descendants of a whole batch; three paths have two hops each."""

    name = models.CharField(max_length=50)

    batches: ClassVar[list[list[str]]] = []

    def __str__(self) -> str:
        return self.name

    @async_save
    @descendants("players__scores", "players__chairs", "players__pets")
    def tune(self) -> None: ...

    @async_method
    def tour(self) -> None: ...

    @descendants(of="tune")
    @classmethod
    def guests(cls, orchestras: models.QuerySet[Orchestra]) -> object:
        cls.batches.append(sorted(orchestra.name for orchestra in orchestras))
        return Guest.objects.filter(orchestra__in=orchestras)


class Player(AsyncModelMixin):
    orchestra = models.ForeignKey(Orchestra, on_delete=models.CASCADE, related_name="players")

    def __str__(self) -> str:
        return f"player {self.pk}"


class OfAPlayer(models.Model):
    player = models.ForeignKey(Player, on_delete=models.CASCADE, related_name="%(class)ss")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"of player {self.player_id}"


class Score(OfAPlayer): ...


class Chair(OfAPlayer): ...


class Pet(OfAPlayer): ...


class Guest(models.Model):
    orchestra = models.ForeignKey(Orchestra, on_delete=models.CASCADE, related_name="+")

    def __str__(self) -> str:
        return f"guest {self.pk}"


class Attempt(AsyncModelMixin):
    """Its work does what a test gave to ``script``, and may be tried again, or takes too long."""

    tried = models.IntegerField(default=0)

    script: ClassVar[Callable[[Attempt], object] | None] = None

    def __str__(self) -> str:
        return f"attempt {self.pk}"

    def try_it(self) -> object:
        Attempt._base_manager.filter(pk=self.pk).update(tried=F("tried") + 1)
        return Attempt.script(self) if Attempt.script else None

    @async_method(retries=2)
    def persist(self) -> object:
        return self.try_it()

    @async_method(timeout=0.05)
    def hurry(self) -> object:
        return self.try_it()

    @async_method(timeout=0.05, retries=1, atomic=False)
    def hurry_twice(self) -> object:
        return self.try_it()

    @async_method(retries=2, retry_backoff=100)
    def wait_and_see(self) -> object:
        return self.try_it()

    @async_method(retries=2, dont_retry_for=[OSError, LookupError])
    def persist_but(self) -> object:
        return self.try_it()

    @async_method(recoveries=0)
    def once_only(self) -> object:
        return self.try_it()

    @async_method
    def wind_up(self) -> object:
        return self.try_it()

    @async_method(atomic=False, retries=1, retry_backoff=3600)
    def linger(self) -> object:
        return self.try_it()

    @async_method(atomic=False)
    def linger_once(self) -> object:
        return self.try_it()

    @async_method(atomic=False, retries=2)
    def insist(self) -> object:
        return self.try_it()
