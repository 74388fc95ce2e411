"""Middleware: whose tasks a request launches, and what it answers when an object is held.

>>> MIDDLEWARE = [
...     "django.contrib.auth.middleware.AuthenticationMiddleware",
...     "powercrud_models.middleware.ActingUserMiddleware",
...     "powercrud_models.middleware.ConflictMiddleware",
... ]
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template import TemplateDoesNotExist
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext

from powercrud_models import guard, lifecycle
from powercrud_models.conflicts import may_see, name_of_user, told
from powercrud_models.context import acting_user
from powercrud_models.exceptions import Conflict, ConflictError

GetResponse = Callable[[HttpRequest], Any]
HTML, JSON = "text/html", "application/json"
MOST_LISTED = 20
"""How many held objects the page lists; JSON has them all."""


class _Middleware:
    """Django's protocol for middleware that serves sync and async requests without a thread."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        response: HttpResponseBase | Awaitable[HttpResponseBase] = self.get_response(request)
        return response


class ActingUserMiddleware(_Middleware):
    """Tasks that a request launches are ``request.user``'s.

    The user is read when a task is launched, and not before: a request that launches none asks
    the database for no user, and a login or a token that the view itself looks at counts. What a
    streaming response launches while it is sent comes after the request, and is nobody's: use
    ``acting_user`` there.
    """

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._answer_async(request)
        with acting_user(lambda: getattr(request, "user", None)):
            response: HttpResponseBase = self.get_response(request)
            return response

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        with acting_user(lambda: getattr(request, "user", None)):
            response: HttpResponseBase = await self.get_response(request)
            return response


class ConflictMiddleware(_Middleware):
    """A ConflictError that a view lets through becomes the answer 409, and not 500.

    It is JSON for a client that asks for JSON, or has sent some and takes anything; else the page
    ``powercrud/conflict.html``. Both name the held objects, the task and since when, and for whom
    it runs only to who may see the task. The transaction of ATOMIC_REQUESTS has been rolled back.
    """

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Called by Django with what the view has raised; None leaves that to others."""
        if not isinstance(exception, ConflictError):
            return None
        guard.sweep_when_committed(lifecycle.tasks_alias())
        response = _as_json if _prefers_json(request) else _as_page
        answer = response(request, exception)
        patch_vary_headers(answer, ["Accept"])
        return answer


def _prefers_json(request: HttpRequest) -> bool:
    accepted = [media.main_type + "/" + media.sub_type for media in request.accepted_types]
    if any(each.endswith("+json") for each in accepted) and HTML not in accepted:
        return True
    sent = request.content_type or ""
    if sent == JSON or sent.endswith("+json"):  # decides where the client takes either
        return request.get_preferred_type([JSON, HTML]) == JSON
    return request.get_preferred_type([HTML, JSON]) == JSON


def _as_json(request: HttpRequest, error: ConflictError) -> HttpResponse:
    user = getattr(request, "user", None)
    shown = error.conflicts[: error.MOST_SHOWN]
    content = {
        "detail": " ".join(told(conflict, user) for conflict in shown),
        "conflicts": [_as_dict(conflict, user) for conflict in error.conflicts],
    }
    return JsonResponse(content, status=HTTPStatus.CONFLICT)


def _as_dict(conflict: Conflict, user: Any) -> dict[str, Any]:
    holder = conflict.holder
    return {
        "model": conflict.model._meta.label_lower,
        "pk": _plain(conflict.pk),
        "held_by": holder.label if holder else None,
        "user": name_of_user(conflict, user),
        "since": holder.created_at if holder else None,
        "task": holder.key if holder and may_see(holder, user) else None,
    }


def _plain(pk: Any) -> Any:
    """The primary key as JSON; the parts of a composite one as a list."""
    if isinstance(pk, tuple):
        return [_plain(part) for part in pk]
    return pk if isinstance(pk, int | str) else str(pk)


def _as_page(request: HttpRequest, error: ConflictError) -> HttpResponse:
    user = getattr(request, "user", None)
    lines = [told(conflict, user) for conflict in error.conflicts[:MOST_LISTED]]
    context = {"conflicts": lines, "more": len(error.conflicts) - len(lines)}
    try:
        return render(request, "powercrud/conflict.html", context, status=HTTPStatus.CONFLICT)
    except TemplateDoesNotExist:  # a project without templates, or without those of apps
        text = "\n".join([gettext("Nothing was changed."), *lines])
        return HttpResponse(text, "text/plain; charset=utf-8", status=HTTPStatus.CONFLICT)
