"""What people are told of a conflict: in a form before they save, or in the answer to a request.

Whoever came so far as to change an object is told what is being done with it, and since when. By
whom is told only to who may see the task: the one it runs for, and staff with the permission.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import Model
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from powercrud_models import guard
from powercrud_models.changes import comparison
from powercrud_models.exceptions import Conflict, ConflictError
from powercrud_models.models import AsyncTask
from powercrud_models.resolution import keys_of
from powercrud_models.types import WorkDeclaration

CODE = "conflict"
"""Of the ValidationErrors that tell of a conflict."""
HELD = _("%(object)s is held by the task “%(label)s” since %(since)s. Try again when it has ended.")
HELD_A_MOMENT_AGO = _("%(object)s was held by another task a moment ago. Try again.")
AND_MORE = _("So are %(count)d more objects.")


def refuse_held(obj: Model, works: Sequence[WorkDeclaration], alias: str) -> None:
    """Look for the conflicts that a save of the object, with these works, would run into.

    Raises ValidationError for all forms: code "conflict", among the non-field errors.
    """
    if obj._state.adding or obj.pk is None or not guard.is_on(alias):
        return
    try:
        changed = comparison(obj, works, None, alias, lock=False)
        started = [work for work in changed() if work.applies_to(obj)]
        guard.look(keys_of([(obj, started)], alias), alias)
    except ConflictError as error:
        guard.sweep_when_committed(alias)
        raise ValidationError({NON_FIELD_ERRORS: _errors_of(error)}) from error


def _errors_of(error: ConflictError) -> list[ValidationError]:
    shown, more = error.conflicts[: error.MOST_SHOWN], error.conflicts[error.MOST_SHOWN :]
    errors = [
        ValidationError(template_of(conflict), code=CODE, params=params_of(conflict))
        for conflict in shown
    ]
    if more:
        errors.append(ValidationError(AND_MORE, code=CODE, params={"count": len(more)}))
    return errors


def template_of(conflict: Conflict) -> Any:
    """The message, to be filled with ``params_of``."""
    return HELD if conflict.holder else HELD_A_MOMENT_AGO


def params_of(conflict: Conflict) -> dict[str, Any]:
    """What its message names; and the holder's key, for code that reads the error."""
    params = {"object": f"{conflict.model._meta.verbose_name} {conflict.pk}"}
    if conflict.holder:
        params["label"] = conflict.holder.label
        params["since"] = date_format(_local(conflict.holder), "SHORT_DATETIME_FORMAT")
        params["task"] = conflict.holder.key
    return params


def _local(task: AsyncTask) -> Any:
    return timezone.localtime(task.created_at) if settings.USE_TZ else task.created_at


def told(conflict: Conflict, user: Any) -> str:
    """The message, with the holder's user for who may see the task."""
    text = str(template_of(conflict)) % params_of(conflict)
    name = name_of_user(conflict, user)
    return f"{text} {gettext('It runs for %(user)s.') % {'user': name}}" if name else text


def name_of_user(conflict: Conflict, user: Any) -> str | None:
    """For whom the holder runs; None when it runs for nobody, or this user may not see it."""
    holder = conflict.holder
    if holder is None or holder.user is None or not may_see(holder, user):
        return None
    return str(holder.user)


def may_see(task: AsyncTask, user: Any) -> bool:
    """Whether a user may see a task: it is theirs, or they are staff with the permission."""
    if user is None or not user.is_authenticated:
        return False
    if task.user_id is not None and task.user_id == user.pk:
        return True
    return bool(user.is_staff and user.has_perm("powercrud_models.view_asynctask"))
