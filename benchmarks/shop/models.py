"""The same row as a plain model and as a guarded one, and a parent with many children."""

from __future__ import annotations

from django.db import models

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
