"""Declarations above classes: of what is inherited, and of every work of the class."""

from __future__ import annotations

import pickle

import pytest
from django.apps import apps as django_apps
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from powercrud_models import AsyncModelMixin, async_method, async_save, descendants
from powercrud_models.declarations import works_of
from powercrud_models.types import ObjectKey, RelationPath
from tests.deliveries import deliver, held_by, task_of
from tests.kinds.declared import Bar, Movement, Piece, ShortSymphony, Symphony


@pytest.fixture
def symphony(transactional_db: None) -> Symphony:
    symphony = Symphony(name="Ninth")
    symphony.save(skip_async=True)
    movement = Movement.objects.create(symphony=symphony)
    Bar.objects.create(movement=movement)
    Symphony._base_manager.update(rehearsals=0)
    return symphony


def test_the_class_is_the_same_class() -> None:
    assert django_apps.get_model("kinds", "Symphony") is Symphony
    assert type(Symphony(name="x")) is Symphony
    assert type(pickle.loads(pickle.dumps(Symphony(name="x")))) is Symphony


def test_inherited_work_runs_under_the_locks_of_the_class(symphony: Symphony, queued: None) -> None:
    symphony.save()
    task = task_of(symphony)
    movement = Movement.objects.get()
    assert held_by(task.key) == {*ObjectKey.all_of(symphony), ObjectKey.of(movement)}
    assert task.label.startswith("rehearse with everybody")
    deliver()
    symphony.refresh_from_db()
    assert symphony.rehearsals == 1
    assert not held_by(task.key)


def test_it_can_be_called_and_enqueued(symphony: Symphony, immediate: None) -> None:
    assert symphony.rehearse() == 1
    assert symphony.rehearse.enqueue().result(timeout=10) == 1  # type: ignore[attr-defined]


def test_the_base_stays_without_work() -> None:
    assert not works_of(Piece)


def test_a_subclass_overrides_the_options_and_extends_the_descendants() -> None:
    [inherited] = works_of(Symphony).values()
    [own] = works_of(ShortSymphony).values()
    assert (inherited.options.on, own.options.on) == ("save", "create")
    assert inherited.paths == (RelationPath("movements"),)
    assert own.paths == (RelationPath("movements"), RelationPath("movements__bars"))


def test_a_proxy_locks_what_it_adds(symphony: Symphony, queued: None) -> None:
    short = ShortSymphony.objects.get()
    short.save()
    assert short.async_task is None  # only a creation starts it
    task = short.rehearse.enqueue()  # type: ignore[attr-defined]
    assert ObjectKey.of(Bar.objects.get()) in held_by(task.key)


def test_async_method_above_a_class() -> None:
    class Base:
        def recount(self) -> int:
            return 2

    @async_method("recount", name="count")
    class Counted(Base): ...

    assert vars(Counted)["recount"].options.name == "count"
    assert "recount" in vars(Base)
    assert not hasattr(vars(Base)["recount"], "options")


def test_inherited_work_keeps_the_name_that_is_stored() -> None:
    class Base:
        @async_save(name="stored", retries=3)
        def recount(self) -> None: ...

    @async_save("recount", on="create")
    class Child(Base): ...

    @async_save("recount", name="other")
    class Renamed(Base): ...

    options = vars(Child)["recount"].options
    assert (options.name, options.on, options.retries) == ("stored", "create", 0)
    assert vars(Renamed)["recount"].options.name == "other"


def test_several_paths_above_one_class_stand_in_reading_order() -> None:
    @descendants("b")
    @descendants("a", recursive=True)
    class Model: ...

    record = vars(Model)["_powercrud_descendants"]
    assert record.paths == (RelationPath("b"), RelationPath("a", recursive=True))


class TestMisuse:
    def test_a_method_that_does_not_exist_has_the_nearest_name(self) -> None:
        class Base:
            def recount(self) -> None: ...

        with pytest.raises(ImproperlyConfigured, match=r"no method 'recuont'; did you mean 'reco"):

            @async_save("recuont")
            class Child(Base): ...

    def test_a_name_above_a_method(self) -> None:
        with pytest.raises(TypeError, match="on a method leave the name out"):

            @async_save("recount")  # type: ignore[type-var]
            def recount(self) -> None: ...

    def test_above_a_class_without_a_name(self) -> None:
        with pytest.raises(TypeError, match=r"above a class it names a method .*'recount'"):

            @async_save  # type: ignore[arg-type]
            class Child: ...

    def test_bare_descendants_above_a_class(self) -> None:
        with pytest.raises(TypeError, match=r"above a class it takes paths"):

            @descendants
            class Child: ...

    @pytest.mark.parametrize("name", ["save", "delete"])
    def test_what_django_calls_itself(self, name: str) -> None:
        with pytest.raises(TypeError, match="must do its part now"):

            @async_save(name)
            class Child(AsyncModelMixin):
                class Meta:
                    abstract = True

    def test_what_cannot_be_work(self) -> None:
        class Base:
            async def recount(self) -> None: ...

        with pytest.raises(TypeError, match="write it as a plain function"):

            @async_save("recount")
            class Child(Base): ...

    def test_a_field_is_no_method(self) -> None:
        with pytest.raises(TypeError, match="work is a plain method"):

            @async_save("name")
            class Child(models.Model):
                name = "text"

                class Meta:
                    abstract = True
