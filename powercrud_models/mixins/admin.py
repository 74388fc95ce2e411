"""``AsyncAdminMixin``: Django's admin tells who holds an object, where it would answer 409."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import NON_FIELD_ERRORS
from django.db import router, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from powercrud_models import guard
from powercrud_models.conflicts import AND_MORE, CODE, told
from powercrud_models.exceptions import ConflictError
from powercrud_models.guarded_delete import taken_with_all

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin
    from django.forms import ModelForm

    Base = ModelAdmin[Any]
    FormBase = ModelForm[Any]
else:
    Base = FormBase = object


class AsyncAdminMixin(Base):
    """Put it in front of ``ModelAdmin``, for a model with ``AsyncModelMixin``.

    The page that asks whether to delete shows what another task holds among the objects that
    cannot be deleted. Rows of inlines and lists are refused only where somebody has changed them.
    Who is refused later than that, or in an action, gets a message and the page anew; nothing is
    changed then, and nothing logged.

    >>> class BookAdmin(AsyncAdminMixin, admin.ModelAdmin): ...
    """

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What Django finds, with held objects among the protected ones."""
        found, counts, missing, protected = super().get_deleted_objects(objs, request)
        alias = router.db_for_write(self.model)
        if guard.is_on(alias):
            rows = objs  # a queryset, when they were selected in the list
            if not isinstance(objs, QuerySet):
                rows = self.model._base_manager.filter(pk__in=[obj.pk for obj in objs])
            try:
                guard.look(taken_with_all(rows, alias), alias)
            except ConflictError as error:
                guard.sweep_when_committed(alias)
                protected = [*protected, *_lines(error, request)]
        return found, counts, missing, protected

    def get_formsets_with_inlines(self, request: HttpRequest, obj: Any = None) -> Iterator[Any]:
        """Django's formsets, where rows that nobody has changed may be held."""
        for formset, inline in super().get_formsets_with_inlines(request, obj):
            form = _refused_when_changed(formset.form)
            yield type(formset)(formset.__name__, (formset,), {"form": form}), inline

    def get_changelist_form(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Django's form of a list's row, which may be held when nobody has changed it."""
        return _refused_when_changed(super().get_changelist_form(request, **kwargs))

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Django's page; who is refused gets a message and the page anew."""
        return self._answer(request, partial(super().changeform_view, request, *args, **kwargs))

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Django's page; who is refused gets a message and the page anew."""
        return self._answer(request, partial(super().delete_view, request, *args, **kwargs))

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Django's page and its actions; who is refused gets a message and the page anew."""
        return self._answer(request, partial(super().changelist_view, request, *args, **kwargs))

    def _answer(self, request: HttpRequest, view: Callable[[], HttpResponse]) -> HttpResponse:
        if request.method != "POST":
            return view()
        alias = router.db_for_write(self.model)
        told_before = len(_messages(request))
        try:
            # the action that deletes is no transaction, and logs what it is going to delete
            with transaction.atomic(using=alias):
                return view()
        except ConflictError as error:
            guard.sweep_when_committed(alias)
            del _messages(request)[told_before:]  # what they tell of has been undone
            for line in _lines(error, request):
                self.message_user(request, line, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())


class _RefusedWhenChanged(FormBase):
    """A row of a formset: the formset does not save it when nobody has changed it."""

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        found = self.errors.get(NON_FIELD_ERRORS)
        if found is not None and not self.has_changed():
            found.data = [error for error in found.as_data() if error.code != CODE]
            if not found.data:
                del self.errors[NON_FIELD_ERRORS]


def _refused_when_changed(form: Any) -> Any:
    return type(form)(form.__name__, (_RefusedWhenChanged, form), {})


def _messages(request: HttpRequest) -> list[Any]:
    """The messages that wait to be shown; Django has no public name for them."""
    found: list[Any] = getattr(messages.get_messages(request), "_queued_messages", [])
    return found


def _lines(error: ConflictError, request: HttpRequest) -> list[str]:
    """What this user is told of the conflicts."""
    lines = [told(conflict, request.user) for conflict in error.conflicts[: error.MOST_SHOWN]]
    more = len(error.conflicts) - len(lines)
    return [*lines, str(AND_MORE) % {"count": more}] if more else lines
