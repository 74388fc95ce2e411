"""The keys of the tables, as Django fields."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models


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
