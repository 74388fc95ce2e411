"""The decorators record, and run nothing; what cannot work is refused where it is written."""

import copy
import inspect
import pickle
from typing import Any

import pytest
from django.db import models
from django.template import Context, Engine
from django.test.utils import isolate_apps
from django.utils.translation import gettext_lazy

from powercrud_models import AsyncModelMixin, async_method, async_save, descendants
from powercrud_models.declarations import works_of
from powercrud_models.exceptions import PowerCRUDError
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
from powercrud_models.types import RelationPath
from tests.kinds.models import Bolt, Brief, Letter, Memo, Note, Part, Project, Report

# ---------------------------------------------------------------------------- what is recorded


def paths(*names: str) -> tuple[RelationPath, ...]:
    return tuple(RelationPath(name) for name in names)


def test_either_order_of_the_two_records_the_same() -> None:
    below, above = works_of(Project)["rebuild"], works_of(Part)["tighten"]
    assert (below.paths, above.paths) == (paths("parts", "tags"), paths("bolts"))
    assert (below.options.on, above.options.on) == ("save", "save")


@isolate_apps("tests.kinds")
def test_several_descendants_add_up_on_both_sides_of_the_work() -> None:
    class Album(AsyncModelMixin):
        original = models.ForeignKey("self", models.CASCADE, related_name="covers")

        class Meta:
            app_label = "kinds"

        @descendants("covers")
        @descendants("original__covers")
        @async_method
        @descendants("original", "covers__covers")
        def sort(self): ...

    assert works_of(Album)["sort"].paths == paths(
        "covers", "original__covers", "original", "covers__covers"
    )


def test_every_option_arrives() -> None:
    @async_save(
        on="update",
        fields=["title"],
        condition=bool,
        name="stored",
        label="what people read",
        atomic=False,
        timeout=1.5,
        retries=2,
        retry_backoff=0.5,
        dont_retry_for=[ValueError],
        recoveries=1,
    )
    def work(self): ...

    @async_method(
        name="stored",
        label="what people read",
        atomic=False,
        timeout=1.5,
        retries=2,
        retry_backoff=0.5,
        dont_retry_for=(ValueError,),
        recoveries=1,
    )
    def asked(self): ...

    for marked, on in ((work, "update"), (asked, None)):
        options = marked.options
        assert (options.on, options.name) == (on, "stored")
        assert (options.label, options.atomic) == ("what people read", False)
        assert (options.timeout, options.retries, options.retry_backoff) == (1.5, 2, 0.5)
        assert (options.dont_retry_for, options.recoveries) == ((ValueError,), 1)
    assert (work.options.fields, work.options.condition) == (("title",), bool)


def test_without_options_it_runs_after_every_save_or_only_when_asked() -> None:
    def work(self): ...

    for marked in (async_save(work), async_save()(work)):
        assert (marked.options.on, marked.options.atomic) == ("save", True)
    for marked in (async_method(work), async_method()(work)):
        assert (marked.options.on, marked.options.atomic) == (None, True)


def test_a_declaration_cannot_be_changed() -> None:
    work: Any = works_of(Project)["rebuild"]
    with pytest.raises(AttributeError):
        work.method = "other"
    with pytest.raises(AttributeError):
        work.options.name = "other"


def test_decorating_calls_nothing() -> None:
    called = []

    class Plain:
        @async_save
        @descendants("parts")
        def work(self) -> None:
            called.append(self)

        @descendants
        def found(self) -> None:
            called.append(self)

    assert isinstance(Plain, type)
    assert called == []


# ------------------------------------------------------------------------------------- misuse

ON_SAVE = (async_save, async_save(on="create"))
"""Bare and with options: both ways must refuse."""
MARKS = (*ON_SAVE, async_method, async_method(label="a label"))


def refused(mark, method) -> str:
    with pytest.raises(TypeError) as error:
        mark(method)
    return str(error.value)


def name_of(mark) -> str:
    return "@async_save" if mark in ON_SAVE else "@async_method"


@pytest.mark.parametrize("mark", MARKS)
class TestMisuseOfWork:
    def test_a_coroutine(self, mark) -> None:
        async def recount(self): ...

        message = refused(mark, recount)
        assert message.startswith(f"{name_of(mark)} on {recount.__qualname__}: ")
        assert "write it as a plain function" in message

    def test_generators_which_a_call_does_not_run(self, mark) -> None:
        def recount(self):
            yield

        async def recount_async(self):
            yield

        for method in (recount, recount_async):
            message = refused(mark, method)
            assert message.startswith(f"{name_of(mark)} on {method.__qualname__}: ")
            assert "write it as a plain function" in message

    def test_required_arguments_are_named(self, mark) -> None:
        def recount(self, genre, *words, year, depth=1, **more): ...

        message = refused(mark, recount)
        assert recount.__qualname__ in message
        assert "nobody could pass genre, year after a save" in message
        assert "give them defaults" in message

    def test_arguments_with_defaults_are_fine(self, mark) -> None:
        def recount(self, genre=None, *words, year=1600, **more): ...

        assert mark(recount).options

    def test_a_function_that_takes_no_object(self, mark) -> None:
        def recount(): ...

        message = refused(mark, recount)
        assert message.startswith(f"{name_of(mark)} on {recount.__qualname__}: ")
        assert "takes no self" in message

    @pytest.mark.parametrize(
        "name",
        ["save", "asave", "save_base", "delete", "clean_fields", "refresh_from_db", "__init__"],
    )
    def test_what_django_calls_itself(self, mark, name) -> None:
        def method(self): ...

        method.__name__ = name
        message = refused(mark, method)
        assert f"Django calls {name}(), which must do its part now" in message
        assert "Move the slow part to a method of its own" in message

    @pytest.mark.parametrize("wrap", [staticmethod, classmethod])
    def test_a_static_or_class_method(self, mark, wrap) -> None:
        def recount(self): ...

        message = refused(mark, wrap(recount))
        assert recount.__qualname__ in message
        assert "work is a plain method" in message

    @pytest.mark.parametrize("thing", [property(lambda self: 1), 3, object()])
    def test_what_is_no_method(self, mark, thing) -> None:
        message = refused(mark, thing)
        assert message.startswith(f"{name_of(mark)} on ")
        assert "work is a plain method" in message

    @pytest.mark.parametrize("first", MARKS)
    def test_marked_twice(self, mark, first) -> None:
        def recount(self): ...

        message = refused(mark, first(recount))
        assert message.startswith(f"{name_of(mark)} on {recount.__qualname__}: ")
        assert "use one of the two" in message

    def test_bare_descendants_on_work_in_both_orders(self, mark) -> None:
        def recount(self): ...

        for message in (refused(descendants, mark(recount)), refused(mark, descendants(recount))):
            assert recount.__qualname__ in message
            assert "a method that returns descendants" in message
            assert "@descendants('scenes')" in message

    def test_descendants_of_on_work_in_both_orders(self, mark) -> None:
        def below(self): ...

        def above(self): ...

        of = descendants(of="other")
        for message in (refused(of, mark(below)), refused(mark, of(above))):
            assert "a method that returns descendants" in message


@pytest.mark.parametrize("on", ["delete", "", None, True])
def test_an_event_that_does_not_exist(on) -> None:
    with pytest.raises(TypeError, match=r"@async_save\(on=.*'save', 'create' or 'update'"):
        async_save(on=on)


@pytest.mark.parametrize("decorator", [async_save, async_method])
@pytest.mark.parametrize(
    "options",
    [
        {"name": 3},
        {"label": b"text"},
        {"atomic": "no"},
        {"name": "n" * 101},
        {"timeout": 0},
        {"timeout": "60"},
        {"timeout": True},
        {"timeout": float("inf")},
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"retry_backoff": -1},
        {"retry_backoff": "10"},
        {"retry_backoff": float("inf")},
        {"retry_backoff": float("nan")},
        {"dont_retry_for": ValueError},
        {"dont_retry_for": [KeyboardInterrupt]},
        {"dont_retry_for": [ValueError()]},
        {"recoveries": -1},
        {"recoveries": None},
    ],
)
def test_an_option_of_a_wrong_kind(decorator, options) -> None:
    ((option, value),) = options.items()
    with pytest.raises(TypeError) as error:
        decorator(**options)
    assert str(error.value).startswith(f"@{decorator.__name__}({option}={value!r}): ")


@pytest.mark.parametrize("decorator", [async_save, async_method])
def test_an_option_that_does_not_exist_is_named_with_the_nearest(decorator) -> None:
    with pytest.raises(TypeError, match="no such option; did you mean 'retries'"):
        decorator(retrys=3)


@pytest.mark.parametrize("option", [{"on": "save"}, {"fields": ["text"]}, {"condition": bool}])
def test_a_method_that_runs_when_asked_takes_no_option_of_a_save(option) -> None:
    with pytest.raises(TypeError, match=r"no such option|on must be left out"):
        async_method(**option)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fields": "text"}, "fields must be a list of names, such as"),
        ({"fields": [3]}, "fields must be a list of names, such as"),
        ({"fields": ["text"], "on": "create"}, "a save that creates the row changes every field"),
        ({"condition": "is_draft"}, "condition must be a function of the object"),
    ],
)
def test_an_option_of_a_save_of_a_wrong_kind(options, said) -> None:
    with pytest.raises(TypeError, match=said):
        async_save(**options)


def test_a_label_may_be_translated_later() -> None:
    label = gettext_lazy("count the words")
    assert async_save(label=label)(lambda self: None).options.label is label


def test_options_go_by_name_only() -> None:
    decorator: Any = async_save
    with pytest.raises(TypeError):
        decorator("recount", "create")


class TestMisuseOfDescendants:
    @pytest.mark.parametrize("paths", [("",), ("parts", ""), (3,), (None,), ("parts", Project)])
    def test_what_is_no_path(self, paths) -> None:
        with pytest.raises(TypeError, match="takes relation paths such as 'scenes'"):
            descendants(*paths)

    @pytest.mark.parametrize("thing", [property(lambda self: 1), 3])
    def test_what_is_no_method(self, thing) -> None:
        with pytest.raises(TypeError, match="it goes on a method of a model"):
            descendants("parts")(thing)

    def test_of_is_not_for_paths(self) -> None:
        def recount(self): ...

        message = refused(descendants("parts", of="recount"), recount)
        assert recount.__qualname__ in message
        assert "`of` goes with a method that returns descendants" in message

    def test_nobody_could_pass_arguments(self) -> None:
        def found(self, depth): ...

        message = refused(descendants, found)
        assert message.startswith(f"@descendants on {found.__qualname__}: ")
        assert "depth" in message

    def test_a_coroutine(self) -> None:
        async def found(self): ...

        message = refused(descendants, found)
        assert message.startswith(f"@descendants on {found.__qualname__}: ")
        assert "write it as a plain function" in message


# -------------------------------------------------------------------------- what is left as it was


def test_the_method_looks_as_before() -> None:
    render = Report.render
    assert (render.__name__, render.__qualname__) == ("render", "Report.render")
    assert render.__doc__ == "The text, so many times."
    assert render.__module__ == Report.__module__
    assert list(inspect.signature(render).parameters) == ["self", "copies"]
    assert str(inspect.signature(Report().render)) == "(copies: 'int' = 1) -> 'str'"
    assert inspect.isfunction(vars(Report)["render"])
    assert inspect.ismethod(Report().render)


@pytest.fixture
def report(db, async_off) -> Report:
    return Report.objects.create(author=Project.objects.create(name="p"), text="ab")


def test_a_direct_call_passes_arguments_and_returns_the_value(report) -> None:
    assert report.render() == "ab"
    assert report.render(2) == "abab"
    assert report.render(copies=3) == "ababab"


def test_a_direct_call_on_the_class(report) -> None:
    assert Report.render(report) == "ab"
    assert Report.render(report, 2) == "abab"
    assert Report.render(report, copies=3) == "ababab"


def test_a_direct_call_on_the_class_holds_the_same_locks(db, async_off, monkeypatch) -> None:
    held: list[tuple[str, str]] = []
    project = Project.objects.create(name="p")
    part = Part.objects.create(name="a", project=project)

    def script(project) -> None:
        held.extend(ObjectLock.objects.values_list("model", "object_id"))

    monkeypatch.setattr(Project, "script", script)
    Project.rebuild(project)
    assert sorted(held) == [("kinds.part", str(part.pk)), ("kinds.project", str(project.pk))]
    assert not ObjectLock.objects.exists()


def test_a_call_on_the_class_without_its_object() -> None:
    render: Any = Report.render
    with pytest.raises(TypeError, match=r"Report\.render\(\) was called without its object"):
        render()
    with pytest.raises(TypeError, match=r"int\.render .* int does not inherit"):
        render(3)
    with pytest.raises(TypeError, match=r"Report\.render\.enqueue.*an object"):
        render.enqueue()


def test_errors_of_a_direct_call_are_the_callers(db, async_off, monkeypatch) -> None:
    project = Project.objects.create(name="p")

    def script(project) -> None:
        Project.objects.filter(pk=project.pk).update(name="written")
        raise ZeroDivisionError

    monkeypatch.setattr(Project, "script", script)
    with pytest.raises(ZeroDivisionError):
        project.rebuild()
    project.refresh_from_db()
    assert (project.name, project.effects) == ("p", 1)  # the effect is that of create()
    assert not ObjectLock.objects.exists()


def test_work_on_an_object_that_was_never_saved(db, async_off) -> None:
    for call in (Report().render, Report().render.enqueue):
        with pytest.raises(PowerCRUDError, match=r"Report\.render.* of report None: save the obj"):
            call()
    assert not AsyncTask.objects.exists()


def test_decorated_without_the_mixin_says_so_when_called() -> None:
    class Plain:
        @async_method
        def recount(self) -> int:
            return 1

    for call in (Plain().recount, Plain().recount.enqueue, lambda: Plain.recount(Plain())):
        with pytest.raises(TypeError, match=r"Plain\.recount is decorated.*AsyncModelMixin"):
            call()


# -------------------------------------------------------------------------------- inheritance


@pytest.fixture
def steps(monkeypatch) -> list[str]:
    steps: list[str] = []
    monkeypatch.setattr(Note, "steps", steps)
    return steps


def test_an_override_calls_super(db, async_off, steps) -> None:
    letter = Letter.objects.create(text="x")
    assert steps == ["letter, then", "note"]
    assert letter.file() == "letter on note"
    assert steps == ["letter, then", "note"] * 2
    assert not ObjectLock.objects.exists()


def test_an_override_that_calls_super_is_one_work_of_a_task(
    transactional_db, immediate, steps
) -> None:
    letter = Letter.objects.create(text="x")
    assert steps == ["letter, then", "note"]
    assert letter.async_task.status == "success"
    assert TaskItem.objects.count() == 1
    assert letter.file.enqueue().result() == "letter on note"


def test_an_override_keeps_its_own_options_and_paths() -> None:
    assert works_of(Note)["file"].options.on == "save"
    assert works_of(Letter)["file"].options.on == "create"
    assert works_of(Letter)["file"].paths == paths("note_ptr")


def test_inherited_work_is_work(db, async_off, steps) -> None:
    assert list(works_of(Brief)) == ["file"]
    Brief.objects.create(text="x")
    assert steps == ["note"]


def test_an_undecorated_override_is_no_work(db, async_off, steps) -> None:
    memo = Memo.objects.create(text="x")
    assert works_of(Memo) == {}
    assert steps == []
    assert memo.file() == "memo on note"
    assert steps == ["memo, then", "note"]
    assert not hasattr(memo.file, "enqueue")


# ------------------------------------------------------------------------------- alters_data


def render(template: str, **context: object) -> str:
    engine = Engine(string_if_invalid="[invalid]")
    return engine.from_string(template).render(Context(context))


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("project.rebuild", "[invalid]"),
        ("project.rebuild.enqueue", "[invalid]"),
        ("project.save", "[invalid]"),
        ("project.asave", "[invalid]"),
        ("project.delete", "[invalid]"),
        ("project.adelete", "[invalid]"),
        ("project.name", "p"),
    ],
)
def test_a_template_starts_nothing(transactional_db, async_off, expression, shown) -> None:
    project = Project.objects.create(name="p")
    before = Project.objects.values().get()
    assert render("{{ %s }}" % expression, project=project) == shown  # noqa: UP031
    assert Project.objects.values().get() == before
    assert not AsyncTask.objects.exists()


def test_a_template_starts_nothing_that_it_is_given_by_itself(db, async_off) -> None:
    project = Project.objects.create(name="p")
    before = Project.objects.values().get()
    for method in (project.rebuild, project.rebuild.enqueue, project.save):
        assert render("{{ method }}", method=method) == "[invalid]"
    assert Project.objects.values().get() == before
    assert not AsyncTask.objects.exists()


def test_a_template_does_not_call_an_override_that_is_no_work(steps) -> None:
    assert render("{{ memo.file }}", memo=Memo(pk=1)) == "[invalid]"
    assert steps == []


@isolate_apps("tests.kinds")
def test_a_template_does_not_call_an_override_either() -> None:
    called = []

    class Album(AsyncModelMixin):
        class Meta:
            app_label = "kinds"

        def save(self, *args, **kwargs) -> None:
            called.append("save")

        def delete(self, *args, **kwargs):
            called.append("delete")

    assert render("{{ album.save }} {{ album.delete }}", album=Album()) == "[invalid] [invalid]"
    assert called == []


# --------------------------------------------------------------------------- pickle and copies


@pytest.mark.parametrize(
    "clone",
    [lambda obj: pickle.loads(pickle.dumps(obj)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)
def test_a_copy_is_the_object_without_its_task(transactional_db, queued, clone) -> None:
    project = Project.objects.create(name="p")
    task = project.async_task
    assert task is not None

    copied = clone(project)
    assert copied == project
    assert type(copied) is Project
    assert copied.name == "p"
    assert copied.async_task is None
    assert copied.holder == task  # who holds the object is no matter of the instance
    assert project.async_task == task


def test_a_copy_can_be_saved_and_called(db, async_off) -> None:
    project = pickle.loads(pickle.dumps(Project.objects.create(name="p")))
    project.save()
    project.rebuild()
    project.refresh_from_db()
    assert project.effects == 2  # the copy was made of an instance that did not know its first


def test_pickled_classes_and_methods_of_the_class_are_the_same() -> None:
    assert pickle.loads(pickle.dumps(Bolt)) is Bolt
    assert type(Bolt()) is Bolt
