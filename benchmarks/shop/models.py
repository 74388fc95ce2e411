"""The same row as a plain model and as a guarded one; a parent with many children; counters."""

from __future__ import annotations

import time

from django.db import models

from benchmarks.files import append, folder
from powercrud_models import AsyncModelMixin, async_save, descendants


class Category(models.Model):
    name = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    """An ordinary row of ten columns."""

    title = models.CharField(max_length=100)
    slug = models.SlugField(max_length=100)
    description = models.TextField()
    category = models.ForeignKey(Category, on_delete=models.CASCADE, related_name="+")
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.IntegerField(default=0)
    weight = models.IntegerField(default=0)
    listed = models.BooleanField(default=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.title


class PlainArticle(Product):
    """What the next one is measured against."""


class GuardedArticle(AsyncModelMixin, Product):
    """It declares no work: its save has nothing to queue."""


class Catalogue(AsyncModelMixin):
    """Each save of it locks the catalogue and all its pages."""

    title = models.CharField(max_length=100)

    def __str__(self) -> str:
        return self.title

    @async_save
    @descendants("pages")
    def reprint(self) -> None: ...


class Page(AsyncModelMixin):
    number = models.IntegerField()
    catalogue = models.ForeignKey(Catalogue, on_delete=models.CASCADE, related_name="pages")

    def __str__(self) -> str:
        return f"page {self.number}"


class Delivery(AsyncModelMixin):
    """Its work counts how often it has taken effect: on itself, and on its parcels."""

    order = models.IntegerField()
    place = models.IntegerField()
    seconds = models.FloatField()
    """How long the work takes."""
    effects = models.IntegerField(default=0)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("order", "place"), name="delivery_once"),)

    def __str__(self) -> str:
        return f"delivery {self.order}/{self.place}"

    # No task shall fail for being unlucky: what is asked is whether it ends well.
    @async_save(recoveries=1000)
    @descendants("parcels")
    def deliver(self) -> None:
        time.sleep(self.seconds / 2)
        Delivery._base_manager.filter(pk=self.pk).update(effects=models.F("effects") + 1)
        for parcel in Parcel._base_manager.filter(delivery=self).order_by("pk"):
            parcel.effects += 1
            parcel.save()
        time.sleep(self.seconds / 2)


class Parcel(AsyncModelMixin):
    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="parcels")
    effects = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"parcel {self.pk}"


def end_of_no_op(_: object = None) -> None:
    """All that a no-op task does: it adds a byte to a file, which can be seen from outside."""
    append(folder() / "ends", "|")


class NoOp(AsyncModelMixin):
    number = models.IntegerField()

    def __str__(self) -> str:
        return f"no-op {self.number}"

    @async_save
    def do_nothing(self) -> None:
        end_of_no_op()
