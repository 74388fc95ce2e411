"""Whose tasks a request launches, and the 409 of a request that runs into a lock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import login
from django.contrib.auth.models import Permission, User
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils import translation
from rest_framework.authentication import TokenAuthentication
from rest_framework.views import APIView

from powercrud_models import acting_user
from powercrud_models.context import current_user
from powercrud_models.exceptions import Conflict, ConflictError
from powercrud_models.lifecycle import claim
from powercrud_models.messages import Message
from powercrud_models.middleware import MOST_LISTED, ActingUserMiddleware, ConflictMiddleware
from powercrud_models.models import AsyncTask
from tests.deliveries import expire_lease, lose_messages
from tests.kinds.models import Crew, Film, Member, Person, Seat
from tests.promises.made import make_crew, name_of

OURS = ["ActingUserMiddleware", "ConflictMiddleware"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("queued", "_installed"),
    pytest.mark.urls(__name__),
]


@pytest.fixture
def _installed(settings) -> None:
    settings.MIDDLEWARE = [
        *django_settings.MIDDLEWARE,
        *(f"powercrud_models.middleware.{name}" for name in OURS),
    ]


@pytest.fixture
def _atomic_requests() -> Iterator[None]:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


# --------------------------------------------------------------------------------------- views


def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing")


def save_all(request: HttpRequest) -> HttpResponse:
    """Save the crew, which holds its members, and then a member that may be held."""
    objects: list[Any] = [*Crew.objects.all(), *Member.objects.filter(crew=None)]
    for obj in objects:
        obj.name = "changed"
        obj.save()
    return HttpResponse("saved")


async def save_all_async(request: HttpRequest) -> HttpResponse:
    async for crew in Crew.objects.all():
        crew.name = "changed"
        await crew.asave()
    return HttpResponse("saved")


async def save_all_in_thread(request: HttpRequest) -> HttpResponse:
    return await sync_to_async(save_all)(request)


def log_in(request: HttpRequest) -> HttpResponse:
    """The first task is nobody's, the second one that of who has come in."""
    crew = Crew.objects.get()
    crew.post.enqueue()
    AsyncTask.objects.update(status="success")
    login(request, User.objects.get(username="ann"))
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM powercrud_models_objectlock")
    crew.post.enqueue()
    return HttpResponse("in")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        yield str(current_user())

    return StreamingHttpResponse(lines())


def delete_film(request: HttpRequest) -> HttpResponse:
    Film.objects.get().delete()
    return HttpResponse("deleted")


def save_seat(request: HttpRequest) -> HttpResponse:
    Seat.objects.get().save()
    return HttpResponse("saved")


class ByName(TokenAuthentication):  # type: ignore[misc]
    """The header names the user."""

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        return User.objects.get(username=key), key


class SaveByRest(APIView):  # type: ignore[misc]
    authentication_classes = (ByName,)

    def post(self, request: Any) -> HttpResponse:
        return save_all(request)


def fail(request: HttpRequest) -> HttpResponse:
    raise LookupError("not ours")


urlpatterns = [
    path("nothing/", nothing),
    path("save/", save_all),
    path("save-async/", save_all_async),
    path("save-in-thread/", save_all_in_thread),
    path("log-in/", log_in),
    path("stream/", stream),
    path("delete/", delete_film),
    path("seat/", save_seat),
    path("rest/", SaveByRest.as_view()),
    path("fail/", fail),
]


# ------------------------------------------------------------------------------------ who held it


@pytest.fixture
def ann(transactional_db: None) -> User:
    return User.objects.create_user("ann")


@pytest.fixture
def task(ann: User) -> AsyncTask:
    """A task of Ann's, which holds the member of a crew."""
    _, member = make_crew()
    with acting_user(ann):
        task: AsyncTask = member.train.enqueue()
    lose_messages()
    return task


def post(url: str, user: User | None = None, **headers: str) -> Any:
    client = Client(raise_request_exception=False)
    if user:
        client.force_login(user)
    return client.post(url, headers=headers)


async def post_async(url: str, user: User | None = None) -> Any:
    client = AsyncClient()
    if user:
        await client.aforce_login(user)
    return await client.post(url)


class TestTheActingUser:
    @pytest.mark.parametrize("url", ["/save/", "/save-async/", "/save-in-thread/"])
    @pytest.mark.parametrize("handler", ["sync", "async"])
    def test_is_the_user_of_the_request(self, ann: User, url: str, handler: str) -> None:
        make_crew()
        response = post(url, ann) if handler == "sync" else async_to_sync(post_async)(url, ann)
        assert response.status_code == 200
        assert AsyncTask.objects.get().user == ann
        assert current_user() is None

    @pytest.mark.parametrize("handler", ["sync", "async"])
    def test_is_nobody_when_nobody_has_come_in(self, handler: str) -> None:
        make_crew()
        response = post("/save/") if handler == "sync" else async_to_sync(post_async)("/save/")
        assert response.status_code == 200
        assert AsyncTask.objects.get().user is None

    def test_costs_no_query_where_no_task_is_launched(
        self, ann: User, client: Client, django_assert_num_queries
    ) -> None:
        client.force_login(ann)
        with django_assert_num_queries(0):
            assert client.get("/nothing/").status_code == 200

    def test_is_read_when_the_task_is_launched(self, ann: User) -> None:
        make_crew()
        assert post("/log-in/").status_code == 200
        users = AsyncTask.objects.order_by("created_at").values_list("user", flat=True)
        assert list(users) == [None, ann.pk]

    def test_is_whom_a_token_names(self, ann: User) -> None:
        make_crew()
        assert post("/rest/", authorization="Token ann").status_code == 200
        assert AsyncTask.objects.get().user == ann

    def test_may_be_missing(self, settings) -> None:
        settings.MIDDLEWARE = [f"powercrud_models.middleware.{name}" for name in OURS]
        make_crew()
        assert post("/save/").status_code == 200
        assert AsyncTask.objects.get().user is None

    @pytest.mark.parametrize("position", [0, -1])
    def test_is_found_wherever_the_middleware_stands(
        self, settings, ann: User, position: int
    ) -> None:
        others = [each for each in settings.MIDDLEWARE if "powercrud_models" not in each]
        mine = "powercrud_models.middleware.ActingUserMiddleware"
        settings.MIDDLEWARE = [mine, *others] if position == 0 else [*others, mine]
        make_crew()
        assert post("/save/", ann).status_code == 200
        assert AsyncTask.objects.get().user == ann

    def test_is_gone_when_a_response_is_streamed(self, ann: User) -> None:
        """As the docstring of the middleware says."""
        assert b"".join(post("/stream/", ann)) == b"None"

    def test_does_not_stay_when_the_view_fails(self, ann: User) -> None:
        assert post("/fail/", ann).status_code == 500
        assert current_user() is None

    @pytest.mark.parametrize("middleware", [ActingUserMiddleware, ConflictMiddleware])
    def test_an_asynchronous_request_needs_no_thread(self, middleware: Any) -> None:
        async def answer(request: HttpRequest) -> HttpResponse:
            return HttpResponse("nothing")

        assert middleware.sync_capable
        assert middleware.async_capable
        assert iscoroutinefunction(middleware(answer))
        assert not iscoroutinefunction(middleware(nothing))


class TestAConflict:
    @pytest.mark.parametrize("url", ["/save/", "/save-async/", "/save-in-thread/", "/rest/"])
    @pytest.mark.parametrize("handler", ["sync", "async"])
    def test_is_the_answer_409(self, task: AsyncTask, url: str, handler: str) -> None:
        response = post(url) if handler == "sync" else async_to_sync(post_async)(url)
        assert response.status_code == 409
        assert response["Content-Type"] == "text/html; charset=utf-8"
        assert "Accept" in response["Vary"]
        assert name_of(Crew.objects.get()) == "night"
        assert AsyncTask.objects.get() == task

    def test_of_another_kind_is_left_alone(self) -> None:
        assert post("/fail/").status_code == 500

    @pytest.mark.parametrize(
        ("headers", "kind"),
        [
            ({}, "text/html"),
            ({"accept": "*/*"}, "text/html"),
            ({"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}, "text/html"),
            ({"accept": "application/json"}, "application/json"),
            ({"accept": "application/json, text/html;q=0.5"}, "application/json"),
            ({"accept": "text/html, application/json;q=0.5"}, "text/html"),
            ({"accept": "image/png"}, "text/html"),
            ({"content-type": "application/json"}, "application/json"),
            ({"content-type": "application/json", "accept": "*/*"}, "application/json"),
            ({"content-type": "application/json", "accept": "text/html"}, "text/html"),
            ({"content-type": "application/merge-patch+json"}, "application/json"),
            ({"accept": "application/vnd.api+json"}, "application/json"),
            ({"accept": "application/problem+json, text/html"}, "text/html"),
        ],
    )
    def test_is_told_in_the_form_that_the_client_prefers(
        self, task: AsyncTask, headers: dict[str, str], kind: str
    ) -> None:
        given = headers.get("content-type", "text/plain")
        client, accept = Client(), {"accept": headers["accept"]} if "accept" in headers else {}
        response = client.post("/save/", data="{}", content_type=given, headers=accept)
        assert response.status_code == 409
        assert response["Content-Type"].startswith(kind)

    def test_is_told_as_json(self, task: AsyncTask) -> None:
        response = post("/save/", accept="application/json")
        member = Member.objects.get()
        assert response.json() == {
            "detail": response.json()["detail"],
            "conflicts": [
                {
                    "model": "kinds.member",
                    "pk": member.pk,
                    "held_by": task.label,
                    "user": None,
                    "since": json.loads(DjangoJSONEncoder().encode(task.created_at)),
                    "task": None,  # a stranger may not see it
                }
            ],
        }
        assert (
            f"member {member.pk} is held by the task “{task.label}” since"
            in response.json()["detail"]
        )

    @pytest.mark.parametrize(("language", "direction"), [("de", "ltr"), ("ar", "rtl")])
    def test_is_told_in_the_language_that_is_active(
        self, task: AsyncTask, language: str, direction: str
    ) -> None:
        with translation.override(language):
            page = post("/save/").content.decode()
        assert f'<html lang="{language}" dir="{direction}">' in page

    def test_names_keys_of_every_kind(self) -> None:
        film = Film.objects.create(director=Person.objects.create(name="Orson"))
        film.archive.enqueue()
        [conflict] = post("/delete/", accept="application/json").json()["conflicts"]
        assert UUID(conflict["pk"]) == film.pk
        AsyncTask.objects.update(status="success")
        (seat,) = Seat.objects.bulk_create([Seat(row="A", number=1)])
        seat.reserve.enqueue()
        [conflict] = post("/seat/", accept="application/json").json()["conflicts"]
        assert conflict["pk"] == ["A", 1]

    def test_names_a_key_that_json_does_not_know(self, rf) -> None:
        odd = Conflict(model=Film, pk=b"odd", holder=None, held_by=Message(""))
        request = rf.get("/", headers={"accept": "application/json"})
        answer = ConflictMiddleware(nothing).process_exception(request, ConflictError([odd]))
        assert json.loads(answer.content)["conflicts"][0]["pk"] == "b'odd'"

    def test_names_a_holder_that_has_ended_in_the_meantime(self, task: AsyncTask) -> None:
        AsyncTask.objects.all().delete()
        response = post("/save/", accept="application/json").json()
        assert "was held by another task a moment ago" in response["detail"]
        [conflict] = response["conflicts"]
        assert (conflict["held_by"], conflict["since"], conflict["task"]) == (None, None, None)

    def test_escapes_what_it_names(self, task: AsyncTask) -> None:
        AsyncTask.objects.update(label="<script>alert(1)</script>")
        page = post("/save/").content.decode()
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)" in page

    def test_lists_so_many_and_counts_the_others(self) -> None:
        (crew,) = Crew.objects.bulk_create([Crew(name="night")])
        members = [Member(name=str(number), crew=crew) for number in range(MOST_LISTED + 2)]
        for member in Member.objects.bulk_create(members):
            member.train.enqueue()
        page = post("/save/").content.decode()
        assert page.count("<li>") == MOST_LISTED
        assert "So are 2 more objects." in page
        answer = post("/save/", accept="application/json").json()
        assert len(answer["conflicts"]) == MOST_LISTED + 2

    def test_of_a_project_without_templates_is_text(self, task: AsyncTask, settings) -> None:
        settings.TEMPLATES = []
        response = post("/save/")
        assert (response.status_code, response["Content-Type"]) == (
            409,
            "text/plain; charset=utf-8",
        )
        assert task.label in response.content.decode()

    def test_has_a_page_that_can_be_extended(self, task: AsyncTask, settings, tmp_path) -> None:
        (tmp_path / "powercrud").mkdir()
        (tmp_path / "powercrud" / "conflict.html").write_text(
            '{% extends "powercrud/conflict.html" %}{% block title %}Busy{% endblock %}'
        )
        settings.TEMPLATES = [{**django_settings.TEMPLATES[0], "DIRS": [tmp_path]}]
        page = post("/save/").content.decode()
        assert "<title>Busy</title>" in page
        assert task.label in page

    @pytest.mark.usefixtures("_atomic_requests")
    def test_takes_care_of_a_holder_that_is_dead(self, task: AsyncTask) -> None:
        """Who runs into a lock inside a transaction cannot: this one has ended by then."""
        claim(task.key)
        expire_lease(task.key)
        assert post("/save/").status_code == 409
        task.refresh_from_db()
        assert task.sends == 1


class TestTheHoldersUser:
    def answer(self, user: User | None) -> tuple[str | None, str, str]:
        answer = post("/save/", user, accept="application/json").json()
        return (
            answer["conflicts"][0]["user"],
            answer["detail"],
            post("/save/", user).content.decode(),
        )

    def test_is_named_to_who_may_see_the_task(self, task: AsyncTask, ann: User) -> None:
        chief = User.objects.create_user("chief", is_staff=True)
        chief.user_permissions.add(Permission.objects.get(codename="view_asynctask"))
        root = User.objects.create_superuser("root")
        for user in (ann, chief, root):
            name, detail, page = self.answer(user)
            assert name == "ann"
            assert "It runs for ann." in detail
            assert "It runs for ann." in page

    def test_is_not_named_to_anybody_else(self, task: AsyncTask) -> None:
        staff = User.objects.create_user("staff", is_staff=True)
        permitted = User.objects.create_user("permitted")
        permitted.user_permissions.add(Permission.objects.get(codename="view_asynctask"))
        for user in (None, User.objects.create_user("ben"), staff, permitted):
            name, *texts = self.answer(user)
            assert name is None
            assert not [text for text in texts if "ann" in text.replace("Go back", "")]

    def test_of_a_task_that_is_nobodys_is_not_named(self, task: AsyncTask) -> None:
        AsyncTask.objects.update(user=None)
        assert self.answer(User.objects.create_superuser("root"))[0] is None


class TestAtomicRequests:
    @pytest.mark.usefixtures("_atomic_requests")
    @pytest.mark.parametrize("accept", ["text/html", "application/json"])
    def test_everything_that_the_view_did_is_undone(self, accept: str) -> None:
        (crew,) = Crew.objects.bulk_create([Crew(name="night")])
        (member,) = Member.objects.bulk_create([Member(name="Ada")])
        task = member.train.enqueue()
        response = post("/save/", accept=accept)

        assert response.status_code == 409
        assert name_of(crew) == "night"
        assert AsyncTask.objects.get() == task
        assert crew.holder is None
