"""What a class declared: collected once, inherited, and refused with the nearest name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.apps.registry import Apps
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.test.utils import isolate_apps

from powercrud_models import AsyncModelMixin, async_method, async_save, descendants
from powercrud_models.declarations import work_by_method, works_of
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from tests.kinds.models import Bolt, Memo, Project, Report


@pytest.fixture
def apps() -> Iterator[Apps]:
    """A registry of its own for the models of a test: none of them is left behind."""
    with isolate_apps("tests.kinds") as registry:
        assert registry
        yield registry


class Isolated(AsyncModelMixin):
    class Meta:
        abstract = True
        app_label = "kinds"


class Plain(models.Model):
    """Without the mixin."""

    class Meta:
        abstract = True
        app_label = "kinds"


def messages(apps: Apps) -> list[CheckMessage]:
    found = run_checks(list(apps.get_app_configs()), tags=["powercrud_models"])
    return [message for message in found if message.obj is not None]


def refused(model: type[models.Model], apps: Apps, check_id: str = "E002") -> str:
    """What `check` says of the model: one error, and the first save says the same."""
    [message] = messages(apps)
    assert (message.id, message.obj) == (f"powercrud_models.{check_id}", model)
    with pytest.raises(ImproperlyConfigured) as error:
        model(pk=1).save()
    assert str(error.value) == message.msg
    return message.msg


# --------------------------------------------------------------------------- what is collected


def test_works_stand_in_the_order_in_which_they_were_declared(apps) -> None:
    class Album(Isolated):
        @async_save
        def second_by_name(self): ...

        @async_method
        def first_by_name(self): ...

    assert list(works_of(Album)) == ["second_by_name", "first_by_name"]
    assert works_of(Album) is works_of(Album)


def test_the_default_names() -> None:
    rebuild = works_of(Project)["rebuild"]
    assert (rebuild.method, rebuild.name, rebuild.label) == ("rebuild", "rebuild", "rebuild")
    assert works_of(Report)["render"].label == "print"


def test_a_label_is_read_and_a_name_is_stored() -> None:
    announced = works_of(Report)["announced"]
    assert (announced.method, announced.name) == ("announce", "announced")
    assert work_by_method(Report, "announce") is announced
    assert work_by_method(Report, "announced") is None


@pytest.mark.parametrize(
    ("on", "on_create", "on_update"),
    [("save", True, True), ("create", True, False), ("update", False, True)],
)
def test_which_saves_start_it(apps, on, on_create, on_update) -> None:
    class Album(Isolated):
        @async_save(on=on)
        def sort(self): ...

    sort = works_of(Album)["sort"]
    assert (sort.starts_on(created=True), sort.starts_on(created=False)) == (on_create, on_update)


def test_what_runs_only_when_asked_starts_on_no_save() -> None:
    render = works_of(Report)["render"]
    assert not render.starts_on(created=True)
    assert not render.starts_on(created=False)


def test_the_name_is_the_identity_of_the_stored_item(transactional_db, queued) -> None:
    report = Report.objects.create(author=Project(pk=Project.objects.create(name="p").pk))
    assert report.async_task.items.get().work == "announced"


def test_a_renamed_method_runs_what_was_stored_under_its_name(
    transactional_db, queued, monkeypatch
) -> None:
    """The deploy that renames the method finds a task of the old code."""
    from powercrud_models.tasks import run_task

    project = Project.objects.create(name="p")
    run_task(project.async_task.key)
    task = project.rebuild.enqueue()
    TaskItem.objects.filter(task=task).update(work="recompute")
    run_task(task.key)
    task.refresh_from_db()
    assert task.status == "failed"
    assert "kinds.project declares no work named “recompute”" in task.error
    assert "@async_save(name='recompute')" in task.error
    assert not ObjectLock.objects.exists()


def test_of_is_a_method_or_a_stored_name(apps) -> None:
    class Album(Isolated):
        @async_save(name="stored")
        def sort(self): ...

        @async_save
        def scan(self): ...

        @descendants(of="sort")
        def by_method(self): ...

        @descendants(of="stored")
        def by_name(self): ...

        @descendants(of="scan")
        def of_the_other(self): ...

        @descendants
        def of_all(self): ...

        @descendants()
        def of_all_with_parentheses(self): ...

    of_every_work = ("of_all", "of_all_with_parentheses")
    assert works_of(Album)["stored"].methods == ("by_method", "by_name", *of_every_work)
    assert works_of(Album)["scan"].methods == ("of_the_other", *of_every_work)


def test_inheritance_extends_and_overrides(apps) -> None:
    class Base(Isolated):
        @async_save(name="stored", label="base")
        @descendants("album")
        def sort(self): ...

        @async_save
        def scan(self): ...

        @descendants
        def found(self): ...

        class Meta(Isolated.Meta):
            abstract = True

    class Album(Base):
        parent = models.ForeignKey("self", models.CASCADE)

        @async_method(label="own")
        def sort(self): ...

        @async_method
        def own(self): ...

        @descendants(of="own")
        def more(self): ...

    works = works_of(Album)
    assert list(works) == ["sort", "scan", "own"]
    assert (works["sort"].label, works["sort"].options.on, works["sort"].paths) == ("own", None, ())
    assert works["scan"].methods == ("found",)
    assert works["own"].methods == ("found", "more")


def test_a_plain_mixin_may_declare_for_models(apps) -> None:
    class Sorted:
        @async_save
        def sort(self): ...

    class Album(Sorted, Isolated): ...

    assert list(works_of(Album)) == ["sort"]
    assert messages(apps) == []


def test_the_wrong_order_of_bases_is_an_error_of_python(apps) -> None:
    bases: Any = (models.Model, AsyncModelMixin)
    with pytest.raises(TypeError, match="MRO"):
        type("Album", bases, {"__module__": __name__, "Meta": Isolated.Meta})


def test_the_models_of_the_test_suite_are_in_order() -> None:
    messages = [(each.id, each.obj) for each in run_checks(tags=["powercrud_models"])]
    assert messages == [("powercrud_models.W005", Memo)]  # it is there to take the mark away
    assert works_of(Bolt) == {}


def test_w005_an_override_without_the_decorator() -> None:
    [warning] = run_checks(tags=["powercrud_models"])
    assert warning.msg.startswith("Memo.file overrides a decorated method without the decorator")
    assert not warning.is_serious()


def test_e009_a_field_that_does_not_exist_has_the_nearest_name(apps) -> None:
    class Album(Isolated):
        title = models.CharField(max_length=10)

        @async_save(fields=["titel"])
        def sort(self): ...

    assert refused(Album, apps, "E009") == (
        "Album.sort: @async_save(fields=['titel']): Album saves no field 'titel'; did you mean "
        "'title'?"
    )


def test_e009_many_to_many_is_not_saved_with_the_row(apps) -> None:
    class Album(Isolated):
        covers = models.ManyToManyField("self")

        @async_save(fields=["covers"])
        def sort(self): ...

    assert "Album saves no field 'covers'; it has ['id']." in refused(Album, apps, "E009")


def test_e002_a_path_above_the_class_that_does_not_exist(apps) -> None:
    @descendants("cover")
    class Album(Isolated):
        original = models.ForeignKey("self", models.CASCADE, related_name="covers")

    assert "Album: @descendants('cover'): Album has no relation 'cover'; did you mean 'covers'" in (
        refused(Album, apps)
    )


def test_e001_reaches_declarations_above_a_class(apps) -> None:
    @descendants("covers")
    class Album(Plain):
        original = models.ForeignKey("self", models.CASCADE, related_name="covers")

    [message] = messages(apps)
    assert (message.id, message.obj) == ("powercrud_models.E001", Album)
    assert message.msg.startswith("Album is decorated, but Album does not inherit")


# ------------------------------------------------------------------------ E001: without the mixin


def mark_nothing(method: Any) -> Any:
    return method


@pytest.mark.parametrize(
    "mark",
    [
        async_save,
        async_method,
        descendants,
        descendants("parts"),
        lambda method: staticmethod(async_save(method)),
    ],
    ids=["async_save", "async_method", "bare", "paths", "hidden"],
)
def test_e001_decorated_without_the_mixin(apps, mark) -> None:
    class Album(Plain):
        def harmless(self): ...

        @mark
        def sort(self): ...

    [message] = messages(apps)
    assert (message.id, message.obj) == ("powercrud_models.E001", Album)
    assert message.is_serious()
    assert "Album.sort is decorated, but Album does not inherit from AsyncModelMixin" in message.msg
    assert message.hint == "class Album(AsyncModelMixin, ...)"


def test_e001_reaches_what_is_inherited(apps) -> None:
    class Base(Plain):
        @async_save
        def sort(self): ...

        class Meta(Plain.Meta):
            abstract = True

    class Album(Base): ...

    assert [(m.id, m.obj) for m in messages(apps)] == [("powercrud_models.E001", Album)]


def test_no_e001_without_a_decorator(apps) -> None:
    class Album(Plain):
        def sort(self): ...

    assert messages(apps) == []


# ------------------------------------------------------------------- E002: what cannot be meant


def test_e002_a_path_that_does_not_exist_has_the_nearest_name(apps) -> None:
    class Song(Plain):
        album = models.ForeignKey("Album", models.CASCADE, related_name="songs")

    class Album(Isolated):
        @async_save
        @descendants("songs__album", "sngs")
        def sort(self): ...

    assert refused(Album, apps) == (
        "Album.sort: @descendants('sngs'): Album has no relation 'sngs'; did you mean 'songs'?"
    )


def test_e002_names_the_model_of_the_hop_that_is_wrong(apps) -> None:
    class Song(Plain):
        album = models.ForeignKey("Album", models.CASCADE, related_name="songs")

    class Album(Isolated):
        @async_save
        @descendants("songs__albums")
        def sort(self): ...

    assert refused(Album, apps) == (
        "Album.sort: @descendants('songs__albums'): Song has no relation 'albums'; "
        "did you mean 'album'?"
    )


def test_e002_without_a_near_name_lists_what_there_is(apps) -> None:
    class Song(Plain):
        album = models.ForeignKey("Album", models.CASCADE, related_name="songs")

    class Album(Isolated):
        twin = models.OneToOneField("self", models.CASCADE, related_name="+")

        @async_save
        @descendants("xyz")
        def sort(self): ...

    assert "Album has no relation 'xyz'; it has ['songs', 'twin']." in refused(Album, apps)


@pytest.mark.parametrize(
    "path",
    ["title", "songs__title", "songs_set", "hidden", "+", "__", "songs__", "pk", "songs__pk"],
)
def test_e002_what_is_no_relation(apps, path) -> None:
    class Song(Plain):
        title = models.TextField()
        album = models.ForeignKey("Album", models.CASCADE, related_name="songs")
        hidden = models.ForeignKey("Album", models.CASCADE, related_name="+")

    class Album(Isolated):
        title = models.TextField()

        @async_save
        @descendants(path)
        def sort(self): ...

    assert f"Album.sort: @descendants({path!r}): " in refused(Album, apps)


def test_e002_the_name_of_the_attribute_is_not_the_name_in_filter(apps) -> None:
    class Song(Plain):
        album = models.ForeignKey("Album", models.CASCADE)

    class Album(Isolated):
        @async_save
        @descendants("song_set")
        def sort(self): ...

    assert refused(Album, apps).endswith("did you mean 'song'?")


def test_e005_one_name_for_two_works(apps) -> None:
    class Album(Isolated):
        @async_save
        def sort(self): ...

        @async_save(name="sort")
        def scan(self): ...

    assert refused(Album, apps, "E005") == (
        "Album.scan: the name 'sort' is taken by Album.sort; give one of them another name."
    )


def test_e006_of_no_work_has_the_nearest_name(apps) -> None:
    class Album(Isolated):
        @async_save
        def sort(self): ...

        @descendants(of="srot")
        def found(self): ...

    assert refused(Album, apps, "E006") == (
        "Album.found: @descendants(of='srot'): Album has no such work; did you mean 'sort'?"
    )


def test_e007_paths_on_a_method_that_is_no_work(apps) -> None:
    class Album(Isolated):
        @descendants("album")
        def sort(self): ...

    message = refused(Album, apps, "E007")
    assert message.startswith("Album.sort: @descendants('album',) stands on a method")
    assert "add @async_save or @async_method" in message


def polite(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def inner(self):
        return method(self)

    return inner


def rude(method: Callable[..., Any]) -> Callable[..., Any]:
    def inner(self):
        return method(self)

    return inner


@pytest.mark.parametrize("mark", [async_save, async_method, async_save(name="stored")])
@pytest.mark.parametrize("above", [staticmethod, classmethod, property, polite])
def test_e008_a_decorator_that_hides_work(apps, above, mark) -> None:
    class Album(Isolated):
        @above
        @mark
        def sort(self): ...

    assert refused(Album, apps, "E008") == (
        "Album.sort: what stands above @async_save, @async_method or @descendants hides it. "
        "Put the marks on top, on a plain method."
    )


@pytest.mark.parametrize("above", [staticmethod, classmethod, property])
def test_e008_a_decorator_that_hides_descendants(apps, above) -> None:
    class Album(Isolated):
        @above
        @descendants
        def found(self): ...

    assert "Album.found: what stands above" in refused(Album, apps, "E008")


def test_e008_work_under_another_name_than_its_functions(apps) -> None:
    class Album(Isolated):
        @async_save
        @rude
        def sort(self): ...

    message = refused(Album, apps, "E008")
    assert message.startswith("Album.sort: this work is a function named 'inner'.")
    assert "functools.wraps" in message


def test_a_decorator_below_the_mark_is_part_of_the_work(apps) -> None:
    class Album(Isolated):
        @async_save
        @polite
        def sort(self): ...

        @polite
        @descendants
        def found(self): ...

    assert works_of(Album)["sort"].methods == ("found",)
    assert messages(apps) == []


# -------------------------------------------------------------------------------- E003, E004


@pytest.mark.parametrize("method", ["save", "asave"])
def test_e003_an_override_that_cannot_take_skip_async(apps, method) -> None:
    def override(self, *args, force_insert=False): ...

    album = type(
        "Album", (Isolated,), {"__module__": __name__, "Meta": Isolated.Meta, method: override}
    )
    [message] = messages(apps)
    assert (message.id, message.obj) == ("powercrud_models.E003", album)
    assert message.msg.startswith(f"Album.{method}() cannot take skip_async")
    assert message.hint is not None
    assert f"def {method}(self, *args, **kwargs)" in message.hint


@pytest.mark.parametrize("method", ["save", "asave"])
@pytest.mark.parametrize(
    "override",
    [lambda self, *args, **kwargs: None, lambda self, *, skip_async=None, using=None: None],
    ids=["kwargs", "by name"],
)
def test_no_e003_for_an_override_that_can(apps, method, override) -> None:
    type("Album", (Isolated,), {"__module__": __name__, "Meta": Isolated.Meta, method: override})
    assert messages(apps) == []


@pytest.mark.parametrize("name", ["holder", "async_task"])
@pytest.mark.parametrize(
    "attribute",
    [
        models.TextField(),
        models.ForeignKey("Album", models.CASCADE, related_name="+"),
        models.ManyToManyField("Album", related_name="+"),
        property(lambda self: None),
        lambda self: None,
        None,
        async_save(lambda self: None),
    ],
    ids=["field", "foreign key", "many-to-many", "property", "method", "value", "work"],
)
def test_e004_what_hides_an_attribute_of_the_mixin(apps, name, attribute) -> None:
    if isinstance(attribute, models.Field):
        attribute = attribute.clone()
    elif callable(attribute):
        attribute.__name__ = name
    album = type(
        "Album", (Isolated,), {"__module__": __name__, "Meta": Isolated.Meta, name: attribute}
    )
    [message] = messages(apps)
    assert (message.id, message.obj) == ("powercrud_models.E004", album)
    assert message.msg == f"Album.{name} hides AsyncModelMixin.{name}."
    assert message.hint == "Give the field, the relation or the method another name."


@pytest.mark.parametrize("name", ["holder", "async_task"])
def test_e004_a_relation_from_another_model(apps, name) -> None:
    class Album(Isolated): ...

    class Song(Plain):
        album = models.ForeignKey(Album, models.CASCADE, related_name=name)

    [message] = messages(apps)
    assert (message.id, message.obj) == ("powercrud_models.E004", Album)


def test_several_faults_are_all_told(apps) -> None:
    class Album(Isolated):
        holder = models.TextField()  # type: ignore[assignment]

        @async_save
        @descendants("nothing")
        def sort(self): ...

        def save(self): ...  # type: ignore[override]

        async def asave(self): ...  # type: ignore[override]

    class Song(Plain):
        @async_save
        def sort(self): ...

    assert sorted(str(message.id) for message in messages(apps)) == [
        "powercrud_models.E001",
        "powercrud_models.E002",
        "powercrud_models.E003",
        "powercrud_models.E003",
        "powercrud_models.E004",
    ]


def test_a_faulty_model_writes_nothing(transactional_db, immediate, apps) -> None:
    class Faulty(Project):
        @async_save
        @descendants("nothing")
        def sort(self): ...

        class Meta:
            proxy = True
            app_label = "kinds"

    with pytest.raises(ImproperlyConfigured, match=r"Faulty\.sort: @descendants\('nothing'\)"):
        Faulty.objects.create(name="p")
    assert not Project.objects.exists()
    assert not AsyncTask.objects.exists()
    assert not ObjectLock.objects.exists()
