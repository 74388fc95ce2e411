"""`check` names half a configuration, and a wrong one, with the setting to change."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from powercrud_models.conf import Conf, get_conf
from powercrud_models.models import AsyncTask, ObjectLock
from tests.kinds.models import Project
from tests.sites import Site, ok


def found() -> list[CheckMessage]:
    """What the checks say of the settings."""
    return [each for each in run_checks(tags=["powercrud_models"]) if each.obj is None]


def ids() -> list[str]:
    return [str(message.id).removeprefix("powercrud_models.") for message in found()]


# ------------------------------------------------------------------------------------- E010


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "POWERCRUD_SETTINGS must be a dict, not NoneType: None."),
        (["ASYNC_ENABLED"], "POWERCRUD_SETTINGS must be a dict, not list: ['ASYNC_ENABLED']."),
        ({"ASYNC_ENABLED": 1}, "POWERCRUD_SETTINGS['ASYNC_ENABLED'] is 1; it must be a bool"),
        ({"ASYNC_ENABLED": "yes"}, "POWERCRUD_SETTINGS['ASYNC_ENABLED'] is 'yes'; it must be"),
        ({"GUARD_WRITES": None}, "POWERCRUD_SETTINGS['GUARD_WRITES'] is None; it must be a bool"),
        ({"LEASE_SECONDS": "60"}, "POWERCRUD_SETTINGS['LEASE_SECONDS'] is '60'; it must be"),
        ({"LEASE_SECONDS": True}, "POWERCRUD_SETTINGS['LEASE_SECONDS'] is True; it must be"),
        ({"CLEANUP_GRACE_PERIOD": 1.5}, "POWERCRUD_SETTINGS['CLEANUP_GRACE_PERIOD'] is 1.5;"),
        ({"QUEUE": "celery"}, "it must be 'auto', 'inline', 'immediate', 'django-q2' or"),
        ({"QUEUE": None}, "POWERCRUD_SETTINGS['QUEUE'] is None; it must be a str"),
        ({"HEARTBEAT_SECONDS": 0}, "it must be above 0 and below LEASE_SECONDS (60)"),
        ({"HEARTBEAT_SECONDS": 60}, "it must be above 0 and below LEASE_SECONDS (60)"),
        ({"LEASE_SECONDS": 10}, "it must be above 0 and below LEASE_SECONDS (10)"),
    ],
)
def test_e010_a_setting_that_cannot_be(settings, given: Any, said: str) -> None:
    settings.POWERCRUD_SETTINGS = given
    [message] = found()
    assert (message.id, message.is_serious()) == ("powercrud_models.E010", True)
    assert said in message.msg
    with pytest.raises(ImproperlyConfigured) as error:
        get_conf()
    assert str(error.value) == message.msg


def test_e010_stops_every_command(db, settings) -> None:
    settings.POWERCRUD_SETTINGS = {"QUEUE": "celery"}
    with pytest.raises(CommandError, match=r"\(powercrud_models\.E010\) POWERCRUD_SETTINGS"):
        call_command("check")


def test_the_first_save_says_the_same_and_writes_nothing(transactional_db, settings) -> None:
    settings.POWERCRUD_SETTINGS = {"QUEUE": "celery"}
    with pytest.raises(ImproperlyConfigured, match="'celery'"):
        Project(name="p").save()
    assert not Project.objects.exists()


@pytest.mark.parametrize("given", [{}, {"CACHE_NAME": "default", "CONFLICT_TTL": 3600}])
def test_settings_of_the_reference_are_no_fault(settings, given) -> None:
    cache = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"}
    settings.CACHES = {"default": cache}  # as it recommends
    settings.POWERCRUD_SETTINGS = given
    assert ids() == []
    assert get_conf() == Conf()


def test_settings_are_read_when_they_change(settings) -> None:
    read = []
    for lease in (50, 70):
        settings.POWERCRUD_SETTINGS = {"LEASE_SECONDS": lease}
        read.append(get_conf().LEASE_SECONDS)
    assert read == [50, 70]


def test_without_the_setting_the_defaults_are_in_force(async_off) -> None:
    assert not hasattr(django_settings, "POWERCRUD_SETTINGS")
    assert get_conf() == Conf()
    assert ids() == []


# ----------------------------------------------------------------------------- E011, W011, W012


@pytest.fixture(params=["Q_CLUSTER", "INSTALLED_APPS"])
def incomplete(request, settings) -> str:
    """The setting that django-q2 lacks."""
    if request.param == "Q_CLUSTER":
        del settings.Q_CLUSTER
    else:
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_q"]
    return str(request.param)


def test_e011_django_q2_by_name_that_cannot_be_used(settings, incomplete) -> None:
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": "django-q2"}
    [message] = found()
    assert (message.id, message.is_serious()) == ("powercrud_models.E011", True)
    assert message.msg.startswith("POWERCRUD_SETTINGS['QUEUE'] is 'django-q2', but ")
    assert incomplete in message.msg


def test_first_use_of_it_is_the_same_error_and_writes_nothing(
    transactional_db, settings, incomplete
) -> None:
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": "django-q2"}
    [message] = found()
    with pytest.raises(ImproperlyConfigured) as error:
        Project(name="p").save()
    assert str(error.value) == message.msg
    assert not Project.objects.exists()
    assert not AsyncTask.objects.exists()
    assert not ObjectLock.objects.exists()


def test_w011_auto_falls_back_to_inline(transactional_db, settings, incomplete) -> None:
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True}
    [message] = found()
    assert (message.id, message.is_serious()) == ("powercrud_models.W011", False)
    assert message.msg.startswith("ASYNC_ENABLED is True, but ")
    assert incomplete in message.msg
    assert message.msg.endswith("Until then everything runs inline.")
    assert message.hint is not None
    assert "POWERCRUD_SETTINGS['QUEUE'] = 'inline'" in message.hint

    project = Project.objects.create(name="p")
    project.refresh_from_db()
    assert (project.async_task, project.effects) == (None, 1)


@pytest.mark.parametrize("queue", ["inline", "immediate"])
def test_who_does_without_django_q2_is_not_warned(settings, incomplete, queue) -> None:
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": queue}
    assert ids() == []


@pytest.mark.parametrize("queue", ["auto", "inline", "immediate", "django-q2"])
def test_a_complete_configuration_is_not_warned(settings, queue) -> None:
    settings.POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True, "QUEUE": queue}
    assert ids() == []


@pytest.mark.parametrize("queue", ["immediate", "django-q2"])
def test_w012_a_queue_that_nobody_uses(transactional_db, settings, queue) -> None:
    settings.POWERCRUD_SETTINGS = {"QUEUE": queue}
    [message] = found()
    assert (message.id, message.is_serious()) == ("powercrud_models.W012", False)
    assert f"POWERCRUD_SETTINGS['QUEUE'] is {queue!r}, but ASYNC_ENABLED is False" in message.msg
    assert message.hint == "POWERCRUD_SETTINGS['ASYNC_ENABLED'] = True"
    assert Project.objects.create(name="p").async_task is None


@pytest.mark.parametrize("queue", ["auto", "inline"])
def test_no_w012_for_the_others(settings, queue) -> None:
    settings.POWERCRUD_SETTINGS = {"QUEUE": queue}
    assert ids() == []


# ------------------------------------------------------------------------------------- E014

POSTGRESQL = """
from psycopg import IsolationLevel

DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.postgresql", "NAME": "nobody_connects", "OPTIONS": {options}
}}}}
"""


@pytest.mark.parametrize("level", ["REPEATABLE_READ", "SERIALIZABLE"])
def test_e014_an_isolation_at_which_the_guard_is_blind(tmp_path, level) -> None:
    options = f"{{'isolation_level': IsolationLevel.{level}}}"
    site = Site.write(tmp_path, POSTGRESQL.format(options=options), django_q=False)
    done = site.manage("check")
    assert done.returncode != 0
    assert "(powercrud_models.E014) The database 'default' is not at READ COMMITTED" in done.stderr
    assert "Leave isolation_level out of its OPTIONS." in done.stderr


@pytest.mark.parametrize("options", ["{}", "{'isolation_level': IsolationLevel.READ_COMMITTED}"])
def test_no_e014_at_read_committed(tmp_path, options) -> None:
    site = Site.write(tmp_path, POSTGRESQL.format(options=options), django_q=False)
    assert "no issues" in ok(site.manage("check"))


def test_e014_looks_at_the_database_of_the_tasks(tmp_path) -> None:
    """Another database may be at any level: no task and no lock is there."""
    strict = "{'isolation_level': IsolationLevel.SERIALIZABLE}"
    other = POSTGRESQL.format(options=strict).replace("DATABASES =", "OTHER =")
    site = Site.write(tmp_path, other, "DATABASES['other'] = OTHER['default']", django_q=False)
    assert "no issues" in ok(site.manage("check"))
