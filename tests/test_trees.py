"""Descendants down a tree, of a whole batch, behind a generic relation; in how many queries."""

from __future__ import annotations

from itertools import groupby

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, models, transaction
from django.db.models import Model
from django.test.utils import CaptureQueriesContext, isolate_apps

from powercrud_models import AsyncModelMixin, async_save, descendants, lifecycle
from powercrud_models.declarations import works_of
from powercrud_models.models import ObjectLock
from powercrud_models.resolution import keys_of
from powercrud_models.types import ObjectKey
from tests.deliveries import deliver, held_by
from tests.kinds.declared import (
    Article,
    Branch,
    Chair,
    Guest,
    Orchestra,
    Pet,
    Player,
    Remark,
    Score,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]


def keys(*objects: Model) -> set[ObjectKey]:
    return {ObjectKey.of(obj) for obj in objects}


def grow(names: str, parent: Branch | None = None) -> list[Branch]:
    return Branch.objects.bulk_create([Branch(name=name, parent=parent) for name in names.split()])


class TestRecursive:
    def test_it_reaches_every_level_and_no_other_tree(self) -> None:
        [trunk, _other_tree] = grow("trunk other")
        [left, right] = grow("left right", trunk)
        [twig] = grow("twig", left)
        [leaf] = grow("leaf", twig)
        task = trunk.prune.enqueue()
        assert held_by(task.key) == keys(trunk, left, right, twig, leaf)

    def test_without_it_the_path_is_followed_once(self) -> None:
        [trunk] = grow("trunk")
        [left] = grow("left", trunk)
        grow("twig", left)
        assert held_by(trunk.water.enqueue().key) == keys(trunk, left)

    def test_a_ring_ends(self) -> None:
        [a] = grow("a")
        [b] = grow("b", a)
        [c] = grow("c", b)
        Branch._base_manager.filter(pk=a.pk).update(parent=c)
        assert held_by(b.prune.enqueue().key) == keys(a, b, c)

    def test_its_own_child(self) -> None:
        [a] = grow("a")
        Branch._base_manager.filter(pk=a.pk).update(parent=a)
        assert held_by(a.prune.enqueue().key) == keys(a)

    def test_a_net_of_many_to_many(self) -> None:
        [a, b, c, _alone] = grow("a b c d")
        a.twins.add(b)
        b.twins.add(c)
        assert held_by(a.mirror.enqueue().key) == keys(a, b, c)

    @pytest.mark.parametrize("width", [1, 40])
    def test_one_query_for_each_level(self, width: int) -> None:
        [trunk] = grow("trunk")
        parent = trunk
        for level in range(3):
            parent = grow(" ".join(f"{level}-{n}" for n in range(width)), parent)[0]
        targets = [(trunk, [works_of(Branch)["prune"]])]
        with CaptureQueriesContext(connection) as sent:
            found = keys_of(targets, "default")
        assert len(found) == 1 + 3 * width
        assert len(sent) == 3 + 1  # the last one finds nothing

    def test_the_rows_of_all_levels_are_locked(self) -> None:
        if not connection.features.has_select_for_update:
            pytest.skip("SQLite has one writer, and no locks of rows")
        [trunk] = grow("trunk")
        [left] = grow("left", trunk)
        grow("twig", left)
        with CaptureQueriesContext(connection) as sent:
            trunk.prune.enqueue()
        levels = [query["sql"] for query in sent if "parent_id" in query["sql"]]
        assert len([sql for sql in levels if "FOR UPDATE" in sql]) == 3

    def test_a_path_to_another_model_cannot_be_followed_again(self) -> None:
        with isolate_apps("tests.kinds"):

            class Tree(AsyncModelMixin):
                class Meta:
                    app_label = "kinds"

                @async_save
                @descendants("leaves", recursive=True)
                def sweep(self) -> None: ...

            class Leaf(models.Model):
                tree = models.ForeignKey(Tree, on_delete=models.CASCADE, related_name="leaves")

                class Meta:
                    app_label = "kinds"

            with pytest.raises(ImproperlyConfigured, match="from Tree to Leaf, where it cannot"):
                works_of(Tree)

    def test_a_path_that_exists_only_in_a_child_cannot_be_followed_again(self) -> None:
        with isolate_apps("tests.kinds"):

            class Entry(AsyncModelMixin):
                inside = models.ForeignKey("Folder", models.CASCADE, related_name="entries")

                class Meta:
                    app_label = "kinds"

            class Folder(Entry):
                @async_save
                @descendants("entries", recursive=True)
                def sweep(self) -> None: ...

                class Meta:
                    app_label = "kinds"

            with pytest.raises(ImproperlyConfigured, match="from Folder to Entry, where it cannot"):
                works_of(Folder)

    def test_a_foreign_key_to_a_proxy_of_itself_can(self) -> None:
        with isolate_apps("tests.kinds"):

            class Node(AsyncModelMixin):
                parent = models.ForeignKey("Twin", models.CASCADE, related_name="children")

                class Meta:
                    app_label = "kinds"

                @async_save
                @descendants("parent", recursive=True)
                def sweep(self) -> None: ...

            class Twin(Node):
                class Meta:
                    app_label = "kinds"
                    proxy = True

            assert works_of(Node)["sweep"].paths[0].recursive


class TestBatch:
    @pytest.fixture
    def orchestras(self) -> list[Orchestra]:
        Orchestra.batches.clear()
        found = Orchestra.objects.bulk_create([Orchestra(name=name) for name in "ABC"])
        Guest.objects.bulk_create([Guest(orchestra=orchestra) for orchestra in found])
        return found

    def test_a_class_method_is_called_once_with_all_objects(
        self, orchestras: list[Orchestra]
    ) -> None:
        tune = works_of(Orchestra)["tune"]
        found = keys_of([(orchestra, [tune]) for orchestra in orchestras[:2]], "default")
        assert Orchestra.batches == [["A", "B"]]
        guests = Guest.objects.filter(orchestra__in=orchestras[:2])
        assert found == keys(*orchestras[:2], *guests)

    def test_a_launch_and_the_claim_ask_it(self, orchestras: list[Orchestra]) -> None:
        orchestras[0].save()
        assert Orchestra.batches == [["A"]]
        assert len(ObjectLock.objects.all()) == 2
        deliver()
        assert Orchestra.batches == [["A"], ["A"]]

    def test_of_names_the_work_that_it_is_for(self, orchestras: list[Orchestra]) -> None:
        assert held_by(orchestras[0].tour.enqueue().key) == keys(orchestras[0])

    def test_below_classmethod_it_cannot_see_the_class_method(self) -> None:
        with pytest.raises(TypeError, match="@descendants stands above @classmethod"):

            @classmethod  # type: ignore[misc]
            @descendants
            def guests(cls: type, choirs: object) -> None: ...

    def test_a_class_method_without_the_batch(self) -> None:
        with pytest.raises(TypeError, match="a class method is given one queryset"):

            @descendants  # type: ignore[misc]
            @classmethod
            def guests(cls: type) -> None: ...

    def test_a_static_method(self) -> None:
        with pytest.raises(TypeError, match="as a method, or as a class method of the batch"):

            @descendants  # type: ignore[misc]
            @staticmethod
            def guests() -> None: ...


def orchestras_with_players(count: int) -> list[Orchestra]:
    """Each with two players, and each of these with one of three kinds of things."""
    found = Orchestra.objects.bulk_create([Orchestra(name=str(n)) for n in range(count)])
    players = Player.objects.bulk_create(
        [Player(orchestra=orchestra) for orchestra in found for _ in range(2)]
    )
    Score.objects.bulk_create([Score(player=player) for player in players])
    Chair.objects.bulk_create([Chair(player=player) for player in players])
    Pet.objects.bulk_create([Pet(player=player) for player in players])
    Guest.objects.bulk_create([Guest(orchestra=orchestra) for orchestra in found])
    return found


def counted(sent: CaptureQueriesContext) -> int:
    """How many statements; chunks of one, as Django 5.2 has them on SQLite, count once."""
    return len([shape for shape, _ in groupby(query["sql"].partition("(")[0] for query in sent)])


def statements_of_a_launch(count: int) -> int:
    tune = works_of(Orchestra)["tune"]
    targets = [(orchestra, [tune]) for orchestra in orchestras_with_players(count)]
    with CaptureQueriesContext(connection) as sent, transaction.atomic():
        task_key = lifecycle.launch(targets, "default")
    assert len(held_by(task_key)) == count * (1 + 3 * 2 + 1)
    return counted(sent)


def statements_of_a_claim(count: int) -> int:
    tune = works_of(Orchestra)["tune"]
    targets = [(orchestra, [tune]) for orchestra in orchestras_with_players(count)]
    with transaction.atomic():
        task_key = lifecycle.launch(targets, "default")
    with CaptureQueriesContext(connection) as sent:
        claim = lifecycle.claim(task_key)
    assert claim is not None
    assert len(claim.items) == count
    return counted(sent)


def test_a_thousand_parents_cost_as_many_queries_as_one() -> None:
    """Three paths of two hops, and one method."""
    assert statements_of_a_launch(1000) == statements_of_a_launch(1)
    assert statements_of_a_claim(1000) == statements_of_a_claim(1)


def test_a_generic_relation_is_a_path() -> None:
    [mine, other] = Article.objects.bulk_create([Article(title="a"), Article(title="b")])
    [branch] = grow(str(mine.pk))  # of another model, with the same key
    remarks = [Remark.objects.create(about=mine) for _ in range(2)]
    Remark.objects.create(about=other)
    Remark.objects.create(about=branch)
    assert held_by(mine.count.enqueue().key) == keys(mine, *remarks)
