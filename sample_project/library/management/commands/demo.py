from __future__ import annotations

import logging
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Count, Sum

from library.cluster import Cluster
from library.models import COUNTS, Book, Scene, Speech
from library.plays import count_lines, count_words, find_plays
from powercrud_models import ConflictError, acting_user, inline
from powercrud_models.lifecycle import sweep
from powercrud_models.models import AsyncTask, ObjectLock
from powercrud_models.tasks import run_task

POLL_SECONDS = 0.1
TASK_SECONDS = 600
BAR = 40


class Command(BaseCommand):
    help = "The main job on real data: save plays, watch their work, and prove what came of it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--inline", action="store_true", help="without a queue")
        parser.add_argument("--limit", type=int, metavar="N", help="only the first N plays")

    def handle(self, *args: Any, limit: int | None, **options: Any) -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the cluster then, too
        logging.getLogger("django-q").setLevel(logging.WARNING)
        self.times: dict[str, float] = {}
        self.locks_held = 0
        try:
            self.prepare(limit)
            if options["inline"]:
                self.save_inline()
            else:
                self.save_queued()
            self.prove()
        except KeyboardInterrupt:
            sys.exit(130)

    def prepare(self, limit: int | None) -> None:
        self.say("Migrate, and load the plays")
        call_command("migrate", verbosity=0)
        with self.timed("load the plays"):
            call_command("load_library", limit=limit, stdout=self.stdout)
        self.user, _ = get_user_model().objects.get_or_create(username="editor")

    def forget_counts(self) -> None:
        """So that a second run has something to count, too; ``update`` starts no work."""
        for model in (Book, Scene):
            model.objects.update(**dict.fromkeys(COUNTS, 0))
        Speech.objects.update(words=0, lines=0)

    # ------------------------------------------------------------------------ with a queue

    def save_queued(self) -> None:
        self.say("Start a qcluster")
        try:
            with Cluster() as cluster, acting_user(self.user):
                self.settle()
                self.save_one_then_all(cluster)
                self.say("Stop the qcluster")
        except KeyboardInterrupt:
            self.stdout.write("\nInterrupted. What was begun is finished first.")
            raise
        finally:
            self.settle()

    def save_one_then_all(self, cluster: Cluster) -> None:
        self.forget_counts()
        book = Book.objects.annotate(size=Count("scenes__speeches")).latest("size")
        self.say(f"Save “{book}”: its work is queued, its scenes and speeches are locked")
        with self.timed("save one play and wait"):
            self.save_and_be_refused(book)
            self.watch(book.async_task, cluster)
        self.say("Save every play in one transaction: that is one task")
        with self.timed("save all plays and wait"):
            self.watch(self.save_all(), cluster)

    def settle(self) -> None:
        """Finish what an interrupted run has left behind, so that its locks are free."""
        deadline = time.monotonic() + TASK_SECONDS
        while left := AsyncTask.objects.filter(status__in=AsyncTask.UNFINISHED).values_list("pk"):
            for (task_key,) in left:
                run_task(task_key)
            sweep()
            if time.monotonic() > deadline:
                raise CommandError("A task of an earlier run does not come to an end.")
            time.sleep(POLL_SECONDS)

    def save_and_be_refused(self, book: Book) -> None:
        """Save the play, and one of its scenes while the play's task still holds it."""
        book.save()
        scene = book.scenes.reverse()[0]
        try:
            scene.save()
        except ConflictError as conflict:
            self.stdout.write(f"  A save of “{scene}” was refused: {conflict}")
        else:
            raise CommandError(f"“{scene}” was saved although its play is being recounted.")

    def save_all(self) -> AsyncTask:
        before = AsyncTask.objects.count()
        with transaction.atomic():
            for book in Book.objects.all():
                book.save()
        [task] = AsyncTask.objects.all()[: AsyncTask.objects.count() - before]
        return task

    def watch(self, task: AsyncTask | None, cluster: Cluster) -> None:
        """Show how far the task is until it ends."""
        assert task is not None, "a save with the queue on has a task"
        self.locks_held = max(self.locks_held, task.locks.count())
        deadline = time.monotonic() + TASK_SECONDS
        while not task.is_finished:
            self.show(task)
            if not cluster.is_running or time.monotonic() > deadline:
                raise CommandError(f"The task does not come to an end.\n{cluster.log()}")
            time.sleep(POLL_SECONDS)
            task.refresh_from_db()
        self.show(task)
        self.stdout.write("")
        task.result(timeout=0)  # raises what went wrong

    def show(self, task: AsyncTask) -> None:
        progress = task.progress
        done = round(progress.fraction * BAR)
        line = f"  {task.status:<12}|{'#' * done}{'.' * (BAR - done)}| {progress}"
        if self.stdout.isatty():
            self.stdout.write(f"\r{line}", ending="")
            self.stdout.flush()
        elif line != getattr(self, "shown", None):
            self.stdout.write(line)
        self.shown = line

    # --------------------------------------------------------------------- without a queue

    def save_inline(self) -> None:
        self.forget_counts()
        self.say("Save every play inline: the work runs inside save(), in this process")
        with self.timed("save all plays"), acting_user(self.user), inline():
            for book in Book.objects.all():
                book.save()
                self.stdout.write(f"  {book.words:>6} words  {book}")

    # ------------------------------------------------------------------------------- proof

    def prove(self) -> None:
        """Count the words in the source again, and compare with what the database says."""
        self.say("Prove it from the database")
        books = Book.objects.in_bulk(field_name="slug")
        wrong = []
        for source in find_plays():
            book = books.get(source.slug)
            if book is None:
                continue  # left out by --limit
            texts = [speech.text for scene in source.parse().scenes for speech in scene.speeches]
            words, lines = sum(map(count_words, texts)), sum(map(count_lines, texts))
            speeches = Speech.objects.filter(scene__book=book)
            found = [
                (book.words, book.lines),
                tuple(book.scenes.aggregate(w=Sum("words"), n=Sum("lines")).values()),
                tuple(speeches.aggregate(w=Sum("words"), n=Sum("lines")).values()),
            ]
            if any(each != (words, lines) for each in found):
                wrong.append(f"{book}: {found} instead of {(words, lines)}")
        locks = ObjectLock.objects.count()
        if wrong or locks:
            raise CommandError("\n".join([*wrong, f"Locks left: {locks}."]))
        self.table(
            {
                "plays": len(books),
                "scenes": Scene.objects.count(),
                "speeches": Speech.objects.count(),
                "words": sum(book.words for book in books.values()),
                "counts that are wrong": len(wrong),
                "locks held at most": self.locks_held,
                "locks left": locks,
            }
        )

    def table(self, counts: dict[str, int]) -> None:
        rows = [(name, f"{count:,}") for name, count in counts.items()]
        rows += [(name, f"{seconds:.2f} s") for name, seconds in self.times.items()]
        for name, value in rows:
            self.stdout.write(f"  {name:<26}{value:>12}")

    def say(self, what: str) -> None:
        self.stdout.write(self.style.MIGRATE_HEADING(what))

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.times[what] = time.monotonic() - start
