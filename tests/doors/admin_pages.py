"""What a browser posts to pages of the admin, and what it reads there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.urls import reverse

from powercrud_models.models import AsyncTask
from tests.doors.models import Named

CHANGED = 302
SHOWN_AGAIN = 200


def page(name: str, *args: Any) -> str:
    return reverse(f"admin:doors_{name}", args=args)


def change(obj: Named) -> str:
    return page(f"{obj._meta.model_name}_change", obj.pk)


def changelist(model: type[Named]) -> str:
    return page(f"{model._meta.model_name}_changelist")


def rows(prefix: str, saved: Sequence[Named], *forms: dict[str, Any]) -> dict[str, Any]:
    """What a browser posts for an inline: so many rows are there already, the others are new."""
    data: dict[str, Any] = {
        f"{prefix}-TOTAL_FORMS": len(forms),
        f"{prefix}-INITIAL_FORMS": len(saved),
    }
    for number, form in enumerate(forms):
        if number < len(saved):
            data[f"{prefix}-{number}-id"] = saved[number].pk
        data |= {f"{prefix}-{number}-{name}": value for name, value in form.items()}
    return data


def says(response: Any, task: AsyncTask) -> bool:
    """Whether the page names who holds the object."""
    return task.label in response.content.decode()
