"""From paths and methods to object keys: what is found, and in how many queries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from powercrud_models import ConflictError
from powercrud_models.contradictions import target_of
from powercrud_models.models import ObjectLock
from powercrud_models.resolution import keys_of, locked_keys
from powercrud_models.tasks import run_task
from powercrud_models.types import ObjectKey, RelationPath, WorkDeclaration, WorkOptions
from tests.kinds.models import (
    Documentary,
    Film,
    FilmOfTheMonth,
    Neighbour,
    Part,
    Person,
    Poster,
    Project,
    Role,
    Seat,
    Tag,
    Ticket,
)

pytestmark = pytest.mark.django_db


def touching(*paths: str, methods: Iterable[str] = ()) -> WorkDeclaration:
    return WorkDeclaration(
        method="work",
        options=WorkOptions(on=None),
        paths=tuple(RelationPath(path) for path in paths),
        methods=tuple(methods),
    )


def keys(*objects: Model) -> set[ObjectKey]:
    return {key for obj in objects for key in ObjectKey.all_of(obj)}


def reached(obj: Model, *paths: str) -> set[ObjectKey]:
    """What the paths lead to, without the object itself."""
    return keys_of([(obj, [touching(*paths)])], "default") - keys(obj)


class Cinema:
    """Five films: one with relations of every kind, one with others, and three with none."""

    def __init__(self) -> None:
        people = [Person.objects.create(name=name) for name in ("ann", "Bob ", "cy", "dee")]
        self.ann, self.bob, self.cy, self.dee = people
        self.film = Film.objects.create(director=self.ann, writer=self.bob)
        self.other = Film.objects.create(director=self.cy, writer=self.cy)
        self.sequel, self.like, self.liked_by = (
            Film.objects.create(director=self.dee) for _ in range(3)
        )
        self.sequel.original = self.film
        self.sequel.save()
        self.film.similar.add(self.like)
        self.liked_by.similar.add(self.film)
        self.roles = [
            Role.objects.create(film=self.film, person=self.cy),
            Role.objects.create(film=self.film, person=self.dee),
        ]
        self.role_elsewhere = Role.objects.create(film=self.other, person=self.ann)
        self.tickets = [Ticket.objects.create(film=self.film) for _ in range(2)]
        self.poster = Poster.objects.create(film=self.film)
        Ticket.objects.create(film=self.other)
        Poster.objects.create(film=self.other)


@pytest.fixture
def cinema() -> Cinema:
    return Cinema()


# ----------------------------------------------------------------------- every kind of relation


def test_a_forward_foreign_key(cinema) -> None:
    assert reached(cinema.film, "writer") == keys(cinema.bob)


def test_a_forward_foreign_key_that_is_hidden_backwards(cinema) -> None:
    assert reached(cinema.film, "director") == keys(cinema.ann)


def test_a_forward_foreign_key_that_is_empty(cinema) -> None:
    assert reached(cinema.sequel, "writer") == set()


def test_a_reverse_foreign_key_without_related_name(cinema) -> None:
    assert reached(cinema.film, "role") == keys(*cinema.roles)


def test_a_reverse_foreign_key_with_related_name(cinema) -> None:
    assert reached(cinema.bob, "written") == keys(cinema.film)


def test_a_reverse_foreign_key_with_a_name_for_queries(cinema) -> None:
    assert reached(cinema.film, "sold") == keys(*cinema.tickets)


def test_one_to_one_in_both_directions(cinema) -> None:
    assert reached(cinema.sequel, "original") == keys(cinema.film)
    assert reached(cinema.film, "sequel") == keys(cinema.sequel)
    assert reached(cinema.film, "original") == set()
    assert reached(cinema.sequel, "sequel") == set()


def test_one_to_one_that_is_the_key(cinema) -> None:
    assert reached(cinema.film, "poster") == {ObjectKey("kinds.poster", str(cinema.film.pk))}
    assert reached(cinema.poster, "film") == keys(cinema.film)


def test_many_to_many_in_both_directions(cinema) -> None:
    assert reached(cinema.film, "cast") == keys(cinema.cy, cinema.dee)
    assert reached(cinema.dee, "films") == keys(cinema.film)


def test_many_to_many_to_itself_in_both_directions(cinema) -> None:
    assert reached(cinema.film, "similar") == keys(cinema.like)
    assert reached(cinema.film, "similar_from") == keys(cinema.liked_by)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("role__person", lambda c: (c.cy, c.dee)),
        ("cast__written", lambda c: (c.other,)),
        ("cast__written__role", lambda c: (c.role_elsewhere,)),
        ("cast__written__role__person__roles", lambda c: (c.role_elsewhere,)),
        ("sequel__original__sold", lambda c: c.tickets),
        ("similar__similar_from", lambda c: ()),
        ("similar__similar_from__role", lambda c: c.roles),
        ("sequel__writer", lambda c: ()),
        ("director__written", lambda c: ()),
    ],
)
def test_several_hops(cinema, path, expected) -> None:
    assert reached(cinema.film, path) == keys(*expected(cinema))


def test_several_paths_from_several_objects(cinema) -> None:
    Part.objects.create(project=Project.objects.create(name="p"), name="a")
    project = Project.objects.get()
    targets = [
        (cinema.film, [touching("role", "director"), touching("director")]),
        (cinema.other, [touching("writer")]),
        (project, [touching("parts")]),
        (cinema.like, []),
    ]
    expected = [cinema.film, cinema.other, cinema.like, cinema.ann, cinema.cy, *cinema.roles]
    expected += [project, Part.objects.get()]
    assert keys_of(targets, "default") == keys(*expected)


def test_what_the_managers_hide_is_locked_all_the_same(cinema) -> None:
    Person._base_manager.filter(name="cy").update(retired=True)
    assert not Person.objects.filter(name="cy").exists()
    assert reached(cinema.film, "cast", "role__person") == keys(cinema.cy, cinema.dee)
    assert reached(cinema.cy, "films") == keys(cinema.film)


def test_a_proxy_is_its_model(cinema) -> None:
    proxy = FilmOfTheMonth.objects.get(pk=cinema.film.pk)
    assert keys(proxy) == keys(cinema.film)
    assert reached(proxy, "role", "cast") == keys(*cinema.roles, cinema.cy, cinema.dee)


def test_a_child_has_the_relations_of_its_parent_and_takes_it_along(cinema) -> None:
    child = Documentary.objects.create(director=cinema.ann, original=cinema.sequel)
    role = Role.objects.create(film=child, person=cinema.bob)
    parent = Film.objects.get(pk=child.pk)
    assert keys(child) == {ObjectKey.of(child), ObjectKey.of(parent)}
    assert reached(child, "role", "original", "film_ptr") == keys(role, cinema.sequel)
    assert reached(cinema.ann, "written") == set()
    assert reached(cinema.sequel, "sequel") == keys(parent)
    assert reached(cinema.sequel, "sequel__documentary") == keys(child)


def test_a_path_leads_to_the_model_at_its_end() -> None:
    assert target_of(Film, "cast__written__sold", said_by="a test") is Ticket


# ---------------------------------------------------------------------------- the types of keys


def test_the_types_of_keys(cinema) -> None:
    assert ObjectKey.of(cinema.film) == ("kinds.film", str(cinema.film.pk))
    assert ObjectKey.of(cinema.bob) == ("kinds.person", "Bob ")
    for obj in (cinema.film, cinema.bob, cinema.roles[0], cinema.poster):
        assert ObjectKey.of(obj).python_pk == obj.pk
        assert ObjectKey.of(obj).model_class is type(obj)


@pytest.mark.parametrize("form", [str, lambda pk: pk.hex, lambda pk: str(pk).upper()])
def test_a_key_given_as_text_is_the_same_key(cinema, form) -> None:
    same = Film(pk=form(cinema.film.pk))
    assert keys(same) == keys(cinema.film)
    assert reached(same, "writer") == keys(cinema.bob)


def test_an_integer_key_given_as_text_is_the_same_key() -> None:
    tag = Tag.objects.create(name="t")
    assert keys(Tag(pk=f"00{tag.pk}")) == keys(tag)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("form", [str, lambda pk: pk.hex])
def test_a_task_knows_its_object_however_the_key_was_written(queued, cinema, form) -> None:
    film = Film(pk=form(cinema.film.pk), director=cinema.ann)
    task = film.archive.enqueue()
    assert cinema.film.holder == film.holder == task
    with pytest.raises(ConflictError):
        cinema.film.save()
    with pytest.raises(ConflictError):
        film.delete()
    late = Role.objects.bulk_create([Role(film=cinema.film, person=cinema.bob)])[0]

    run_task(task.key)
    held = keys(cinema.film, *cinema.roles, cinema.cy, cinema.dee, cinema.like, late, cinema.bob)
    assert sorted(task.result()) == sorted(" ".join(key) for key in held)
    assert not ObjectLock.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_life_of_a_task_of_a_composite_key(queued, cinema) -> None:
    seat, free = (Seat.objects.create(row="A", number=n, film=cinema.film) for n in (1, 2))
    task = seat.reserve.enqueue()
    assert (seat.holder, free.holder, cinema.film.holder) == (task, None, task)
    for write in (Seat.objects.get(pk=("A", 1)).save, Seat(row="A", number="1").delete):
        with pytest.raises(ConflictError) as refused:
            write()
        [conflict] = refused.value.conflicts
        assert (conflict.model, conflict.pk, conflict.holder) == (Seat, ("A", 1), task)
    free.delete()
    Seat._base_manager.update(film=cinema.other)

    run_task(task.key)
    held = keys(seat, cinema.film, cinema.other)  # the other one since the worker has looked again
    assert sorted(task.result()) == sorted(" ".join(key) for key in held)
    assert not ObjectLock.objects.exists()
    seat.delete()


def test_what_is_no_key_is_for_django_to_refuse() -> None:
    for obj in (Tag(pk="twelve"), Film(pk="not a uuid"), Role(pk="")):
        assert ObjectKey.of(obj).pk == str(obj.pk)
    with pytest.raises(ValidationError):
        Film(pk="not a uuid", director_id="ann").save()
    with pytest.raises(ValueError, match="expected a number"):
        Role(pk="twelve").save()


def test_a_composite_key(cinema) -> None:
    seats = [Seat.objects.create(row="A", number=n, film=cinema.film) for n in (1, 2)]
    Seat.objects.create(row="B", number=1)
    assert reached(cinema.film, "seats") == keys(*seats)
    assert reached(seats[0], "film") == keys(cinema.film)
    assert reached(seats[0], "film__seats") == keys(seats[1])
    assert ObjectKey.of(seats[0]).python_pk == ("A", 1)


# ------------------------------------------------------------------- methods that return them


@pytest.fixture
def more(cinema, monkeypatch):
    """What a bare method that returns this adds."""

    def resolve(found: Any) -> set[ObjectKey]:
        monkeypatch.setattr(Film, "found", staticmethod(lambda film: found))
        targets = [(cinema.film, [touching(methods=["more"])])]
        return keys_of(targets, "default") - keys(cinema.film)

    return resolve


def test_a_method_may_return_an_object(cinema, more) -> None:
    assert more(cinema.ann) == keys(cinema.ann)
    assert more(cinema.film) == set()


def test_a_method_may_return_nothing(more) -> None:
    nothings: list[Any] = [None, [], (), Film.objects.none(), (Film, []), [None, []], iter(())]
    for nothing in nothings:
        assert more(nothing) == set()


@pytest.mark.parametrize(
    "queryset",
    [
        lambda c: Role.objects.filter(film=c.film),
        lambda c: Role.objects.filter(film=c.film).order_by("-person"),
        lambda c: Role.objects.filter(film=c.film).select_related("person"),
        lambda c: Role.objects.filter(film=c.film).values("person"),
        lambda c: Role.objects.filter(film=c.film).only("film"),
        lambda c: Role.objects.filter(pk__in=[role.pk for role in c.roles]).distinct(),
        lambda c: Role.objects.filter(film=c.film).annotate(n=models.Count("person__roles")),
        lambda c: Role.objects.filter(pk=c.roles[0].pk) | Role.objects.filter(pk=c.roles[1].pk),
        lambda c: Role.objects.filter(pk=c.roles[0].pk).union(
            Role.objects.filter(pk=c.roles[1].pk)
        ),
        lambda c: Role.objects.filter(film=c.film).order_by("pk")[:2],
        lambda c: c.film.role_set.all(),
        lambda c: Role.objects.raw(
            "SELECT * FROM kinds_role WHERE id in (%s, %s)", [role.pk for role in c.roles]
        ),
    ],
    ids=[
        "filter",
        "order",
        "select_related",
        "values",
        "only",
        "distinct",
        "annotate",
        "or",
        "union",
        "slice",
        "related",
        "raw",
    ],
)
def test_a_method_may_return_a_queryset(cinema, more, queryset) -> None:
    assert more(queryset(cinema)) == keys(*cinema.roles)


def test_a_slice_is_the_slice_in_its_order(cinema, more) -> None:
    assert more(Role.objects.order_by("-pk")[:1]) == keys(cinema.role_elsewhere)
    assert more(Role.objects.order_by("pk")[1:2]) == keys(cinema.roles[1])


def test_a_method_may_return_a_model_and_keys(cinema, more) -> None:
    expected = keys(*cinema.roles)
    pks = [role.pk for role in cinema.roles]
    assert more((Role, pks)) == expected
    assert more((Role, tuple(pks))) == expected
    assert more((Role, set(pks))) == expected
    assert more((Role, iter(pks))) == expected
    assert more((Role, Role.objects.filter(pk__in=pks).values_list("pk", flat=True))) == expected
    assert more((FilmOfTheMonth, [cinema.like.pk])) == keys(cinema.like)


def test_keys_are_the_same_however_they_are_written(cinema, more) -> None:
    assert more((Film, [cinema.like.pk.hex, str(cinema.like.pk).upper()])) == keys(cinema.like)
    assert more((Role, [f"0{cinema.roles[0].pk}"])) == keys(cinema.roles[0])


def test_a_method_may_return_a_mixture(cinema, more) -> None:
    found = [
        cinema.ann,
        None,
        Role.objects.filter(film=cinema.film),
        (Film, [cinema.like.pk]),
        [(Film, {cinema.other.pk}), (cinema.bob, cinema.cy)],
        {cinema.poster},
    ]
    expected = [cinema.ann, *cinema.roles, cinema.like, cinema.other, cinema.bob, cinema.cy]
    assert more(found) == keys(*expected, cinema.poster)
    assert more(each for each in found) == keys(*expected, cinema.poster)


def test_a_method_may_yield_them(cinema, monkeypatch) -> None:
    def found(film):
        yield film.director
        yield Role.objects.filter(film=film)

    monkeypatch.setattr(Film, "found", staticmethod(found))
    targets = [(cinema.film, [touching(methods=["more"])])]
    assert keys_of(targets, "default") == keys(cinema.film, cinema.ann, *cinema.roles)


@pytest.mark.parametrize(
    "unsaved",
    [
        lambda c: Role(film=c.film, person=c.ann),
        lambda c: [c.ann, Role(film=c.film, person=c.ann)],
        lambda c: (Role, [c.roles[0].pk, None]),
    ],
    ids=["object", "in a list", "key"],
)
def test_an_unsaved_object_is_refused(cinema, more, unsaved) -> None:
    with pytest.raises(ValueError, match="has not been saved") as error:
        more(unsaved(cinema))
    assert str(error.value).startswith(f"Film.more of film {cinema.film.pk} returned a role that")


def test_an_object_that_has_its_key_already_is_not_refused(more) -> None:
    """Its save() would find the lock: that is what a lock on it is for."""
    new = Film()
    assert more(new) == keys(new)


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda c: "kinds.Role",
        lambda c: b"role",
        lambda c: 3,
        lambda c: True,
        lambda c: object(),
        lambda c: Role,
        lambda c: Role.objects,
        lambda c: c.film.role_set,
        lambda c: ["role"],
        lambda c: [c.ann, 3],
        lambda c: {"roles": c.roles},
        lambda c: [role.pk for role in c.roles],
        lambda c: Role.objects.values_list,
        lambda c: (Role, 3),
        lambda c: (Role, None),
        lambda c: (Role, "12"),
        lambda c: (Role, c.roles[0]),
        lambda c: (Role, c.roles),
        lambda c: (Person, [c.ann]),
        lambda c: (Role, [object()]),
        lambda c: (Role, ["twelve"]),
        lambda c: (Film, ["not a uuid"]),
    ],
)
def test_nonsense_is_refused(cinema, more, nonsense) -> None:
    with pytest.raises(TypeError, match=r"\(model, pks\) pairs") as error:
        more(nonsense(cinema))
    assert str(error.value).startswith(f"Film.more of film {cinema.film.pk} returned ")


def test_errors_of_the_method_are_its_own(cinema, monkeypatch) -> None:
    monkeypatch.setattr(Film, "found", staticmethod(lambda film: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        keys_of([(cinema.film, [touching(methods=["more"])])], "default")


# ------------------------------------------------------------------------- the number of queries


def many_films(count: int) -> list[Film]:
    """So many films, each with two roles of its own, a writer and two similar ones."""
    ann, bob = (Person.objects.create(name=name) for name in ("ann", "bob"))
    films = [Film(director=ann, writer=bob) for _ in range(count)]
    Film.objects.bulk_create(films)
    Role.objects.bulk_create(Role(film=film, person=ann) for film in films for _ in range(2))
    through = Film.similar.through
    through.objects.bulk_create(
        through(from_film=film, to_film=films[(n + step) % count])
        for n, film in enumerate(films)
        for step in (1, 2)
        if count > 2
    )
    return films


PATHS = ("role", "writer", "similar", "similar__role", "cast__written", "original__sequel")


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("paths", [PATHS[:1], PATHS[:3], PATHS])
def test_at_most_one_query_per_path_and_one(count, paths, django_assert_max_num_queries) -> None:
    films = many_films(count)
    targets = [(film, [touching(*paths)]) for film in films]
    with django_assert_max_num_queries(len(paths) + 1):
        found = keys_of(targets, "default")
    assert len(found & keys(*films)) == count
    assert sum(key.model == "kinds.role" for key in found) == 2 * count
    assert ("kinds.person", "bob") in found or "writer" not in paths


@pytest.mark.parametrize("count", [1, 1000])
def test_locking_the_rows_costs_no_more_queries(count) -> None:
    films = many_films(count)
    targets = [(film, [touching(*PATHS)]) for film in films]
    expected = keys_of(targets, "default")
    with CaptureQueriesContext(connection) as queries:
        assert locked_keys(targets, "default", wait=False) == expected
    asked = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert len(asked) <= len(PATHS) + 1
    # the refusal of a row has to be undone: PostgreSQL needs a savepoint for it
    assert len(queries) - len(asked) <= 2
    if connection.features.has_select_for_update:
        locking = [sql for sql in asked if "FOR UPDATE NOWAIT" in sql]
        assert len(locking) == len(PATHS) - 1  # the writer is a person, who has no guard
        assert all("ORDER BY" in sql for sql in locking)


def test_two_works_with_the_same_path_ask_once(django_assert_num_queries) -> None:
    [film] = many_films(1)
    works = [touching("role"), touching("role", "writer"), touching()]
    with django_assert_num_queries(2):
        keys_of([(film, works)], "default")


def test_a_method_of_two_works_is_called_once(cinema, monkeypatch) -> None:
    called: list[Film] = []
    monkeypatch.setattr(Film, "found", staticmethod(called.append))
    keys_of([(cinema.film, [touching(methods=["more"])] * 2)], "default")
    assert called == [cinema.film]


def test_work_without_descendants_asks_nothing(cinema, django_assert_num_queries) -> None:
    with django_assert_num_queries(0):
        assert keys_of([(cinema.film, [touching()])], "default") == keys(cinema.film)


# -------------------------------------------------------------------------------- a whole save


def queries_of(call: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as queries:
        call()
    return len(queries)


def a_project(descendants: int) -> Project:
    [project] = Project.objects.bulk_create([Project(name="p")])
    Part.objects.bulk_create(Part(name=str(n), project=project) for n in range(descendants))
    Neighbour.objects.bulk_create(Neighbour(project=project) for _ in range(descendants))
    project.tags.add(*Tag.objects.bulk_create(Tag(name=str(n)) for n in range(descendants)))
    return project


@pytest.mark.django_db(transaction=True)
def test_a_save_that_queues_is_the_same_queries_for_1_descendant_and_for_1500(queued) -> None:
    counts = {}
    for descendants in (0, 1, 500):  # the first warms up
        project = a_project(descendants)
        counts[descendants] = queries_of(project.save)
        assert ObjectLock.objects.filter(task=project.async_task).count() == 1 + 3 * descendants
    assert counts[1] == counts[500]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "call",
    [
        lambda project: project.save(skip_async=True),
        lambda project: project.rebuild(),
        lambda project: project.rebuild.enqueue(),
    ],
    ids=["inline", "direct", "enqueue"],
)
def test_and_so_is_work_that_runs_now(async_off, call) -> None:
    counts = {}
    for descendants in (0, 1, 500):
        project = a_project(descendants)
        counts[descendants] = queries_of(partial(call, project))
    assert counts[1] == counts[500]


@pytest.mark.django_db(transaction=True)
def test_and_so_is_the_run_of_a_task(queued) -> None:
    counts = {}
    for descendants in (0, 1, 500):
        task = a_project(descendants).rebuild.enqueue()
        counts[descendants] = queries_of(partial(run_task, task.key))
        assert task.result(timeout=0) is None
    assert counts[1] == counts[500]
