"""Tasks in Django's admin: what it shows, to whom, and what they may do there."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.translation import gettext_noop

from powercrud_models import hold
from powercrud_models.admin import MOST_ITEMS, MOST_TOLD
from powercrud_models.clock import clock_plus
from powercrud_models.lifecycle import claim
from powercrud_models.messages import Message
from powercrud_models.models import AsyncTask, ObjectLock, TaskItem, TaskPulse
from powercrud_models.standings import standings
from tests.deliveries import deliver, die, lose_messages, messages, task_of
from tests.doors.models import Festival
from tests.kinds.models import Project
from tests.sites import Site, ok

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queued")]

Status = AsyncTask.Status
EVIL = "<script>alert('x')</script>"
LIST = "admin:powercrud_models_asynctask_changelist"
PAGE = "admin:powercrud_models_asynctask_change"
LOGIN, FORBIDDEN, SHOWN = 302, 403, 200
VIEW, CHANGE = "view_asynctask", "change_asynctask"

Staff = Callable[..., Client]


@pytest.fixture
def staff(db: None) -> Staff:
    """A client that somebody of the staff, with these permissions, has logged in with."""

    def logged_in(*codenames: str) -> Client:
        user = User.objects.create_user(f"staff {User.objects.count()}", is_staff=True)
        permissions = Permission.objects.filter(codename__in=codenames)
        user.user_permissions.set(permissions)
        assert len(permissions) == len(codenames)
        client = Client()
        client.force_login(user)
        return client

    return logged_in


@pytest.fixture
def viewer(staff: Staff) -> Client:
    return staff(VIEW)


def page_of(task: AsyncTask | None) -> str:
    assert task is not None
    return reverse(PAGE, args=[task.pk])


def html(client: Client, url: str, **data: Any) -> str:
    response = client.get(url, data)
    assert response.status_code == SHOWN
    return response.content.decode()


def text_of(page: str) -> str:
    """What people read on the page, in one line."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", page)).split())


def row(page: str, label: str) -> str:
    """What people read in the list's row for the task with this label."""
    rows = [text_of(each) for each in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)]
    [found] = [each for each in rows if label in each]
    return found


def shown(page: str, name: str) -> str:
    """What people read in one field of a task's page."""
    [found] = re.findall(rf'field-{name}">.*?<div class="readonly">(.*?)</div>', page, re.DOTALL)
    return text_of(found)


def new_task(status: str = Status.SUCCESS, label: str = "recount", **fields: Any) -> AsyncTask:
    task = AsyncTask.objects.create(label=label, status=status, **fields)
    task.refresh_from_db()
    return task


def new_items(task: AsyncTask, *statuses: str, error: str = "", prefix: str = "") -> list[TaskItem]:
    return TaskItem.objects.bulk_create(
        TaskItem(
            task=task,
            model="doors.festival",
            object_id=f"{prefix}{number}",
            work="measure",
            status=status,
            error=error if status == "failed" else "",
        )
        for number, status in enumerate(statuses, start=1)
    )


def at_work(task: AsyncTask, *, age: float = 0, lease: float = 60, **fields: Any) -> TaskPulse:
    """A pulse of so many seconds ago, whose lease runs for so many more."""
    return TaskPulse.objects.create(
        task=task, fence=1, beat_at=clock_plus(-age), lease_until=clock_plus(lease), **fields
    )


def queries(client: Client, url: str) -> int:
    with CaptureQueriesContext(
        connection,
    ) as captured:
        html(client, url)
    return len(captured)


class TestWhoSeesTasks:
    @pytest.fixture
    def pages(self) -> list[str]:
        return [reverse(LIST), page_of(new_task())]

    def test_nobody_without_a_login(self, pages: list[str]) -> None:
        for page in pages:
            response = Client().get(page)
            assert response.status_code == LOGIN
            assert "/login/" in response["Location"]

    def test_no_user_who_is_not_staff(self, pages: list[str]) -> None:
        user = User.objects.create_user("visitor")
        user.user_permissions.set(Permission.objects.filter(codename__in=[VIEW, CHANGE]))
        client = Client()
        client.force_login(user)
        assert {client.get(page).status_code for page in pages} == {LOGIN}

    @pytest.mark.parametrize("codenames", [[], ["view_festival"], ["view_taskitem"]])
    def test_no_staff_without_the_permission(
        self, staff: Staff, pages: list[str], codenames: list[str]
    ) -> None:
        client = staff(*codenames)
        assert {client.get(page).status_code for page in pages} == {FORBIDDEN}
        assert reverse(LIST) not in html(client, reverse("admin:index"))

    @pytest.mark.parametrize("codename", [VIEW, CHANGE])
    def test_staff_with_it_see_tasks_of_all_users(
        self, staff: Staff, pages: list[str], codename: str
    ) -> None:
        client = staff(codename)
        new_task(label="another's", user=User.objects.create_user("ann"))
        for page in pages:
            assert client.get(page).status_code == SHOWN
        assert row(html(client, pages[0]), "another's")
        assert reverse(LIST) in html(client, reverse("admin:index"))

    def test_its_parts_have_no_pages_of_their_own(self) -> None:
        assert site.is_registered(AsyncTask)
        for model in (TaskItem, ObjectLock, TaskPulse):
            assert not site.is_registered(model)


class TestNobodyEdits:
    def test_not_even_a_superuser(self, admin_client: Client) -> None:
        task = new_task(label="as it was")
        opts = "admin:powercrud_models_asynctask"
        add, delete = reverse(f"{opts}_add"), reverse(f"{opts}_delete", args=[task.pk])
        before = AsyncTask.objects.values().get()
        for url in (add, delete, page_of(task)):
            data = {"label": "forged", "status": "failed", "post": "yes", "_save": "Save"}
            assert admin_client.post(url, data).status_code == FORBIDDEN
        assert admin_client.get(add).status_code == FORBIDDEN
        data = {"action": "delete_selected", "_selected_action": task.pk, "post": "yes"}
        admin_client.post(reverse(LIST), data)
        assert AsyncTask.objects.values().get() == before

    def test_a_user_can_be_deleted_and_the_tasks_stay(self, admin_client: Client) -> None:
        ann = User.objects.create_user("ann")
        task = new_task(user=ann)
        url = reverse("admin:auth_user_delete", args=[ann.pk])
        assert admin_client.post(url, {"post": "yes"}).status_code == 302
        task.refresh_from_db()
        assert task.user is None

    def test_the_page_has_no_field_and_no_button_to_save(self, admin_client: Client) -> None:
        page = html(admin_client, page_of(new_task()))
        content = page[page.index('id="content"') :]
        assert re.findall(r'<input(?! type="hidden")|<select|<textarea|name="_save', content) == []


class TestList:
    def test_what_a_row_says(self, viewer: Client) -> None:
        ann = User.objects.create_user("ann")
        task = new_task(Status.IN_PROGRESS, user=ann, attempts=2, recoveries=1)
        items = new_items(task, "done", "todo", "todo")
        at_work(task, item_id=items[1].pk, current=1, total=5)
        said = row(html(viewer, reverse(LIST)), "recount")
        for part in ("in progress", "1 of 3 done, 40%", "ann", "2, 1 recovery"):
            assert part in said

    def test_a_failed_item_is_no_success(self, viewer: Client) -> None:
        new_items(new_task(Status.FAILED), "done", "failed", "failed")
        assert "3 of 3 done, 100%, 2 failed" in row(html(viewer, reverse(LIST)), "recount")

    def test_an_empty_list(self, viewer: Client) -> None:
        assert "0 tasks" in text_of(html(viewer, reverse(LIST)))

    def test_as_many_queries_for_30_rows_as_for_one(self, viewer: Client) -> None:
        def fill(number: int) -> None:
            user = User.objects.create_user(f"user {number}")
            task = new_task(Status.IN_PROGRESS, label=f"task {number}", user=user)
            item, *_ = new_items(task, "todo", "done", "failed")
            at_work(task, item_id=item.pk, current=1, total=2)

        fill(0)
        queries(viewer, reverse(LIST))  # what Django caches is read
        one = queries(viewer, reverse(LIST))
        for number in range(1, 30):
            fill(number)
        assert queries(viewer, reverse(LIST)) == one
        assert "2 of 3 done, 83%, 1 failed" in row(html(viewer, reverse(LIST)), "task 29")

    def test_the_latest_comes_first_and_a_filter_by_status(self, viewer: Client) -> None:
        new_task(label="first", created_at=clock_plus(-60))
        new_task(Status.FAILED, label="last")
        page = html(viewer, reverse(LIST))
        assert page.index("last</a>") < page.index("first</a>")
        page = html(viewer, reverse(LIST), status__exact="failed")
        assert "last</a>" in page
        assert "first</a>" not in page

    def test_a_user_who_was_deleted_behind_djangos_back(self, viewer: Client) -> None:
        task = new_task(user=User.objects.create_user("gone"))
        if connection.vendor == "sqlite":
            User.objects.filter(username="gone")._raw_delete("default")
        else:
            User.objects.filter(username="gone").delete()
            AsyncTask.objects.update(user_id=10**6)
        assert row(html(viewer, reverse(LIST)), "recount")
        assert shown(html(viewer, page_of(task)), "user") == "-"


class TestSearch:
    @pytest.fixture(autouse=True)
    def _tasks(self, db: None) -> None:
        ann = User.objects.create_user("ann")
        label = Message(
            gettext_noop("%(work)s %(model)s %(pk)s"), work="recount", model="book", pk="7"
        )
        task = new_task(label=label, key="k" * 32, user=ann)
        new_items(task, *["done"] * 3, prefix="17-")
        user = User.objects.create_user("jörg")
        new_items(new_task(label="nächtlicher “Import”", user=user), "done", prefix="18-")

    @pytest.mark.parametrize(
        ("term", "found"),
        [
            ("recount", ["recount book 7"]),
            ("book recount", ["recount book 7"]),
            ("k" * 32, ["recount book 7"]),
            ("k" * 31, []),
            ("ann", ["recount book 7"]),
            ("jörg", ["nächtlicher “Import”"]),
            ("17-2", ["recount book 7"]),
            ("17-", []),
            ("festival 18-1", ["nächtlicher “Import”"]),
            ("nächtlicher", ["nächtlicher “Import”"]),
            ("“Import”", ["nächtlicher “Import”"]),
            ('"nächtlicher “Import”"', ["nächtlicher “Import”"]),
            ("nächtlicher recount", []),
            ("measure", ["nächtlicher “Import”", "recount book 7"]),
        ],
    )
    def test_words_of_the_label_users_and_keys(
        self, viewer: Client, term: str, found: list[str]
    ) -> None:
        response = viewer.get(reverse(LIST), {"q": term})
        assert sorted(str(task) for task in response.context["cl"].result_list) == found


class TestPage:
    def test_a_task_in_progress(self, viewer: Client) -> None:
        task = new_task(
            Status.IN_PROGRESS, attempts=2, recoveries=1, started_at=clock_plus(-60), fence=2
        )
        items = new_items(task, "done", "todo", "todo")
        at_work(task, age=40, item_id=items[1].pk, current=1, total=5)
        ObjectLock.objects.bulk_create(
            ObjectLock(model="doors.festival", object_id=str(pk), task=task) for pk in range(4)
        )
        page = html(viewer, page_of(task))
        assert shown(page, "status") == "in progress"
        assert shown(page, "progress_bar") == "1 of 3 done, 40%"
        assert '<progress max="100" value="40"' in page
        assert shown(page, "step") == "1 of 5"
        assert re.fullmatch(r"4\d s ago", shown(page, "sign_of_life"))
        assert shown(page, "attempt") == "2, 1 recovery"
        assert shown(page, "items_by_status") == "2 to do, 1 done"
        assert shown(page, "locked") == "4"
        assert shown(page, "started_at") != "-"
        assert shown(page, "finished_at") == "-"

    def test_a_loop_whose_length_nobody_knows(self, viewer: Client) -> None:
        task = new_task(Status.IN_PROGRESS)
        [item] = new_items(task, "todo")
        at_work(task, item_id=item.pk, current=12)
        page = html(viewer, page_of(task))
        assert shown(page, "step") == "12"
        assert shown(page, "progress_bar") == "0 of 1 done, 0%"

    def test_a_worker_that_gives_no_more_sign_of_life(self, viewer: Client) -> None:
        task = new_task(Status.IN_PROGRESS)
        new_items(task, "todo")
        at_work(task, age=200, lease=-140)
        said = shown(html(viewer, page_of(task)), "sign_of_life")
        assert re.fullmatch(r"20\d s ago; its lease has run out", said)

    @pytest.mark.parametrize("status", [Status.PENDING, Status.SUCCESS, Status.FAILED])
    def test_only_a_task_in_progress_is_alive(self, viewer: Client, status: str) -> None:
        task = new_task(status)
        [item] = new_items(task, "todo")
        at_work(task, item_id=item.pk, current=1, total=5)
        page = html(viewer, page_of(task))
        assert (shown(page, "sign_of_life"), shown(page, "step")) == ("-", "-")
        assert shown(page, "progress_bar") == "0 of 1 done, 0%"  # a try that is over

    def test_when_a_pending_task_is_sent_again(self, viewer: Client) -> None:
        page = html(viewer, page_of(new_task(Status.PENDING, queue_error="broker down")))
        assert shown(page, "next_attempt") != "-"
        assert shown(page, "queue_error") == "broker down"
        assert shown(html(viewer, page_of(new_task())), "next_attempt") == "-"

    def test_a_failed_task_shows_tracebacks_and_the_failed_items_first(
        self, viewer: Client
    ) -> None:
        def break_down(project: Project) -> None:
            if project.name != "a":
                raise ValueError(f"no {project.name}")

        Project.script = break_down
        projects = Project.objects.bulk_create([Project(name=name) for name in "abc"])
        with transaction.atomic():
            for project in projects:
                project.save()
        deliver()
        task = AsyncTask.objects.get()
        page = html(viewer, page_of(task))
        assert shown(page, "progress_bar") == "3 of 3 done, 100%, 2 failed"
        items = [text_of(each) for each in re.findall(r'<tr class="item-.*?</tr>', page, re.DOTALL)]
        a, b, c = (project.pk for project in projects)
        assert items[0].startswith(f"project {b} rebuild failed")
        assert items[1].startswith(f"project {c} rebuild failed")
        assert items[2].startswith(f"project {a} rebuild done")
        folded = re.findall(r"<summary>(.*?)</summary><pre>(.*?)</pre>", page, re.DOTALL)
        assert [unescape(summary) for summary, _ in folded] == [f"ValueError: no {n}" for n in "bc"]
        failed = task.items.filter(status="failed").order_by("pk")
        assert [unescape(error) for _, error in folded] == [item.error for item in failed]
        [error] = re.findall(r"Error</h2>\s*<pre>(.*?)</pre>", page, re.DOTALL)
        assert unescape(error) == task.error
        assert "in break_down" in error

    def test_a_reason_of_one_line_is_not_folded(self, viewer: Client) -> None:
        task = new_task(Status.FAILED)
        new_items(task, "failed", error="The object is gone.")
        page = html(viewer, page_of(task))
        assert "<td>The object is gone.</td>" in page
        assert "<details><summary>" not in page

    def test_why_a_task_waited_is_no_error(self, viewer: Client) -> None:
        page = html(viewer, page_of(new_task(Status.PENDING, error="held by another")))
        assert "Why it waited held by another" in text_of(page)

    def test_of_thousands_of_items_only_the_first_are_listed(self, viewer: Client) -> None:
        task = new_task(Status.FAILED)
        new_items(task, *["done"] * 2999, "failed", "failed", error="broken")
        page = html(viewer, page_of(task))
        assert page.count('<tr class="item-') == MOST_ITEMS
        assert page.count('<tr class="item-failed') == 2
        assert f"{3001 - MOST_ITEMS} more items are not shown" in text_of(page)
        assert shown(page, "items_by_status") == "2999 done, 2 failed"

    def test_as_many_queries_for_300_items_as_for_one(self, viewer: Client) -> None:
        small, large = new_task(Status.FAILED), new_task(Status.FAILED)
        new_items(small, "failed")
        new_items(large, *["done", "failed", "skipped"] * 100)
        queries(viewer, page_of(small))
        assert queries(viewer, page_of(small)) == queries(viewer, page_of(large))

    def test_objects_link_to_their_pages(self, viewer: Client) -> None:
        [festival] = Festival._base_manager.bulk_create([Festival(name="spring")])
        task = new_task()
        TaskItem.objects.create(
            task=task, model="doors.festival", object_id=str(festival.pk), work="measure"
        )
        TaskItem.objects.create(task=task, model="kinds.project", object_id="1", work="rebuild")
        TaskItem.objects.create(task=task, model="gone.model", object_id="1", work="rebuild")
        TaskItem.objects.create(task=task, model="doors.festival", object_id="", work="measure")
        page = html(viewer, page_of(task))
        url = reverse("admin:doors_festival_change", args=[festival.pk])
        assert f'<a href="{url}">festival {festival.pk}</a>' in page
        assert "<td>project 1</td>" in page
        assert "<td>gone.model 1</td>" in page
        assert "<td>festival </td>" in page

    def test_a_hold(self, viewer: Client) -> None:
        projects = Project.objects.bulk_create([Project(name=name) for name in "ab"])
        with hold(projects, label="nightly import") as task:
            page = html(viewer, page_of(task))
            assert shown(page, "progress_bar") == "0 of 1 done, 0%"
            assert shown(page, "items_by_status").startswith("none: it holds objects")
            assert shown(page, "locked") == "2"
            assert re.fullmatch(r"\d s ago", shown(page, "sign_of_life"))
            assert "0 of 1 done" in row(html(viewer, reverse(LIST)), "nightly import")
        page = html(viewer, page_of(task))
        assert shown(page, "progress_bar") == "1 of 1 done, 100%"
        assert shown(page, "locked") == "0"

    def test_a_key_that_is_no_tasks(self, viewer: Client) -> None:
        response = viewer.get(reverse(PAGE, args=["nothing"]), follow=True)
        assert [str(each)[:22] for each in response.context["messages"]] == [
            "task with ID “nothing”"
        ]


def test_no_text_of_others_is_markup(admin_client: Client) -> None:
    evil = User.objects.create_user(EVIL)
    task = new_task(Status.FAILED, label=EVIL, error=f"{EVIL}\n{EVIL}", queue_error=EVIL, user=evil)
    new_items(task, "failed", error=f"{EVIL}\n{EVIL}", prefix=EVIL)
    TaskItem.objects.create(task=task, model=f"gone.{EVIL}", object_id=EVIL, work=EVIL, error=EVIL)
    lists, page = html(admin_client, reverse(LIST)), html(admin_client, page_of(task))
    data = {"action": "cancel_tasks", "_selected_action": [task.pk]}
    TaskItem.objects.update(status="done")
    retry = {**data, "action": "retry_tasks"}
    refused = admin_client.post(reverse(LIST), retry, follow=True).content.decode()
    for each in (lists, page, refused):
        assert "<script>alert" not in each
        assert EVIL in unescape(each)


@pytest.mark.parametrize("kind", ["new", "in progress", "beyond", "ended", "hold", "ended hold"])
def test_a_standing_says_what_the_task_says(kind: str) -> None:
    status = Status.SUCCESS if "ended" in kind else Status.IN_PROGRESS
    task = new_task(Status.PENDING if kind == "new" else status)
    if "hold" not in kind:
        done = "done" if kind == "ended" else "todo"
        items = new_items(task, "done", "failed", done, done)
        if kind != "new":
            item = items[0 if kind == "beyond" else 2]  # the loop of an item that ended is over
            at_work(task, item_id=item.pk, current=3, total=4)
    here, there = standings([task], "default")[task.key].progress, task.progress
    assert (here.pulse_age is None) == (there.pulse_age is None) == (not TaskPulse.objects.exists())
    for name in ("items_done", "items_total", "current", "total", "fraction"):
        assert getattr(here, name) == getattr(there, name)


class TestActions:
    """Cancel and try again: on the server only who may change tasks, and only by POST."""

    def act(self, client: Client, action: str, *tasks: AsyncTask) -> list[str]:
        """What the user is told."""
        data = {"action": action, "_selected_action": [task.pk for task in tasks]}
        response = client.post(reverse(LIST), data, follow=True)
        return [str(message) for message in response.context["messages"]]

    @pytest.fixture
    def steering(self, staff: Staff) -> Client:
        return staff(VIEW, CHANGE)

    @pytest.fixture
    def projects(self) -> list[Project]:
        return Project.objects.bulk_create([Project(name=name) for name in "abc"])

    def failed(self, project: Project) -> AsyncTask:
        """A task of one item that has failed."""

        def break_down(_: Project) -> None:
            raise ValueError("broken")

        Project.script = break_down
        project.save()
        deliver()
        Project.script = None
        return task_of(project)

    def pending(self, project: Project) -> AsyncTask:
        project.save()
        lose_messages()
        return task_of(project)

    def status_of(self, task: AsyncTask) -> str:
        return AsyncTask.objects.get(pk=task.pk).status

    @pytest.mark.parametrize("codenames", [None, [], [VIEW], ["change_festival", VIEW]])
    @pytest.mark.parametrize("where", ["list", "page"])
    def test_a_forged_post_does_nothing(
        self, staff: Staff, projects: list[Project], codenames: list[str] | None, where: str
    ) -> None:
        client = Client() if codenames is None else staff(*codenames)
        tasks = {"cancel_tasks": self.pending(projects[0]), "retry_tasks": self.failed(projects[1])}
        for action, task in tasks.items():
            url = reverse(LIST) if where == "list" else page_of(task)
            data = {"action": action, "_selected_action": [task.pk], "index": "0"}
            assert client.post(url, data).status_code in (LOGIN, FORBIDDEN, SHOWN)
            del data["index"]
            client.post(url, data)
        assert [self.status_of(task) for task in tasks.values()] == ["pending", "failed"]
        assert not messages()
        assert not TaskPulse.objects.filter(cancel_requested=True).exists()

    def test_without_the_token_of_the_form_nothing_is_done(
        self, admin_user: User, projects: list[Project]
    ) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(admin_user)
        task = self.pending(projects[0])
        data = {"action": "cancel_tasks", "_selected_action": [task.pk]}
        assert client.post(reverse(LIST), data).status_code == FORBIDDEN
        assert self.status_of(task) == Status.PENDING

    def test_a_get_does_nothing(self, admin_client: Client, projects: list[Project]) -> None:
        task = self.pending(projects[0])
        data = {"action": "cancel_tasks", "_selected_action": task.pk}
        admin_client.get(reverse(LIST), data)
        admin_client.get(page_of(task), data)
        assert self.status_of(task) == Status.PENDING

    def test_who_may_only_look_is_offered_neither(
        self, viewer: Client, projects: list[Project]
    ) -> None:
        task = self.pending(projects[0])
        for url in (reverse(LIST), page_of(task)):
            page = html(viewer, url)
            assert "cancel_tasks" not in page
            assert "retry_tasks" not in page

    def test_cancel_pending_running_and_ended_tasks(
        self, steering: Client, projects: list[Project]
    ) -> None:
        failed, pending, running = (
            self.failed(projects[0]),
            self.pending(projects[1]),
            self.pending(projects[2]),
        )
        assert claim(running.key) is not None
        assert self.act(steering, "cancel_tasks", failed, pending, running) == [
            "1 task was cancelled.",
            "1 task in progress stops at its next item or step.",
            "1 task had ended.",
        ]
        assert self.status_of(pending) == Status.CANCELLED
        assert self.status_of(failed) == Status.FAILED
        assert TaskPulse.objects.get(pk=running.key).cancel_requested
        assert self.act(steering, "cancel_tasks", pending) == ["1 task had ended."]

    def test_a_hold_is_refused_and_the_others_go_on(
        self, steering: Client, projects: list[Project]
    ) -> None:
        tasks = [self.pending(project) for project in projects[1:]]
        with hold(projects[0], label="nightly import") as held:
            assert held is not None
            told = self.act(steering, "cancel_tasks", held, *tasks)
        assert told[0].startswith("nightly import: “nightly import” holds objects")
        assert told[1:] == ["2 tasks were cancelled."]

    def test_only_what_was_selected(self, steering: Client, projects: list[Project]) -> None:
        one, other = (self.pending(project) for project in projects[:2])
        self.act(steering, "cancel_tasks", one)
        assert self.status_of(other) == Status.PENDING

    def test_try_again_what_can_be(self, steering: Client, projects: list[Project]) -> None:
        """One task that failed, one whose object another holds by now, and one that succeeded."""
        first, conflicting = self.failed(projects[0]), self.failed(projects[1])
        projects[2].save()
        deliver()
        projects[1].save()
        holder = task_of(projects[1])
        lose_messages()
        told = self.act(steering, "retry_tasks", first, conflicting, task_of(projects[2]))
        assert len(told) == 3
        assert holder.label in told[0]
        assert told[0].startswith(f"{conflicting.label}: project {projects[1].pk} is held by")
        assert "nothing to try again" in told[1]
        assert told[2] == "1 task is tried again."
        assert messages() == [first.key]
        assert self.status_of(conflicting) == Status.FAILED
        deliver()
        assert self.status_of(first) == Status.SUCCESS

    def test_many_refusals_are_counted(self, steering: Client) -> None:
        tasks = [new_task(label=f"task {number}") for number in range(MOST_TOLD + 3)]
        told = self.act(steering, "retry_tasks", *tasks)
        assert len(told) == MOST_TOLD + 1
        assert told[-1] == "3 more tasks were refused."

    @pytest.mark.parametrize("name", ["cancel_tasks", "retry_tasks"])
    def test_the_button_of_a_tasks_page(
        self, steering: Client, projects: list[Project], name: str
    ) -> None:
        task = self.pending(projects[0]) if name == "cancel_tasks" else self.failed(projects[0])
        page = html(steering, page_of(task))
        buttons = re.findall(r'<button[^>]*name="(.*?)" value="(.*?)" formaction="(.*?)"', page)
        assert buttons == [("action", name, reverse(LIST))]
        hidden = re.findall(r'<input type="hidden" name="(_.*?)" value="(.*?)"', page)
        data = dict([*hidden, buttons[0][:2]])
        steering.post(buttons[0][2], data)
        assert self.status_of(task) == ("cancelled" if name == "cancel_tasks" else "pending")

    def test_no_button_where_there_is_nothing_to_do(
        self, steering: Client, projects: list[Project]
    ) -> None:
        projects[0].save()
        deliver()
        assert "formaction" not in html(steering, page_of(task_of(projects[0])))
        with hold(projects[1]) as held:
            assert "formaction" not in html(steering, page_of(held))

    def test_a_dead_workers_task_is_cancelled_by_the_sweep(
        self, steering: Client, projects: list[Project]
    ) -> None:
        task = self.pending(projects[0])
        die(task)
        assert "1 task in progress stops" in self.act(steering, "cancel_tasks", task)[0]
        call_command("pcrud_cleanup_async")
        deliver()
        assert self.status_of(task) == Status.CANCELLED


def test_a_project_without_the_admin_imports_no_page_of_it(tmp_path: Any) -> None:
    site = Site.write(tmp_path, django_q=False)
    printed = site.run("""
        import pkgutil, sys
        import powercrud_models
        for module in pkgutil.walk_packages(powercrud_models.__path__, "powercrud_models."):
            if module.name not in ("powercrud_models.admin", "powercrud_models.mixins.admin"):
                if ".testing" not in module.name and "django_q2" not in module.name:
                    __import__(module.name)
        print([name for name in sys.modules if name.startswith("django.contrib.admin")])
        assert "powercrud_models.standings" in sys.modules
    """)
    assert printed == "[]\n"
    assert "no issues" in ok(site.manage("check"))
