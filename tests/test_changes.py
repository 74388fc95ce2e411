"""``fields`` and ``condition``: which saves start a work."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext

from powercrud_models import ConflictError
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from tests.deliveries import lose_messages, undone
from tests.kinds.declared import Article, Branch
from tests.stage import Stage, in_standard_quotes

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


@pytest.fixture
def article(db: None) -> Article:
    [branch] = Branch.objects.bulk_create([Branch(name="oak")])
    Branch.objects.bulk_create([Branch(name="elm")])
    [article] = Article.objects.bulk_create(
        [Article(title="Trees", text="tall", price=Decimal("1.50"), branch=branch)]
    )
    return Article.objects.get(pk=article.pk)


def started(save: Callable[[], object]) -> list[str]:
    """The works that the save queues; its task is gone afterwards."""
    save()
    works = list(TaskItem.objects.order_by("pk").values_list("work", flat=True))
    lose_messages()
    ObjectLock.objects.all()._raw_delete("default")
    AsyncTask.objects.all().delete()
    return works


def change(article: Article, **values: object) -> list[str]:
    for name, value in values.items():
        setattr(article, name, value)
    return started(article.save)


@pytest.mark.parametrize(
    ("values", "works"),
    [
        ({}, []),
        ({"title": "Woods"}, []),
        ({"text": "tall"}, []),
        ({"text": "small"}, ["count"]),
        ({"branch_id": "elm"}, ["count"]),
        ({"branch": None}, ["count"]),
        ({"price": "1.5"}, []),  # the database keeps the same
        ({"price": Decimal("1.51")}, ["publish"]),
        ({"price": 2, "text": "small"}, ["count", "publish"]),
        ({"text": Concat(F("text"), Value(""))}, ["count"]),  # nobody knows before the write
    ],
    ids=str,
)
def test_an_update_starts_the_works_whose_fields_it_changes(
    article: Article, values: dict[str, Any], works: list[str]
) -> None:
    assert change(article, **values) == works


def test_it_compares_with_the_row_and_not_with_what_was_loaded(article: Article) -> None:
    Article._base_manager.update(text="changed by another")
    assert started(article.save) == ["count"]  # it writes the old text back
    assert started(article.save) == []


def test_a_save_that_creates_the_row_starts_them_all() -> None:
    article = Article(title="New")
    assert started(article.save) == ["count"]  # the other one is for updates only


def test_update_fields_are_respected(article: Article) -> None:
    article.text, article.price = "small", Decimal(9)
    assert started(lambda: article.save(update_fields=["title"])) == []
    assert started(lambda: article.save(update_fields=["text"])) == ["count"]
    article.branch_id = "elm"
    assert started(lambda: article.save(update_fields=["branch"])) == ["count"]
    article.branch_id = "oak"
    assert started(lambda: article.save(update_fields=["branch_id"])) == ["count"]


def test_deferred_fields_are_not_written_and_not_loaded(article: Article) -> None:
    deferred = Article.objects.only("title").get()
    with CaptureQueriesContext(connection) as sent:
        assert started(deferred.save) == []
    assert not any('"text"' in query["sql"] for query in sent)
    assert "text" not in vars(deferred)


def test_a_condition_is_asked_after_the_write(article: Article) -> None:
    article.is_draft = True
    assert change(article, price=Decimal(3)) == []
    article.is_draft = False
    assert change(article, price=Decimal(4)) == ["publish"]


def test_what_a_receiver_changes_is_seen(article: Article) -> None:
    def shorten(instance: Article, **_: Any) -> None:
        instance.text = "by a receiver"

    pre_save.connect(shorten, sender=Article)
    try:
        assert started(article.save) == ["count"]
        assert started(article.save) == []
    finally:
        pre_save.disconnect(shorten, sender=Article)


class TestANewInstanceWithTheKeyOfARow:
    def test_it_is_an_update(self, article: Article) -> None:
        same = {"pk": article.pk, "text": "tall", "branch_id": "oak"}
        assert started(Article(**same, title="Woods", price=Decimal("1.50")).save) == []
        assert started(Article(**same, title="Woods", price=Decimal("9.50")).save) == ["publish"]

    def test_with_a_key_that_nobody_has_it_is_created(self, article: Article) -> None:
        assert started(Article(pk=article.pk + 1, title="Woods").save) == ["count"]

    def test_a_save_in_a_receiver_does_not_confuse_it(self, article: Article) -> None:
        def save_another(instance: Article, created: bool, **_: Any) -> None:
            if created:
                Article.objects.get(pk=article.pk).save()

        post_save.connect(save_another, sender=Article)
        try:
            new = Article(title="Woods", price=3)
            assert started(new.save) == ["count"]
        finally:
            post_save.disconnect(save_another, sender=Article)
        assert not {name for name in vars(new) if name.startswith("_row")}


def test_nobody_changes_the_row_between_the_comparison_and_the_write(
    article: Article, stage: Stage
) -> None:
    compared = stage.stop()

    def save() -> None:
        with compared.at("after", 'SELECT "kinds_article"'):
            article.save()

    writer = stage.act(save, "writer")
    compared.wait_until_reached()
    other = stage.act(lambda: Article._base_manager.update(text="by another"), "other")
    other.wait_until_blocked()
    compared.let_go()
    writer.result()
    other.result()
    assert not AsyncTask.objects.exists()
    assert Article.objects.get().text == "by another"


def test_nothing_started_is_a_save_that_still_looks(article: Article) -> None:
    holder = article.count.enqueue()
    lose_messages()
    article.title = "Woods"
    with pytest.raises(ConflictError) as caught:
        article.save()
    assert caught.value.conflicts[0].holder == holder


def test_one_query_tells_for_all_works(article: Article) -> None:
    with CaptureQueriesContext(connection) as sent:
        article.save()
    compared = [
        query["sql"]
        for query in sent
        if 'SELECT "kinds_article"' in in_standard_quotes(query["sql"])
    ]
    assert len(compared) == 1


def test_inline_it_is_the_same(article: Article, async_off: None) -> None:
    article.save()
    article.text = "small"
    article.save()
    article.refresh_from_db()
    assert (article.counted, article.published) == (1, 0)


def test_asked_for_by_name_it_always_runs(article: Article) -> None:
    assert started(article.count.enqueue) == ["count"]


def test_a_save_that_is_undone_has_changed_nothing(article: Article) -> None:
    article.text = "small"
    with undone():
        article.save()
    assert started(article.save) == ["count"]
