"""Which tables the databases of the tests have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
import pymysql
from django.db.backends.postgresql.operations import DatabaseOperations


class OtherHasKindsOnly:
    """Tasks and locks are on the default database, and nowhere else."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return app_label == "kinds" if db == "other" else None


def reach_server(server: dict[str, Any]) -> None:
    """Connect to this PostgreSQL or MariaDB, or raise its driver's OperationalError."""
    if server["ENGINE"].endswith("mysql"):
        pymysql.connect(
            host=server["HOST"],
            port=int(server["PORT"] or 3306),
            user=server["USER"],
            password=server["PASSWORD"],
            connect_timeout=10,
        ).close()
        return
    psycopg.connect(
        host=server["HOST"],
        port=server["PORT"] or None,
        user=server["USER"],
        password=server["PASSWORD"] or None,
        dbname="postgres",
        connect_timeout=10,
    ).close()


def delete_instead_of_truncate() -> None:
    """Empty PostgreSQL's tables after a test by DELETE: TRUNCATE makes new files for each of them.

    Most are empty as it is. Foreign keys are checked at the end of the transaction, so the order
    does not matter.
    """

    def sql_flush(
        self: DatabaseOperations, style: Any, tables: Iterable[str], **_: Any
    ) -> list[str]:
        return ["; ".join(f"DELETE FROM {self.quote_name(table)}" for table in tables)]

    DatabaseOperations.sql_flush = sql_flush  # type: ignore[method-assign,assignment]
