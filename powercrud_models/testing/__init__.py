"""For a project's tests: run what was queued, and assert what is queued, locked or refused.

It works in Django's ``TestCase`` and ``TransactionTestCase``, and in pytest with pytest-django's
``db`` and ``transactional_db``.

>>> @queue_tasks()
... class ShelfTests(TestCase):
...     def test_recount(self):
...         self.shelf.save()
...         assert_queued(self.shelf, "recount")
...         run_queued()
...         self.shelf.refresh_from_db()
...         self.assertEqual(self.shelf.pages, 4)
"""

from __future__ import annotations

from powercrud_models.testing.assertions import (
    Refusal,
    assert_locked,
    assert_not_locked,
    assert_not_queued,
    assert_queued,
    assert_refused,
)
from powercrud_models.testing.crashes import CrashReport, assert_survives_crashes
from powercrud_models.testing.running import queue_tasks, queued_tasks, run_queued

__all__ = [
    "CrashReport",
    "Refusal",
    "assert_locked",
    "assert_not_locked",
    "assert_not_queued",
    "assert_queued",
    "assert_refused",
    "assert_survives_crashes",
    "queue_tasks",
    "queued_tasks",
    "run_queued",
]
