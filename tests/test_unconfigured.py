"""Promise 1: without settings of ours, without django-q2, everything imports and runs inline."""

from __future__ import annotations

from pathlib import Path
from shutil import copy
from textwrap import dedent

import pytest

from tests.sites import DATABASE, ROOT, Site, ok

NOT_INSTALLED = 'django-q2 is not installed: pip install "django-powercrud-models[q2]".'
NOT_AN_APP = "'django_q' is not in INSTALLED_APPS: add it, and run migrate."
NO_CLUSTER = "Q_CLUSTER is not in the settings: add it, for example {'orm': 'default'}."
APP = 'INSTALLED_APPS.append("django_q")'
CLUSTER = 'Q_CLUSTER = {"orm": "default", "timeout": 60, "retry": 120}'


def asks_for(queue: str) -> str:
    return f"POWERCRUD_SETTINGS = {{'ASYNC_ENABLED': True, 'QUEUE': {queue!r}}}"


@pytest.fixture(params=[False, True], ids=["django-q2 missing", "django-q2 installed"])
def bare(request, tmp_path) -> Site:
    """A project that has only put the app into INSTALLED_APPS."""
    return Site.write(tmp_path, django_q=request.param)


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """A migrated database, to be copied: migrating takes longer than all that is tried on it."""
    site = Site.write(tmp_path_factory.mktemp("migrated"), APP, CLUSTER, django_q=True)
    ok(site.migrate())
    return site.folder / DATABASE


def test_the_site_without_django_q2_really_has_none(tmp_path) -> None:
    site = Site.write(tmp_path, django_q=False)
    found = (
        "from importlib.util import find_spec; print(find_spec('django_q'), find_spec('django'))"
    )
    assert ok(site.python("-c", found)).startswith("None ModuleSpec(name='django'")
    assert "No module named 'django_q'" in site.python("-c", "import django_q.tasks").stderr


# -------------------------------------------------------------------------------------- import


@pytest.mark.parametrize("settings", ["site_settings", "no_such_module", ""])
def test_importing_needs_no_settings_and_loads_neither_queue_nor_model(bare, settings) -> None:
    script = f"""
        import os, sys
        os.environ["DJANGO_SETTINGS_MODULE"] = {settings!r}
        import powercrud_models
        loaded = [name for name in sys.modules if name.partition(".")[0] == "django_q"]
        assert not loaded, loaded
        assert "django.db.models" not in sys.modules
        assert "powercrud_models.models" not in sys.modules

        from powercrud_models import ConflictError, async_method, async_save, descendants

        class Plain:
            @async_save(on="create")
            @descendants("scenes")
            def recount(self): ...

        from django.conf import settings
        assert not settings.configured
        print(Plain.recount.options.on)
    """
    assert ok(bare.python("-c", dedent(script))) == "create\n"


def test_every_public_name_is_there_once_django_is_set_up(bare) -> None:
    printed = bare.run("""
        import sys
        import powercrud_models
        for name in powercrud_models.__all__:
            assert getattr(powercrud_models, name).__module__.startswith("powercrud_models."), name
        assert powercrud_models.AsyncModelMixin._meta.abstract
        try:
            powercrud_models.nothing
        except AttributeError as error:
            print(error)
        assert "django_q" not in sys.modules
    """)
    assert printed == "module 'powercrud_models' has no attribute 'nothing'\n"


def test_every_module_of_the_package_can_be_imported(bare) -> None:
    package = ROOT / "powercrud_models"
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in package.rglob("*.py")
        if path != package / "admin.py"  # Django imports it where its admin is installed
    ]
    assert "powercrud_models.queues.django_q2" in names
    bare.run(f"""
        import sys
        from importlib import import_module
        for name in {names!r}:
            import_module(name)
        assert "django_q" not in sys.modules
    """)


# ------------------------------------------------------------------- check, migrate, save, delete


def test_check_has_nothing_to_say(bare) -> None:
    done = bare.manage("check", "--fail-level", "DEBUG")
    assert ok(done) == "System check identified no issues (0 silenced).\n"
    assert done.stderr == ""


def test_the_migrations_are_complete(bare) -> None:
    ok(bare.manage("makemigrations", "powercrud_models", "--check", "--dry-run"))


def test_migrate_makes_the_tables(bare) -> None:
    ok(bare.migrate())
    assert bare.run("print(Play.objects.create(title='Hamlet').recount())") == "0\n"


def test_saves_do_their_work_now(bare, tables) -> None:
    copy(tables, bare.folder)
    printed = bare.run("""
        import asyncio, sys
        from powercrud_models import get_current_task, inline, progress
        from powercrud_models.models import AsyncTask, ObjectLock

        play = Play.objects.create(title="Hamlet")
        scene = Scene(play=play, text="who is there")
        scene.save()
        play.save()
        play.refresh_from_db()
        print(scene.words, play.words, play.async_task, play.holder)

        Scene(play=play, text="nay answer me").save(skip_async=True)
        play.save(skip_async=True)
        play.refresh_from_db()
        print(play.words)

        asyncio.run(Scene(play=play, text="stand and").asave(skip_async=True))
        asyncio.run(Scene(play=play, text="unfold yourself").asave())
        asyncio.run(play.asave())
        play.refresh_from_db()
        print(play.words)

        play.save(skip_async=False)  # async off: there is no queue to ask for
        with inline():
            print(play.recount(), get_current_task(), list(progress("ab")))
        print(AsyncTask.objects.count(), ObjectLock.objects.count())
        print(asyncio.run(scene.adelete()))
        print(play.delete()[0], Scene.objects.count())
        assert "django_q" not in sys.modules
    """)
    assert printed.splitlines() == [
        "3 3 None None",
        "6",
        "10",
        "10 None ['a', 'b']",
        "0 0",
        "(1, {'shelf.Scene': 1})",
        "4 0",
    ]


def test_an_error_of_the_work_undoes_the_save_and_is_the_callers(bare, tables) -> None:
    copy(tables, bare.folder)
    printed = bare.run("""
        from powercrud_models.models import AsyncTask, ObjectLock
        play = Play.objects.create(title="Hamlet")
        for arguments in ({}, {"skip_async": True}):
            try:
                Scene(play=play, text="").save(**arguments)
            except ValueError as error:
                print(error)
        print(Scene.objects.count(), AsyncTask.objects.count(), ObjectLock.objects.count())
    """)
    assert printed.splitlines() == ["an empty scene"] * 2 + ["0 0 0"]


def test_enqueued_work_runs_at_once_and_leaves_a_task_that_has_ended(bare, tables) -> None:
    copy(tables, bare.folder)
    printed = bare.run("""
        from powercrud_models.models import AsyncTask, ObjectLock

        play = Play.objects.create(title="Hamlet")
        task = play.reindex.enqueue()
        print(task.status, task.result(timeout=0), task.progress)
        print(AsyncTask.objects.count(), ObjectLock.objects.count(), task.locks.count())
    """)
    assert printed.splitlines() == ["success 1 1 of 1 done, 100%", "1 0 0"]


def test_the_cleanup_command_has_nothing_to_do(bare, tables) -> None:
    copy(tables, bare.folder)
    assert ok(bare.manage("pcrud_cleanup_async")).count("0") == 4


# -------------------------------------------------------------------------- half configured


@pytest.mark.parametrize(
    ("django_q", "settings", "reason"),
    [
        (False, [], NOT_INSTALLED),
        (True, [CLUSTER], NOT_AN_APP),
        (True, [APP], NO_CLUSTER),
    ],
    ids=["not installed", "no app", "no settings"],
)
class TestHalfConfigured:
    def test_auto_runs_inline_and_check_warns(
        self, tmp_path, tables, django_q, settings, reason
    ) -> None:
        site = Site.write(
            tmp_path, "POWERCRUD_SETTINGS = {'ASYNC_ENABLED': True}", *settings, django_q=django_q
        )
        done = site.manage("check")
        assert "identified 1 issue" in ok(done) + done.stderr
        assert f"(powercrud_models.W011) ASYNC_ENABLED is True, but {reason}" in done.stderr
        assert "POWERCRUD_SETTINGS['QUEUE'] = 'inline'" in done.stderr
        copy(tables, site.folder)
        printed = site.run("""
            from powercrud_models.models import AsyncTask
            play = Play.objects.create(title="Hamlet")
            Scene(play=play, text="who is there").save()
            play.save()
            play.refresh_from_db()
            print(play.words, play.async_task, AsyncTask.objects.count())
        """)
        assert printed == "3 None 0\n"

    def test_django_q2_by_name_is_an_error_with_the_setting_to_change(
        self, tmp_path, tables, django_q, settings, reason
    ) -> None:
        site = Site.write(tmp_path, asks_for("django-q2"), *settings, django_q=django_q)
        done = site.manage("check")
        assert done.returncode != 0
        said = f"POWERCRUD_SETTINGS['QUEUE'] is 'django-q2', but {reason}"
        assert f"(powercrud_models.E011) {said}" in done.stderr

        copy(tables, site.folder)
        printed = site.run("""
            from django.core.exceptions import ImproperlyConfigured
            from powercrud_models.models import AsyncTask, ObjectLock, TaskItem
            play = Play(title="Hamlet")
            play.save(skip_async=True)
            for call in (play.save, play.recount.enqueue, Play(title="Macbeth").save):
                play.title = "changed"
                try:
                    call()
                except ImproperlyConfigured as error:
                    print(error)
            print(Play.objects.values_list("title").get())
            print(AsyncTask.objects.count(), TaskItem.objects.count(), ObjectLock.objects.count())
            print(play.async_task)
        """)
        first_use = f"POWERCRUD_SETTINGS['QUEUE'] is 'django-q2', but {reason}"
        assert printed.splitlines() == [first_use] * 3 + ["('Hamlet',)", "0 0 0", "None"]


def test_the_immediate_queue_needs_no_django_q2(tmp_path, tables) -> None:
    site = Site.write(tmp_path, asks_for("immediate"), django_q=False)
    assert "no issues" in ok(site.manage("check"))
    copy(tables, site.folder)
    printed = site.run("""
        from powercrud_models.models import ObjectLock
        play = Play.objects.create(title="Hamlet")
        Scene(play=play, text="who is there").save()
        play.save()
        print(play.async_task.status, play.async_task.result(), ObjectLock.objects.count())
    """)
    assert printed == "success 3 0\n"


def test_django_q2_that_is_configured_is_used(tmp_path, tables) -> None:
    """The other side: what the tests above find missing is enough when it is there."""
    site = Site.write(
        tmp_path, "POWERCRUD_SETTINGS = {'ASYNC_ENABLED': True}", APP, CLUSTER, django_q=True
    )
    assert "no issues" in ok(site.manage("check"))
    copy(tables, site.folder)
    printed = site.run("""
        from django_q.models import OrmQ
        play = Play.objects.create(title="Hamlet")
        print(play.async_task.status, play.holder == play.async_task, OrmQ.objects.count())
    """)
    assert printed == "pending True 1\n"
