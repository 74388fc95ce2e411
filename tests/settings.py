"""The sample project's settings, with a database that the test runs may make and drop."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("SAMPLE_ENGINE", os.environ.get("TEST_DATABASE", "sqlite"))

from config.settings import *  # noqa: F403
from config.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "rest_framework", "tests.kinds", "tests.doors"]
ROOT_URLCONF = "tests.doors.urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Files, not memory: threads and processes of the tests open connections of their own. The folder
# goes with the process.
_folder = tempfile.TemporaryDirectory(prefix="powercrud_models_")

if os.environ["SAMPLE_ENGINE"] == "sqlite":
    DATABASES["default"]["TEST"] = {"NAME": Path(_folder.name) / "default.sqlite3"}
else:
    DATABASES["default"]["TEST"] = {"NAME": f"test_powercrud_models_{os.getpid()}"}
    if os.environ["SAMPLE_ENGINE"] == "mariadb":
        DATABASES["default"]["TEST"]["CHARSET"] = "utf8mb4"

# A second database, for the tests that ask for it: it has the tables of `tests.kinds` only.
_other = Path(_folder.name) / "other.sqlite3"
DATABASES["other"] = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": _other,
    "TEST": {"NAME": _other},
}
DATABASE_ROUTERS = ["tests.databases.OtherHasKindsOnly"]
