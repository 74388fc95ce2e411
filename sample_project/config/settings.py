"""Settings of the sample project: SQLite and django-q2's ORM broker, so it needs no server."""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("SAMPLE_DEBUG", "1") == "1"
# Without DEBUG there is no default: Django refuses to sign anything with an empty key.
SECRET_KEY = os.environ.get("SAMPLE_SECRET_KEY", "insecure-sample-key" if DEBUG else "")
ALLOWED_HOSTS = ["127.0.0.1", "[::1]", "localhost"]

# django-q2 is an extra: without it the same site runs, and every save does its work inline.
HAS_DJANGO_Q = find_spec("django_q") is not None

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *(["django_q"] if HAS_DJANGO_Q else []),
    "powercrud_models",
    "library",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "powercrud_models.middleware.ActingUserMiddleware",
    "powercrud_models.middleware.ConflictMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
STATIC_URL = "static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True


def _sqlite() -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SAMPLE_DATABASE", BASE_DIR / "db.sqlite3"),
        "OPTIONS": {
            # A transaction that reads first and writes later cannot wait for another writer: it
            # fails with "database is locked". One that asks for the write lock at once can.
            "transaction_mode": "IMMEDIATE",
            # Seconds to wait for that lock: longer than the longest transaction.
            "timeout": 20,
            # WAL: readers (the page, the progress bar) go on while a worker writes. With it,
            # NORMAL is safe against a crash of the process, and much faster than FULL.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


def _postgresql() -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "library"),
        "HOST": os.environ.get("PGHOST", "127.0.0.1"),
        "PORT": os.environ.get("PGPORT", ""),
        "USER": os.environ.get("PGUSER", "postgres"),
        "PASSWORD": os.environ.get("PGPASSWORD", ""),
    }


def _mariadb() -> dict[str, Any]:
    if find_spec("MySQLdb") is None:
        # PyMySQL stands in for mysqlclient where there is no C compiler.
        import_module("pymysql").install_as_MySQLdb()
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": os.environ.get("MYSQL_DATABASE", "library"),
        "HOST": os.environ.get("MYSQL_HOST", "127.0.0.1"),
        "PORT": os.environ.get("MYSQL_TCP_PORT", ""),
        "USER": os.environ.get("MYSQL_USER", "root"),
        "PASSWORD": os.environ.get("MYSQL_PWD", ""),
        # The server's own default, REPEATABLE READ, hides locks committed after the snapshot.
        "OPTIONS": {"isolation_level": "read committed"},
    }


_ENGINES = {"sqlite": _sqlite, "postgresql": _postgresql, "mariadb": _mariadb}
_engine = os.environ.get("SAMPLE_ENGINE", "sqlite")
if _engine not in _ENGINES:
    raise ImproperlyConfigured(
        f"SAMPLE_ENGINE is {_engine!r}; it must be one of: {', '.join(_ENGINES)}."
    )
DATABASES = {
    "default": {
        # A worker would otherwise open a connection for every task.
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        **_ENGINES[_engine](),
    },
}

POWERCRUD_SETTINGS = {"ASYNC_ENABLED": True}

if HAS_DJANGO_Q:
    _workers = 2
    _prefetched = 2  # queue_limit
    _bulk = 1
    _timeout = 600
    Q_CLUSTER = {
        "name": "library",
        "orm": "default",
        "workers": _workers,
        # What a worker has prefetched waits there while others are idle: no more than one each.
        "queue_limit": _prefetched,
        "bulk": _bulk,
        "timeout": _timeout,
        # Counted from the moment a message is pulled: the time it waits for the ones prefetched
        # before it belongs to it, or a task that only waited is delivered a second time.
        "retry": int(_timeout * (1 + (_prefetched + _bulk) / _workers)) + 60,
        # Seconds between two looks into an empty queue; it is how late a task may start.
        "poll": 0.2,
        # The outcome stands in AsyncTask: django-q2 need not keep its own (-1), nor deliver a
        # failed task again (ack_failures).
        "save_limit": -1,
        "ack_failures": True,
        # A schedule that was missed while the cluster was down runs once, not once per miss.
        "catch_up": False,
    }
