"""What is measured on one database; ``benchmarks.save`` calls it where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import cycle

from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django_q.models import OrmQ

from benchmarks import by_hand
from benchmarks.shop.models import Catalogue, GuardedArticle, Page, PlainArticle
from benchmarks.timing import Row, in_turn
from powercrud_models.conf import get_conf
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem

NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
GUARD_ON = {"sqlite": (1.35, 1.2), "postgresql": (2.1, 1.8)}
GUARD_OFF = (1.1, 1.03)
LAUNCH = (2.0, 1.4)

SAVES_IN_A_BATCH = 20
LAUNCHES_IN_A_BATCH = 4
PAGES = 200
WRITTEN_BY_A_LAUNCH = (AsyncTask, TaskItem, ObjectLock, OrmQ)


def measure(rounds: int) -> tuple[list[Row], list[str]]:
    """The rows of the table, and what to print below it."""
    rows = [_save(rounds, guard=True), _save(rounds, guard=False), _launch(max(rounds // 4, 1))]
    return rows, list(_notes())


def _save(rounds: int, *, guard: bool) -> Row:
    plain = PlainArticle._base_manager.create(title="plain")
    guarded = GuardedArticle._base_manager.create(title="guarded")

    def save(article: PlainArticle | GuardedArticle) -> None:
        article.stock += 1
        article.save()

    with override_settings(POWERCRUD_SETTINGS={"ASYNC_ENABLED": True, "GUARD_WRITES": guard}):
        assert get_conf().GUARD_WRITES is guard
        compared = in_turn(
            partial(save, plain), partial(save, guarded), rounds=rounds, calls=SAVES_IN_A_BATCH
        )
    must, aim = GUARD_ON[connection.vendor] if guard else GUARD_OFF
    return Row(
        what=f"save() with nothing to queue, guard {'on' if guard else 'off'} / plain save()",
        database=NAMES[connection.vendor],
        floor=compared.floor,
        ours=compared.ours,
        figure=compared.ratio,
        must=must,
        aim=aim,
    )


def _launch(rounds: int) -> Row:
    catalogues = cycle([_catalogue(PAGES) for _ in range(LAUNCHES_IN_A_BATCH)])
    compared = in_turn(
        lambda: by_hand.launch(next(catalogues)),
        lambda: next(catalogues).save(),
        rounds=rounds,
        calls=LAUNCHES_IN_A_BATCH,
        before_batch=_forget_launches,
    )
    must, aim = LAUNCH
    return Row(
        what=f"save() that launches, 1 + {PAGES} locks / the statements by hand",
        database=NAMES[connection.vendor],
        floor=compared.floor,
        ours=compared.ours,
        figure=compared.ratio,
        must=must,
        aim=aim,
    )


def _notes() -> Iterator[str]:
    counts = {}
    for pages in (2, PAGES, 2000):
        catalogue = _catalogue(pages)
        with CaptureQueriesContext(connection) as ours:
            catalogue.save()
        assert ObjectLock._base_manager.filter(task_id=catalogue._async_task_key).count() == 1 + pages
        counts[pages] = len(ours)
    _forget_launches()
    with CaptureQueriesContext(connection) as floor:
        by_hand.launch(catalogue)
    said = ", ".join(f"{count} with 1 + {pages} locks" for pages, count in counts.items())
    yield f"{NAMES[connection.vendor]}: statements of a launch, BEGIN and COMMIT included: {said}"
    if len(set(counts.values())) > 1:
        yield "  NOT MET: their number must not depend on the number of locks"
    if len(floor) != counts[PAGES]:
        yield f"  the floor sends {len(floor)}: bring benchmarks/by_hand.py up to date"


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
