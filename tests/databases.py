"""Which tables the databases of the tests have."""

from __future__ import annotations

from typing import Any


class OtherHasKindsOnly:
    """Tasks and locks are on the default database, and nowhere else."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return app_label == "kinds" if db == "other" else None
