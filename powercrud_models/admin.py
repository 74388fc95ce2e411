"""Django's admin shows the tasks: how far they are, what failed and why. Nobody edits them there.

Who has the permission to view tasks sees those of all users. Who may change them can cancel them,
and try those again that did not succeed. Django imports this module where the admin is installed,
and nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.utils import display_for_value, quote
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_permission_codename, get_user_model
from django.db.models import Case, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from powercrud_models.exceptions import PowerCRUDError
from powercrud_models.lifecycle import tasks_alias
from powercrud_models.models import AsyncTask, TaskItem
from powercrud_models.standings import standings
from powercrud_models.stores import get_store

if TYPE_CHECKING:
    Base = admin.ModelAdmin[AsyncTask]
else:
    Base = admin.ModelAdmin

MOST_ITEMS = 100
"""How many items the page of a task lists; it says how many more there are."""
MOST_TOLD = 10
"""How many refusals of one action get a message each; the rest are counted."""

Status = AsyncTask.Status


class ItemRow(NamedTuple):
    """One item, as the page of its task lists it."""

    item: TaskItem
    name: str
    """What people read for its object."""
    url: str
    """The object's own page in this admin; empty if there is none."""
    reason: str
    """The last line of its error, which says the most of a traceback."""


class TaskList(ChangeList):
    """One page of tasks: the same number of queries, however many it shows."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list: Any = list(self.result_list)
        found = standings(self.result_list, self.queryset.db)
        for task in self.result_list:
            task.standing = found[task.key]


@admin.register(AsyncTask)
class AsyncTaskAdmin(Base):
    """Tasks to look at, to cancel, and to try again.

    To change what it shows, register a subclass of it after ``admin.site.unregister(AsyncTask)``.
    """

    list_display = ("label", "status", "how_far", "user", "attempt", "created_at")
    list_filter = ("status", "created_at")
    list_select_related = ("user",)  # Django 5.2 does not by itself, since it may be null
    search_help_text = _("Words of the label, a user's name, the key of a task or of an object")
    actions = ("cancel_tasks", "retry_tasks")
    _about = ("label", "status", "progress_bar", "step", "sign_of_life", "attempt", "user")
    _more = ("items_by_status", "locked", "queue_error")
    _times = ("created_at", "started_at", "finished_at", "next_attempt", "key")
    readonly_fields = (*_about, *_more, *_times)
    fieldsets = ((None, {"fields": (*_about, *_more)}), (_("Times"), {"fields": _times}))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody: code launches tasks."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: only the state machine writes tasks."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody: the sweep prunes their record, and locks and work hang on it."""
        return False

    def has_steer_permission(self, request: HttpRequest) -> bool:
        """Whether this user may cancel tasks, and try them again."""
        codename = get_permission_codename("change", self.opts)
        return bool(request.user.has_perm(f"{self.opts.app_label}.{codename}"))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """The list that reads progress for all its rows at once."""
        return TaskList

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        """What is stored: the label's parts in the language of the code, and its items."""
        items = ("items__work", "items__model", "items__object_id__exact")
        return ("key__exact", "label", *items, f"user__{get_user_model().USERNAME_FIELD}")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AsyncTask], search_term: str
    ) -> tuple[QuerySet[AsyncTask], bool]:
        """What Django finds; a label is stored as JSON in ASCII, so a “ü” is looked for in both."""
        found, repeats = super().get_search_results(request, queryset, search_term)
        if search_term.isascii():
            return found, repeats
        as_json = json.dumps(search_term)[1:-1].replace('\\"', '"')
        return found | super().get_search_results(request, queryset, as_json)[0], repeats

    @admin.display(description=_("progress"))
    def how_far(self, task: Any) -> str:
        return str(task.standing.progress)

    @admin.display(description=_("progress"))
    def progress_bar(self, task: Any) -> str:
        percent = int(task.standing.progress.fraction * 100)
        bar = '<progress max="100" value="{}" aria-hidden="true"></progress> {}'
        return format_html(bar, percent, task.standing.progress)

    @admin.display(description=_("step of the current item"))
    def step(self, task: Any) -> str:
        return task.standing.step or self.get_empty_value_display()

    @admin.display(description=_("last sign of life"))
    def sign_of_life(self, task: Any) -> str:
        return task.standing.sign_of_life or self.get_empty_value_display()

    @admin.display(description=_("attempt"), ordering="attempts")
    def attempt(self, task: AsyncTask) -> str:
        """Which one it is, and how many workers were lost."""
        if not task.recoveries:
            return str(task.attempts)
        said = ngettext(
            "%(attempt)d, %(count)d recovery", "%(attempt)d, %(count)d recoveries", task.recoveries
        )
        return said % {"attempt": task.attempts, "count": task.recoveries}

    @admin.display(description=_("items"))
    def items_by_status(self, task: Any) -> str:
        counts = task.standing.counts
        told = [f"{counts[each]} {each.label}" for each in TaskItem.Status if each in counts]
        return ", ".join(told) or gettext("none: it holds objects for a block of code")

    @admin.display(description=_("objects held"))
    def locked(self, task: AsyncTask) -> str:
        return str(len(get_store().held(task.key, tasks_alias())))

    @admin.display(description=_("sent again"))
    def next_attempt(self, task: AsyncTask) -> str:
        """When a task that waits for a worker, or before another try, is sent again."""
        at = task.resend_at if task.status == Status.PENDING else None
        return display_for_value(at, self.get_empty_value_display())

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Django's page, with the error, the items and two buttons: see the template."""
        task: Any = context["original"]
        alias = task._state.db
        task.standing = standings([task], alias)[task.key]
        rows = self._item_rows(task, alias)
        context |= {
            "item_rows": rows,
            "more_items": task.standing.items - len(rows),
            "task_buttons": self._buttons(request, task),
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def _item_rows(self, task: AsyncTask, alias: str) -> list[ItemRow]:
        first = Case(When(status=TaskItem.Status.FAILED, then=Value(0)), default=Value(1))
        items = TaskItem.objects.using(alias).filter(task_id=task.key).defer("returned")
        return [self._item_row(item) for item in items.order_by(first, "pk")[:MOST_ITEMS]]

    def _item_row(self, item: TaskItem) -> ItemRow:
        model, url = item.model_class, ""
        if model is not None and item.object_id and self.admin_site.is_registered(model):
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
            url = reverse(name, args=[quote(item.object_id)], current_app=self.admin_site.name)
        kind = model._meta.verbose_name if model else item.model
        reason = item.error.strip().rpartition("\n")[2]
        return ItemRow(item, f"{kind} {item.object_id}", url, reason)

    def _buttons(self, request: HttpRequest, task: Any) -> list[tuple[str, Any]]:
        """The actions that make sense for this task; they go where those of the list go."""
        if not self.has_steer_permission(request) or not task.standing.items:
            return []
        if not task.is_finished:
            return [("cancel_tasks", _("Cancel"))]
        return [] if task.status == Status.SUCCESS else [("retry_tasks", _("Try again"))]

    @admin.action(description=_("Cancel selected tasks"), permissions=["steer"])
    def cancel_tasks(self, request: HttpRequest, queryset: QuerySet[AsyncTask]) -> None:
        """End them: at once, or in progress at the next item or step."""
        cancelled = asked = ended = 0
        for was_finished, task in self._steered(request, queryset, AsyncTask.cancel):
            if task.status == Status.CANCELLED and not was_finished:
                cancelled += 1
            elif task.is_finished:
                ended += 1
            else:
                asked += 1
        tell = self._tell
        said = ngettext(
            "%(count)d task was cancelled.", "%(count)d tasks were cancelled.", cancelled
        )
        tell(request, said, cancelled, messages.SUCCESS)
        said = ngettext(
            "%(count)d task in progress stops at its next item or step.",
            "%(count)d tasks in progress stop at their next items or steps.",
            asked,
        )
        tell(request, said, asked, messages.SUCCESS)
        said = ngettext("%(count)d task had ended.", "%(count)d tasks had ended.", ended)
        tell(request, said, ended, messages.WARNING)

    @admin.action(description=_("Try selected tasks again"), permissions=["steer"])
    def retry_tasks(self, request: HttpRequest, queryset: QuerySet[AsyncTask]) -> None:
        """Queue again what failed or was not done, each task under its locks."""
        again = len(self._steered(request, queryset, AsyncTask.retry))
        said = ngettext("%(count)d task is tried again.", "%(count)d tasks are tried again.", again)
        self._tell(request, said, again, messages.SUCCESS)

    def _steered(
        self,
        request: HttpRequest,
        queryset: QuerySet[AsyncTask],
        steer: Callable[[AsyncTask], None],
    ) -> list[tuple[bool, AsyncTask]]:
        """The tasks that were not refused, each with whether it had ended; refusals are told."""
        done, refused = [], 0
        for task in queryset.order_by("created_at", "pk"):
            was_finished = task.is_finished
            try:
                steer(task)
            except PowerCRUDError as error:
                refused += 1
                if refused <= MOST_TOLD:
                    self.message_user(request, f"{task}: {error}", messages.ERROR)
            else:
                done.append((was_finished, task))
        rest = max(0, refused - MOST_TOLD)
        said = ngettext(
            "%(count)d more task was refused.", "%(count)d more tasks were refused.", rest
        )
        self._tell(request, said, rest, messages.ERROR)
        return done

    def _tell(self, request: HttpRequest, said: str, count: int, level: int) -> None:
        if count:
            self.message_user(request, said % {"count": count}, level)
