"""The database's clock: the only one that all workers share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import DateTimeField, DurationField, ExpressionWrapper, Func, Value
from django.db.models.expressions import Combinable


class DatabaseClock(Func):
    """The time at which the database evaluates it.

    ``Now()`` is the start of the statement, and of the transaction on some databases: a long
    transaction would renew its lease into the past.
    """

    template = "CURRENT_TIMESTAMP"
    output_field = DateTimeField()

    def as_postgresql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        return self.as_sql(compiler, connection, template="CLOCK_TIMESTAMP()", **extra)

    def as_mysql(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        # NOW() is the start of the statement; SYSDATE() is not, but has the session's time zone
        passed = "TIMESTAMPDIFF(MICROSECOND, NOW(6), SYSDATE(6))"
        template = f"TIMESTAMPADD(MICROSECOND, {passed}, UTC_TIMESTAMP(6))"
        return self.as_sql(compiler, connection, template=template, **extra)

    def as_sqlite(self, compiler: Any, connection: Any, **extra: Any) -> Any:
        template = "STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f', 'NOW')"
        return self.as_sql(compiler, connection, template=template, **extra)


def clock_plus(seconds: float) -> Combinable:
    """The database's time so many seconds from now (before now, if negative)."""
    shift = Value(timedelta(seconds=seconds), output_field=DurationField())
    return ExpressionWrapper(DatabaseClock() + shift, output_field=DateTimeField())
