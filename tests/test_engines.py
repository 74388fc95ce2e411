"""E015: a database whose kind the store does not know is named before the first save."""

from __future__ import annotations

import pytest

from tests.sites import Site, ok

DUMMY = {"ENGINE": "django.db.backends.dummy"}
ROUTER = """
class TasksElsewhere:
    def db_for_write(self, model, **hints):
        return "elsewhere" if model._meta.app_label == "powercrud_models" else None

    def allow_migrate(self, db, app_label, **hints):
        return db == "default"
"""


@pytest.fixture
def site(tmp_path) -> Site:
    added = f"{ROUTER}\nDATABASES['elsewhere'] = {DUMMY}\n"
    routed = "DATABASE_ROUTERS = [TasksElsewhere()]"
    return Site.write(tmp_path, added, routed, django_q=False)


def test_e015_an_engine_that_keeps_no_locks(site: Site) -> None:
    done = site.manage("check")
    assert done.returncode != 0
    assert "(powercrud_models.E015) Locks cannot be kept in the database 'elsewhere'" in done.stderr
    assert "it is of the kind 'unknown'." in done.stderr
    assert (
        "Route AsyncTask, and the models that use it, to SQLite, PostgreSQL or MariaDB."
        in done.stderr
    )


def test_no_e015_for_a_database_without_tasks(tmp_path) -> None:
    site = Site.write(tmp_path, f"DATABASES['elsewhere'] = {DUMMY}\n", django_q=False)
    assert "no issues" in ok(site.manage("check"))
