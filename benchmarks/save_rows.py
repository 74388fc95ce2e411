"""What is measured on one database; ``benchmarks.save`` calls it where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from itertools import cycle

from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ

from benchmarks import by_hand
from benchmarks.shop.models import Catalogue, Category, GuardedArticle, Page, PlainArticle
from benchmarks.timing import Row, in_turn
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem

NAME = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[connection.vendor]
GUARD_ON = {"sqlite": (1.35, 1.2), "postgresql": (2.1, 1.8)}[connection.vendor]
GUARD_OFF = (1.1, 1.03)
LAUNCH = (2.0, 1.4)

SAVES_IN_A_BATCH = 20
LAUNCHES_IN_A_BATCH = 4
PAGES = 200
WRITTEN_BY_A_LAUNCH = (AsyncTask, TaskItem, ObjectLock, OrmQ)


def measure(rounds: int) -> tuple[list[Row], list[str]]:
    """The rows of the table, and what to print below it."""
    return [*_saves(rounds), *_launches(max(rounds // 4, 1))], list(_notes())


def _saves(rounds: int) -> Iterator[Row]:
    """An update of an existing row, in autocommit, by a model that has no work to queue."""
    row = {
        "title": "Nails",
        "slug": "nails",
        "description": "Round, bright, 65 mm. " * 10,
        "category": Category._base_manager.create(name="Ironmongery"),
        "price": Decimal("4.20"),
    }
    plain = PlainArticle._base_manager.create(**row)
    guarded = GuardedArticle._base_manager.create(**row)

    def save(article: PlainArticle | GuardedArticle) -> None:
        article.stock += 1
        article.save()

    def save_by_hand() -> None:
        guarded.stock += 1
        by_hand.guarded_save(guarded)

    compare = partial(in_turn, ours=partial(save, guarded), rounds=rounds, calls=SAVES_IN_A_BATCH)
    what = "save(), nothing to queue, guard"
    with override_settings(POWERCRUD_SETTINGS={"ASYNC_ENABLED": True, "GUARD_WRITES": True}):
        yield Row(f"{what} on / plain save()", NAME, compare(partial(save, plain)), *GUARD_ON)
        if connection.vendor == "sqlite":
            _synchronous("NORMAL")
            quick = compare(partial(save, plain))
            yield Row(f"{what} on / plain save()", f"{NAME}, NORMAL", quick, *GUARD_ON)
            _synchronous("FULL")
        yield Row(f"{what} on / the same by hand", NAME, compare(save_by_hand))
    with override_settings(POWERCRUD_SETTINGS={"ASYNC_ENABLED": True, "GUARD_WRITES": False}):
        yield Row(f"{what} off / plain save()", NAME, compare(partial(save, plain)), *GUARD_OFF)


def _synchronous(mode: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA synchronous = {mode}")


def _launches(rounds: int) -> Iterator[Row]:
    catalogues = cycle([_catalogue(PAGES) for _ in range(LAUNCHES_IN_A_BATCH)])
    compare = partial(
        in_turn,
        ours=lambda: next(catalogues).save(),
        rounds=rounds,
        calls=LAUNCHES_IN_A_BATCH,
        before_batch=_forget_launches,
    )
    what = f"save() that launches, 1 + {PAGES} locks /"
    by_itself = compare(lambda: by_hand.launch(next(catalogues)))
    yield Row(f"{what} the same by hand", NAME, by_itself, *LAUNCH)
    bare = compare(lambda: by_hand.bare_statements(next(catalogues)))
    yield Row(f"{what} its bare statements", NAME, bare)


def _notes() -> Iterator[str]:
    counts = {pages: _statements_of_a_launch(pages) for pages in (2, PAGES, 2000)}
    said = ", ".join(f"{count} with 1 + {pages} locks" for pages, count in counts.items())
    met = "" if len(set(counts.values())) == 1 else ": NO, it has to be one number"
    yield f"{NAME}: statements of a launch, with BEGIN and COMMIT: {said}{met}"
    for floor in (by_hand.launch, by_hand.bare_statements):
        catalogue = _catalogue(PAGES)
        with CaptureQueriesContext(connection) as sent:
            floor(catalogue)
        if len(sent) != counts[PAGES]:
            yield f"  {floor.__name__} sends {len(sent)}: bring benchmarks/by_hand.py up to date"
    if connection.vendor == "sqlite":
        yield (
            f"{NAME} is in WAL mode, and its commits wait for the disk, as PostgreSQL's do "
            "(synchronous=FULL, its default). With NORMAL, as in the sample project, they do not, "
            "so the guard weighs more."
        )


def _statements_of_a_launch(pages: int) -> int:
    catalogue = _catalogue(pages)
    with CaptureQueriesContext(connection) as sent:
        catalogue.save()
    locks = ObjectLock._base_manager.filter(task_id=catalogue._async_task_key).count()
    assert locks == 1 + pages, f"{locks} locks instead of 1 + {pages}"
    return len(sent)


def _catalogue(pages: int) -> Catalogue:
    catalogue = Catalogue(title=f"of {pages} pages")
    catalogue.save(skip_async=True)
    Page._base_manager.bulk_create(
        Page(number=number, catalogue=catalogue) for number in range(pages)
    )
    return catalogue


def _forget_launches() -> None:
    """Make the catalogues free again, with no dead rows for the next batch to step over."""
    for model in WRITTEN_BY_A_LAUNCH:
        table = model._meta.db_table
        with connection.cursor() as cursor:
            cursor.execute(f'DELETE FROM "{table}"')
            if connection.vendor == "postgresql":
                cursor.execute(f'VACUUM "{table}"')
