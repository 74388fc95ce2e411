"""The same row as a plain model and as a guarded one, and a parent with many children."""

from __future__ import annotations

from django.db import models

from powercrud_models import AsyncModelMixin, async_save, descendants


class Article(models.Model):
    title = models.CharField(max_length=100)
    price = models.IntegerField(default=0)
    stock = models.IntegerField(default=0)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.title


class PlainArticle(Article):
    """What the next one is measured against."""


class GuardedArticle(AsyncModelMixin, Article):
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
