"""A festival with concerts, and what hangs on them: two levels below the festival."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Sum

from powercrud_models import AsyncModelMixin, async_method, async_save, descendants


class Named(AsyncModelMixin):
    """What all of them have."""

    name = models.CharField(max_length=50)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name

    @async_method
    def check_in(self) -> None:
        """It locks its object alone."""


class Musician(Named):
    """Nothing is set in motion by its save."""


class Festival(Named):
    """Its work looks at the concerts and their pieces, and leaves the sponsors alone."""

    visits = models.IntegerField(default=0)
    minutes = models.IntegerField(default=0, editable=False)

    @async_save
    @descendants("concerts", "concerts__pieces")
    def measure(self) -> int:
        pieces = Piece.objects.filter(concert__festival=self)
        self.minutes = pieces.aggregate(sum=Sum("minutes"))["sum"] or 0
        self.save(update_fields=["minutes"])
        return self.minutes


class Sponsor(Named):
    """It stays when its festival goes."""

    festival = models.ForeignKey(
        Festival, null=True, blank=True, on_delete=models.SET_NULL, related_name="sponsors"
    )


class Concert(Named):
    """Its work counts how often it has been rehearsed, with whoever plays in it by then."""

    festival = models.ForeignKey(Festival, on_delete=models.CASCADE, related_name="concerts")
    musicians = models.ManyToManyField(Musician, blank=True, related_name="concerts")
    rehearsals = models.IntegerField(default=0, editable=False)

    @async_save
    @descendants("pieces", "musicians")
    def rehearse(self) -> list[str]:
        Concert.objects.filter(pk=self.pk).update(rehearsals=F("rehearsals") + 1)
        return list(self.musicians.order_by("pk").values_list("name", flat=True))


class Piece(Named):
    concert = models.ForeignKey(Concert, on_delete=models.CASCADE, related_name="pieces")
    minutes = models.IntegerField(default=0)
