"""Statements and loads that are compiled once do what the ORM would."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, models, transaction
from django.db.models import F
from django.db.models.functions import Coalesce
from django.test.utils import isolate_apps

from powercrud_models.compiled import Change, Compiled, together
from powercrud_models.loading import load
from powercrud_models.models import AsyncTask
from tests.kinds.models import Film, Letter, Person, Project

pytestmark = pytest.mark.django_db

RENAME = Compiled(
    lambda alias, pk, name: Change(Project.objects.using(alias).filter(pk=pk), {"name": name}),
    pk=int,
    name=str,
)
NAMED = Compiled(
    lambda alias, name: Project.objects.using(alias).filter(name=name).values_list("pk", "name"),
    name=str,
)


@pytest.fixture
def projects() -> list[Project]:
    return Project.objects.bulk_create([Project(name="a"), Project(name="b")])


def test_an_update_takes_other_values_each_time(projects: list[Project]) -> None:
    assert RENAME.change("default", pk=projects[0].pk, name="it's 100% \\ ; --") == 1
    assert RENAME.change("default", pk=projects[1].pk, name="c") == 1
    assert RENAME.change("default", pk=-1, name="d") == 0
    names = set(Project.objects.values_list("name", flat=True))
    assert names == {"it's 100% \\ ; --", "c"}


def test_a_select_too(projects: list[Project]) -> None:
    for project in projects:
        assert NAMED.select("default", name=project.name) == [(project.pk, project.name)]
    assert NAMED.select("default", name="nobody") == []


def test_it_is_built_once_for_each_way_to_build_it() -> None:
    built: list[int] = []

    def build(alias: str, limit: int, name: Any) -> Any:
        built.append(limit)
        return Project.objects.filter(name=name).values_list("pk")[:limit]

    limited = Compiled(build, name=str)
    for limit in (1, 2, 1, 2):
        limited.select("default", limit, name="a")
    assert built == [1, 2]


def test_a_value_that_the_orm_has_changed_beyond_recognition_is_noticed() -> None:
    lost = Compiled(
        lambda alias, name: Project.objects.filter(name=name + "!").values_list("pk"), name=str
    )
    with pytest.raises(AssertionError, match="lost a value"):
        lost.select("default", name="a")


def test_several_at_once(projects: list[Project]) -> None:
    first, second = projects
    with transaction.atomic():
        results = together(
            "default",
            RENAME.bind("default", pk=first.pk, name="x; y"),
            NAMED.bind("default", name="x; y"),
            RENAME.bind("default", pk=-1, name="z"),
            NAMED.bind("default", name="nobody"),
            RENAME.bind("default", pk=second.pk, name="w"),
        )
    assert results == [1, [(first.pk, "x; y")], 0, [], 1]


def test_several_at_once_are_one_round_trip_on_postgresql(
    projects: list[Project], django_assert_num_queries: Any
) -> None:
    named = NAMED.bind("default", name="a")
    with django_assert_num_queries(1 if connection.vendor == "postgresql" else 2):
        together("default", named, named)


@pytest.mark.skipif(connection.vendor == "mysql", reason="MariaDB has no UPDATE ... RETURNING")
def test_what_an_update_returns() -> None:
    task = AsyncTask.objects.create(label="a label", fence=4)
    raise_fence = Compiled(
        lambda alias, key: Change(
            AsyncTask.objects.using(alias).filter(pk=key),
            {"fence": F("fence") + 1},
            returning=("key", "fence"),
        ),
        key=str,
    )
    assert raise_fence.select("default", key=task.key) == [(task.key, 5)]


class TestLoad:
    def same(self, obj: models.Model) -> bool:
        loaded = load(type(obj), obj.pk, "default")
        fresh = type(obj)._base_manager.get(pk=obj.pk)
        assert loaded is not None
        names = [field.attname for field in obj._meta.concrete_fields]
        assert loaded._state.db == fresh._state.db == "default"
        assert not loaded._state.adding
        assert not loaded.get_deferred_fields()
        return [getattr(loaded, name) for name in names] == [getattr(fresh, name) for name in names]

    def test_a_number_a_uuid_and_text_as_keys(self, projects: list[Project]) -> None:
        person = Person.objects.create(name="O'Hara; --", retired=True)
        film = Film._base_manager.create(director=person)
        assert self.same(projects[0])
        assert self.same(film)
        assert self.same(person)  # though its own manager does not show it

    def test_the_row_of_a_child_table(self) -> None:
        [letter] = [Letter._base_manager.create(text="dear")]
        assert self.same(letter)

    @isolate_apps("tests.kinds")
    def test_every_kind_of_column(self, transactional_db: None) -> None:
        class Everything(models.Model):
            """What a driver does not hand over as Python has it, and an order with a value."""

            id = models.UUIDField(primary_key=True, default=uuid.uuid4)
            when = models.DateTimeField()
            data = models.JSONField()
            price = models.DecimalField(max_digits=8, decimal_places=2)
            is_on = models.BooleanField(default=True)
            takes = models.DurationField()

            class Meta:
                app_label = "kinds"
                ordering = (Coalesce("when", models.Value(None)), "pk")

            def __str__(self) -> str:
                return str(self.pk)

        with connection.schema_editor() as editor:
            editor.create_model(Everything)
        try:
            row = Everything._base_manager.create(
                when=datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
                data={"a": [1, None, "ü"]},
                price=Decimal("12.30"),
                takes=timedelta(hours=1, microseconds=5),
            )
            assert self.same(row)
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Everything)

    def test_nobody(self) -> None:
        assert load(Project, -1, "default") is None
        assert load(Film, uuid.uuid4(), "default") is None
