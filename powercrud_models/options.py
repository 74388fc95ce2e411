"""The options of work: put in order, or refused when the decorator is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from django.utils.functional import Promise

from powercrud_models.misuse import nearest
from powercrud_models.timeouts import LONGEST
from powercrud_models.types import RunOptions, WorkOptions

LONGEST_NAME = 100
"""Of the identity that ``TaskItem.work`` stores."""
LONGEST_BACKOFF = 30 * 24 * 3600
"""Seconds: the database's clock must be able to count them."""

Rule = tuple[Callable[[Any], bool], str]
"""What a value must meet, and what to say when it does not."""


def checked_options(decorator: str, chosen: Mapping[str, Any]) -> WorkOptions:
    """What the decorator was given, in order.

    Raises TypeError for an option that does not exist, or is of a wrong kind.
    """
    known = set(RunOptions.__annotations__)
    if decorator == "async_save":
        known.update(field.name for field in fields(WorkOptions))
    for option, value in chosen.items():
        if option not in known and option != "on":
            raise TypeError(f"@{decorator}({option}=...): no such option; {nearest(option, known)}")
        meets, must = RULES[decorator, option] if option == "on" else RULES[option]
        if not meets(value):
            raise TypeError(f"@{decorator}({option}={value!r}): {option} must be {must}.")
    if chosen.get("fields") and chosen.get("on") == "create":
        raise TypeError(
            f"@{decorator}(fields={chosen['fields']!r}): a save that creates the row changes every "
            "field; leave out fields, or on='create'."
        )
    ordered = {option: tuple(chosen.get(option, ())) for option in ("fields", "dont_retry_for")}
    return WorkOptions(**{**chosen, **ordered})


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _is_list_of_exceptions(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(each, type) and issubclass(each, Exception) for each in value
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


RULES: dict[Any, Rule] = {
    ("async_save", "on"): (
        lambda value: value in ("save", "create", "update"),
        "'save', 'create' or 'update'",
    ),
    ("async_method", "on"): (lambda value: value is None, "left out"),
    "name": (_is_name, f"text of at most {LONGEST_NAME} characters"),
    "label": (lambda value: isinstance(value, str | Promise), "text"),
    "atomic": (lambda value: isinstance(value, bool), "True or False"),
    "fields": (_is_list_of_names, "a list of names, such as ['text']"),
    "condition": (lambda value: value is None or callable(value), "a function of the object"),
    "timeout": (
        lambda value: value is None or (_is_number(value) and 0 < value <= LONGEST),
        f"seconds, above 0 and below {LONGEST:.0f}",
    ),
    "retries": (_is_count, "a number from 0 on"),
    "retry_backoff": (
        lambda value: _is_number(value) and 0 <= value <= LONGEST_BACKOFF,
        f"seconds, from 0 to {LONGEST_BACKOFF}",
    ),
    "dont_retry_for": (_is_list_of_exceptions, "a list of exceptions, such as [ValueError]"),
    "recoveries": (_is_count, "a number from 0 on"),
}
