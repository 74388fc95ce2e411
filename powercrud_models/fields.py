"""The keys of the tables, as Django fields."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django.db import models

from powercrud_models.messages import Message, is_message, loaded, stored


def new_key() -> str:
    """A key for a task, or for a run that has none."""
    return uuid.uuid4().hex


class KeyField(models.CharField):  # type: ignore[type-arg]
    """Text that is a key: equal only when it is the same, to the last blank and capital."""

    def db_parameters(self, connection: Any) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":  # its default says that 'abc' = 'ABC '
            parameters["collation"] = "utf8mb4_nopad_bin"
        return parameters


class MessageField(models.TextField):  # type: ignore[type-arg]
    """Keeps a Message, or text that is nobody's to translate, such as a traceback."""

    def from_db_value(self, value: str | None, *_: Any) -> Any:
        return value and loaded(json.loads(value))

    def get_prep_value(self, value: Any) -> Any:
        return value and json.dumps(stored(value))  # ASCII: every database takes it

    def value_to_string(self, obj: models.Model) -> str:
        return str(self.get_prep_value(self.value_from_object(obj)))

    def to_python(self, value: Any) -> Any:
        """What ``value_to_string`` has written, back from a fixture; any other text as it is."""
        if not isinstance(value, str) or isinstance(value, Message):
            return value
        try:
            found = json.loads(value)
        except ValueError:
            return value
        return loaded(found) if isinstance(found, str) or is_message(found) else value
