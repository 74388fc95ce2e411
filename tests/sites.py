"""Minimal Django sites in a directory of their own, each command of them in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parent.parent

DATABASE = "site.sqlite3"
SETTINGS = f"""
SECRET_KEY = "a site of the tests"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "powercrud_models", "shelf"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "{DATABASE}"}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
"""
MODELS = """
from django.db import models

from powercrud_models import AsyncModelMixin, async_method, async_save, descendants, progress


class Play(AsyncModelMixin):
    title = models.TextField()
    words = models.IntegerField(default=0)

    @async_save
    @descendants("scenes")
    def recount(self):
        self.words = 0
        for scene in progress(self.scenes.all()):
            scene.save()
            self.words += scene.words
        Play.objects.filter(pk=self.pk).update(words=self.words)
        return self.words

    @async_method
    def reindex(self, depth=1):
        return depth


class Scene(AsyncModelMixin):
    play = models.ForeignKey(Play, models.CASCADE, related_name="scenes")
    text = models.TextField()
    words = models.IntegerField(default=0)

    @async_save
    def recount(self):
        if not self.text:
            raise ValueError("an empty scene")
        self.words = len(self.text.split())
        Scene.objects.filter(pk=self.pk).update(words=self.words)
"""
WITHOUT_DJANGO_Q = """
import sys
from importlib.machinery import PathFinder


class Without(PathFinder):
    '''Finds what is installed, but for django-q2: as in a venv that does not have it.'''

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] == "django_q":
            return None
        return super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""


@dataclass(frozen=True)
class Site:
    """A project that somebody else might have: its own settings, its own app, its own database."""

    folder: Path

    @classmethod
    def write(cls, folder: Path, *settings: str, django_q: bool) -> Site:
        """Write it, with these lines at the end of its settings, and django-q2 or without it."""
        (folder / "site_settings.py").write_text("\n".join([SETTINGS, *settings]))
        (folder / "shelf").mkdir()
        (folder / "shelf" / "__init__.py").touch()
        (folder / "shelf" / "models.py").write_text(MODELS)
        if not django_q:  # what Python imports by itself at every start
            (folder / "sitecustomize.py").write_text(WITHOUT_DJANGO_Q)
        return cls(folder)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the site; the settings are found, Django is not set up."""
        mine = ("DJANGO_", "SAMPLE_", "PYTHON")
        env = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        env |= {
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT)]),
        }
        return subprocess.run(
            [sys.executable, "-W", "error::RuntimeWarning", *arguments],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command."""
        return self.python("-m", "django", *arguments)

    def run(self, script: str) -> str:
        """Run a script in the site that is set up, and return what it printed."""
        setup = "import django; django.setup()\nfrom shelf.models import Play, Scene\n"
        return ok(self.python("-c", setup + dedent(script)))

    def migrate(self) -> subprocess.CompletedProcess[str]:
        """Make the tables."""
        return self.manage("migrate", "--run-syncdb", "--verbosity", "0")


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """What the process printed; it must have ended well."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
