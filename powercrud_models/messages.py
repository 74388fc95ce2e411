"""Text for people that is stored: as a message and parameters, not in the writer's language."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext, gettext_noop, override

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


class Message(str):
    """Text in the language that was active when it was made, or read from the database.

    ``message`` is the text to translate, with ``%(name)s`` for each of the ``params``, which are
    text, numbers, or messages themselves. Mark it for translation with ``gettext_noop``.

    >>> Message(gettext_noop("%(done)s of %(total)s done"), done=1, total=2)
    '1 of 2 done'
    """

    message: str
    params: dict[str, Any]

    def __new__(cls, message: str, /, **params: Any) -> Message:
        self = super().__new__(cls, _filled(message, params))
        self.message = message
        self.params = params
        return self

    @classmethod
    def of(cls, text: StrOrPromise) -> Message:
        """The message behind text that may be lazy, such as a label or a verbose name."""
        with override(None):
            untranslated = str(text)
        return cls(untranslated)


def _filled(message: str, params: dict[str, Any]) -> str:
    text = gettext(message) if message else ""
    try:
        return text % params if params else text
    except (KeyError, TypeError, ValueError):  # a translation that does not fit
        return message % params


def joined(messages: Sequence[Message]) -> Message:
    """All of them as one, one behind the other."""
    return reduce(
        lambda one, other: Message(gettext_noop("%(one)s; %(other)s"), one=one, other=other),
        messages,
    )


def stored(value: Any) -> Any:
    """What JSON can carry of a message, or of text that is nobody's to translate."""
    if not isinstance(value, Message):
        return value if isinstance(value, int) else storable(str(value))
    params = {name: stored(param) for name, param in value.params.items()}
    return {"message": value.message, "params": params}


def is_message(value: Any) -> bool:
    """Whether this is what ``stored`` makes of a message."""
    return isinstance(value, dict) and set(value) == {"message", "params"}


def loaded(value: Any) -> Any:
    """What was stored, in the language that is active now."""
    if not is_message(value):
        return value
    params = {name: loaded(param) for name, param in value["params"].items()}
    return Message(value["message"], **params)


def storable(text: str) -> str:
    """The text with what not every database stores written as an escape."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
