"""Use the installed wheel in a project that has no queue and no POWERCRUD_SETTINGS."""

import importlib.util
import sys

import django
from django.conf import settings
from django.core.management import call_command

import powercrud_models

if importlib.util.find_spec("django_q"):
    sys.exit("django-q2 is installed: this would prove nothing.")

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "powercrud_models",
    ],
    USE_TZ=True,
)
django.setup()
call_command("check")
call_command("migrate", verbosity=0)
call_command("makemigrations", check=True, dry_run=True)
print(f"{powercrud_models.__file__}: imports, checks and migrates")
