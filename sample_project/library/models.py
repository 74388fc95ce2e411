"""A library of plays. What a save recounts is slow on purpose: it reads every speech again."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Count, Q, Sum

from library.plays import count_lines, count_words
from powercrud_models import AsyncModelMixin, async_save, descendants, progress

# What recount writes, and all it writes: a title changed meanwhile stays changed.
COUNTS = ("words", "lines", "speaking_parts")


class Author(models.Model):
    name = models.CharField(max_length=100, unique=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Genre(models.Model):
    name = models.CharField(max_length=100, unique=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Book(AsyncModelMixin):
    """A play."""

    title = models.CharField(max_length=200)
    slug = models.SlugField(max_length=100, unique=True)
    author = models.ForeignKey(Author, on_delete=models.PROTECT, related_name="books")
    genre = models.ForeignKey(Genre, on_delete=models.PROTECT, related_name="books")
    words = models.PositiveIntegerField(default=0)
    lines = models.PositiveIntegerField(default=0)
    speaking_parts = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["title"]

    def __str__(self) -> str:
        return self.title

    # atomic=False: SQLite has one writer, and one transaction around a whole play would keep
    # everybody else from writing. In a short one for each scene others get their turn and see the
    # progress. A run that is repeated counts the same again, so it need not be all or nothing.
    @async_save(atomic=False)
    @descendants("scenes", "scenes__speeches")
    def recount(self) -> int:
        """Count every scene again, then the play; return its words."""
        for scene in progress(self.scenes.all()):
            scene.save(update_fields=COUNTS)
        totals = self.scenes.aggregate(words=Sum("words", default=0), lines=Sum("lines", default=0))
        named = Speech.objects.filter(scene__book=self).exclude(speaker="")
        parts = named.aggregate(speaking_parts=Count("speaker", distinct=True))
        self.words = totals["words"]
        self.lines = totals["lines"]
        self.speaking_parts = parts["speaking_parts"]
        self.save(update_fields=COUNTS)
        return self.words


class Scene(AsyncModelMixin):
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="scenes")
    position = models.PositiveSmallIntegerField(help_text="Place in the play, from 1.")
    act = models.PositiveSmallIntegerField(help_text="0 before the first act.")
    number = models.PositiveSmallIntegerField(help_text="0 for a prologue or an epilogue.")
    title = models.CharField(max_length=300)
    words = models.PositiveIntegerField(default=0)
    lines = models.PositiveIntegerField(default=0)
    speaking_parts = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["book_id", "position"]
        constraints = [
            models.UniqueConstraint(fields=["book", "position"], name="scene_once_per_position"),
        ]

    def __str__(self) -> str:
        # Without the book's title: that would be a query for each scene in a list.
        name = f"scene {self.number}" if self.number else self.title
        return f"Act {self.act}, {name}" if self.act else name

    @async_save(atomic=False)  # As for Book: short transactions, and counting twice does no harm.
    @descendants("speeches")
    def recount(self) -> int:
        """Count every speech of the scene again, then the scene; return its words."""
        changed = []
        speakers = set()
        self.words = self.lines = 0
        for speech in self.speeches.all():
            speakers.add(speech.speaker)
            if speech.count():
                changed.append(speech)
            self.words += speech.words
            self.lines += speech.lines
        Speech.objects.bulk_update(changed, ["words", "lines"])
        self.speaking_parts = len(speakers - {""})
        self.save(update_fields=COUNTS)
        return self.words


class Speech(AsyncModelMixin):
    scene = models.ForeignKey(Scene, on_delete=models.CASCADE, related_name="speeches")
    position = models.PositiveSmallIntegerField(help_text="Place in the scene, from 1.")
    # In capitals, so that every database tells two names apart in the same way.
    speaker = models.CharField(max_length=100, blank=True, help_text="Empty: not named.")
    text = models.TextField()
    words = models.PositiveIntegerField(default=0)
    lines = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["scene_id", "position"]
        verbose_name_plural = "speeches"
        constraints = [
            models.UniqueConstraint(fields=["scene", "position"], name="speech_once_per_position"),
        ]

    def __str__(self) -> str:
        return f"{self.speaker or '(not named)'}: {self.text[:40]}"

    def count(self) -> bool:
        """Count words and lines, without saving them; say whether they have changed."""
        before = (self.words, self.lines)
        self.words, self.lines = count_words(self.text), count_lines(self.text)
        return before != (self.words, self.lines)


class Review(models.Model):
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="reviews")
    reader = models.CharField(max_length=100)
    rating = models.PositiveSmallIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(5)]
    )
    text = models.TextField(blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created"]
        constraints = [
            models.CheckConstraint(condition=Q(rating__range=(1, 5)), name="rating_from_1_to_5"),
        ]

    def __str__(self) -> str:
        return f"{self.reader}: {self.rating}/5"
