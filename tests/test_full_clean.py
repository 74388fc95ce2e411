"""``full_clean()`` reports what the save would run into, so that forms do."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import connection, transaction
from django.forms import modelform_factory

from powercrud_models import AsyncModelMixin, ConflictError, acting_user, hold
from powercrud_models.lifecycle import claim
from powercrud_models.models import AsyncTask, TaskItem
from powercrud_models.stores import get_store
from powercrud_models.tasks import run_task
from powercrud_models.types import ObjectKey
from tests.deliveries import expire_lease, lose_messages, messages, rows
from tests.kinds.declared import Article, Remark
from tests.kinds.models import Crew, Goods, Member, Parcel, Part, Person, Project, Seat
from tests.promises.made import make_crew, make_project

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

CrewForm: Any = modelform_factory(Crew, fields=["name"])


def held(obj: Any) -> AsyncTask:
    """Another task holds this object alone."""
    task = AsyncTask.objects.create(label="at work")
    task.items.create(model=obj._meta.label_lower, object_id=str(obj.pk), work="nothing")
    with transaction.atomic():
        get_store().acquire(task.key, ObjectKey.all_of(obj), "default")
    return task


def conflicts_of(obj: AsyncModelMixin, **how: Any) -> list[ValidationError]:
    """The conflicts that its validation reports."""
    with pytest.raises(ValidationError) as invalid:
        obj.full_clean(**how)
    errors = invalid.value.error_dict.get(NON_FIELD_ERRORS, [])
    return [error for error in errors if error.code == "conflict"]


HOW: list[dict[str, Any]] = [{}, {"exclude": {"crew"}, "validate_unique": False}]


class TestAHeldObject:
    @pytest.mark.parametrize("how", HOW)
    def test_is_not_valid(self, how: dict[str, Any]) -> None:
        _, member = make_crew()
        task = held(member)
        [error] = conflicts_of(member, **how)
        assert error.params is not None
        assert (error.params["object"], error.params["task"]) == (f"member {member.pk}", task.key)
        [message] = error.messages
        assert message.startswith(f"member {member.pk} is held by the task “at work” since ")

    def test_is_valid_when_the_holder_has_ended(self) -> None:
        _, member = make_crew()
        task = member.train.enqueue()
        assert conflicts_of(member)
        run_task(task.key)
        member.full_clean()

    def test_does_not_tell_whose_task_it_is(self) -> None:
        _, member = make_crew()
        with acting_user(User.objects.create_user("zoe")):
            member.train.enqueue()
        with pytest.raises(ValidationError) as invalid:
            member.full_clean()
        assert "zoe" not in str(invalid.value)

    def test_is_reported_together_with_other_errors(self) -> None:
        _, member = make_crew()
        held(member)
        member.name = ""
        with pytest.raises(ValidationError) as invalid:
            member.full_clean()
        errors = invalid.value.error_dict
        assert set(errors) == {"name", NON_FIELD_ERRORS}
        assert [error.code for error in errors["name"]] == ["blank"]
        assert [error.code for error in errors[NON_FIELD_ERRORS]] == ["conflict"]

    def test_stands_beside_other_non_field_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def clean(member: Member) -> None:
            raise ValidationError("no", code="never")

        monkeypatch.setattr(Member, "clean", clean)
        _, member = make_crew()
        held(member)
        with pytest.raises(ValidationError) as invalid:
            member.full_clean()
        codes = [error.code for error in invalid.value.error_dict[NON_FIELD_ERRORS]]
        assert codes == ["never", "conflict"]

    def test_leaves_other_errors_as_they_are(self) -> None:
        _, member = make_crew()
        member.name = ""
        with pytest.raises(ValidationError) as invalid:
            member.full_clean()
        assert set(invalid.value.error_dict) == {"name"}
        member.full_clean(exclude=iter(["name"]))

    def test_of_a_composite_key(self) -> None:
        (seat,) = Seat.objects.bulk_create([Seat(row="A", number=1)])
        seat.reserve.enqueue()
        assert len(conflicts_of(seat, exclude=["film"])) == 1


class TestDescendants:
    def test_that_the_save_would_lock_make_the_object_invalid(self) -> None:
        crew, member = make_crew()
        held(member)
        [error] = conflicts_of(crew)
        assert error.params is not None
        assert error.params["object"] == f"member {member.pk}"
        with pytest.raises(ConflictError):
            crew.save()

    def test_that_no_work_of_a_save_touches_do_not(self) -> None:
        crew, member = make_crew()
        held(crew)
        member.full_clean()  # it locks its crew when it is new only
        member.save()

    def test_are_not_asked_for_where_something_else_is_wrong(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A method that finds them may rely on valid values."""
        monkeypatch.setattr(Crew.members, "__code__", (lambda self: 1 / 0).__code__)
        crew, _ = make_crew()
        with pytest.raises(ZeroDivisionError):
            crew.full_clean()
        crew.name = ""
        assert not conflicts_of(crew)

    def test_count_where_the_save_changes_the_field_that_starts_the_work(self) -> None:
        [article] = Article.objects.bulk_create([Article(title="Trees", text="tall")])
        remark = Remark.objects.create(about=article)
        held(remark)
        article.title = "Woods"
        article.full_clean(exclude=["branch"])
        article.text = "small"
        assert len(conflicts_of(article, exclude=["branch"])) == 1
        with pytest.raises(ConflictError):
            article.save()

    @pytest.mark.parametrize("is_sealed", [True, False])
    def test_count_where_the_condition_of_the_work_is_met(self, is_sealed: bool) -> None:
        [parcel] = Parcel.objects.bulk_create([Parcel(name="x", is_sealed=is_sealed)])
        [goods] = Goods.objects.bulk_create([Goods(parcel=parcel)])
        held(goods)
        if is_sealed:
            parcel.full_clean()
            parcel.save()
        else:
            assert len(conflicts_of(parcel)) == 1

    def test_are_shown_five_and_the_others_counted(self) -> None:
        project = make_project(parts=7)
        for part in Part.objects.all():
            held(part)
        errors = conflicts_of(project)
        assert len(errors) == 6
        assert errors[-1].messages == ["So are 2 more objects."]

    def test_take_the_same_number_of_queries_however_many_there_are(
        self, django_assert_num_queries
    ) -> None:
        for parts in (1, 50):
            project = make_project(name=str(parts), parts=parts)
            with django_assert_num_queries(4):  # two paths, a method's queryset, the locks
                project.full_clean()


class TestNoConflict:
    def test_of_an_object_that_is_not_saved_yet(self, django_assert_num_queries) -> None:
        with django_assert_num_queries(0):
            Project(name="bridge").full_clean()
        crew, _ = make_crew()
        held(crew)
        with django_assert_num_queries(1):  # the crew must exist
            Member(name="Ben", crew=crew).full_clean()

    def test_with_the_locks_of_the_own_transaction(self) -> None:
        crew, member = make_crew()
        with transaction.atomic():
            crew.save()
            member.full_clean()
            crew.full_clean()
        assert conflicts_of(member)

    def test_with_the_locks_of_the_own_task(self) -> None:
        crew, member = make_crew()
        Crew.script = lambda crew: [each.full_clean() for each in (crew, member)]
        with hold(member):
            member.full_clean()
            crew.full_clean()
        task = crew.post.enqueue()
        run_task(task.key)
        task.refresh_from_db()
        assert (task.status, task.error) == (AsyncTask.Status.SUCCESS, "")

    def test_with_the_guard_off(self, settings, django_assert_num_queries) -> None:
        _, member = make_crew()
        held(member)
        settings.POWERCRUD_SETTINGS = {**settings.POWERCRUD_SETTINGS, "GUARD_WRITES": False}
        with django_assert_num_queries(0):
            member.full_clean(exclude=["crew"])
        member.save()

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_on_another_database(self) -> None:
        _, member = make_crew()
        held(member)
        (there,) = Member.objects.using("other").bulk_create([Member(pk=member.pk, name="Ada")])
        there.full_clean(exclude=["crew"])

    def test_nothing_is_written_or_locked(self) -> None:
        [article] = Article.objects.bulk_create([Article(title="Trees", text="tall")])
        article.text = "small"
        before = rows()
        statements: list[str] = []

        def watch(execute, sql, *rest):
            statements.append(sql)
            return execute(sql, *rest)

        with connection.execute_wrapper(watch):
            article.full_clean(exclude=["branch"])
        assert statements
        assert {sql.split()[0] for sql in statements} == {"SELECT"}
        assert not [sql for sql in statements if "FOR UPDATE" in sql]
        assert rows() == before


class TestForms:
    def test_show_it_instead_of_an_error(self) -> None:
        crew, member = make_crew()
        task = held(member)
        form = CrewForm({"name": "day"}, instance=crew)
        assert not form.is_valid()
        assert form.has_error(NON_FIELD_ERRORS, "conflict")
        assert task.label in str(form.non_field_errors())

    def test_escape_it(self) -> None:
        crew, _ = make_crew()
        task = held(crew)
        AsyncTask.objects.filter(pk=task.pk).update(label="<b>")
        form = CrewForm({"name": "day"}, instance=crew)
        assert "&lt;b&gt;" in str(form.errors)
        assert "<b>" not in str(form.errors)

    def test_save_what_is_valid(self) -> None:
        crew, _ = make_crew()
        form = CrewForm({"name": "day"}, instance=crew)
        assert form.is_valid()
        form.save()
        assert Crew.objects.get().name == "day"


class TestADeadHolder:
    def test_is_taken_care_of_as_by_a_save(self) -> None:
        _, member = make_crew()
        task = member.train.enqueue()
        lose_messages()
        claim(task.key)
        expire_lease(task.key)
        assert conflicts_of(member)
        assert messages() == [task.key]

    def test_is_taken_care_of_when_the_transaction_has_ended(self) -> None:
        _, member = make_crew()
        task = member.train.enqueue()
        lose_messages()
        claim(task.key)
        expire_lease(task.key)
        with transaction.atomic():
            assert conflicts_of(member)
            assert messages() == []
        assert messages() == [task.key]

    def test_is_left_alone_without_autocommit(self) -> None:
        _, member = make_crew()
        held(member)
        transaction.set_autocommit(False)
        try:
            assert conflicts_of(member)
            transaction.rollback()
        finally:
            transaction.set_autocommit(True)


def test_of_a_plain_model_nothing_changes() -> None:
    person = Person.objects.create(name="Orson")
    held(person)
    person.full_clean(validate_unique=False)
    assert TaskItem.objects.count() == 1
