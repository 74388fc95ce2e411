"""System checks: misuse and half a configuration, named before the first save."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.db import DatabaseCache
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router
from django.db.models import Model

from powercrud_models.conf import get_conf
from powercrud_models.contradictions import undecorated_overrides
from powercrud_models.declarations import declares_anything, works_of
from powercrud_models.exceptions import StoreUnavailable
from powercrud_models.lifecycle import tasks_alias
from powercrud_models.misuse import Misdeclared
from powercrud_models.mixins.models import AsyncModelMixin
from powercrud_models.queues.django_q2 import missing
from powercrud_models.stores import Store, get_store
from powercrud_models.stores.database import WANTED

RESERVED = ("holder", "async_task")
OVERRIDDEN = ("save", "asave")
READ_COMMITTED = {"postgresql": 2, "mysql": "read committed"}
"""What the databases' drivers call it; on PostgreSQL it is psycopg's IsolationLevel."""


@register("powercrud_models")
def check_models(app_configs: Iterable[Any] | None, **_: Any) -> list[CheckMessage]:
    """Declarations that could not do what they say."""
    configs = apps.get_app_configs() if app_configs is None else app_configs
    models = [model for config in configs for model in config.get_models()]
    return [message for model in models for message in _check_model(model)]


def _check_model(model: type[Model]) -> Iterator[CheckMessage]:
    name = model.__name__
    if not issubclass(model, AsyncModelMixin):
        decorated = declares_anything(model)
        if decorated is not None:
            yield Error(
                f"{decorated} is decorated, but {name} does not inherit from AsyncModelMixin: "
                "the decorator does nothing.",
                hint=f"class {name}(AsyncModelMixin, ...)",
                obj=model,
                id="powercrud_models.E001",
            )
        return
    try:
        works_of(model)
    except Misdeclared as error:
        yield Error(str(error), obj=model, id=error.check_id)
    for method in undecorated_overrides(model):
        yield checks.Warning(
            f"{name}.{method} overrides a decorated method without the decorator: it is a plain "
            f"method, and a save of a {name} does nothing with it.",
            hint="Decorate it, too; if this is meant, silence powercrud_models.W005.",
            obj=model,
            id="powercrud_models.W005",
        )
    for method in OVERRIDDEN:
        if not _takes_skip_async(getattr(model, method)):
            yield Error(
                f"{name}.{method}() cannot take skip_async, so nobody can save a {name} inline.",
                hint=f"def {method}(self, *args, **kwargs): ... super().{method}(*args, **kwargs)",
                obj=model,
                id="powercrud_models.E003",
            )
    for attribute in RESERVED:
        if getattr(model, attribute, None) is not vars(AsyncModelMixin)[attribute]:
            yield Error(
                f"{name}.{attribute} hides AsyncModelMixin.{attribute}.",
                hint="Give the field, the relation or the method another name.",
                obj=model,
                id="powercrud_models.E004",
            )


def _takes_skip_async(method: Any) -> bool:
    parameters = inspect.signature(method).parameters.values()
    return any(each.name == "skip_async" or each.kind is each.VAR_KEYWORD for each in parameters)


@register("powercrud_models")
def check_settings(app_configs: Iterable[Any] | None, **_: Any) -> list[CheckMessage]:
    """Settings that contradict each other, or are of no use."""
    try:
        conf = get_conf()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="powercrud_models.E010")]
    return [
        *_check_queue(conf.ASYNC_ENABLED, conf.QUEUE),
        *_check_database(),
        *_check_store(),
    ]


@register("powercrud_models", deploy=True)
def check_deployment(app_configs: Iterable[Any] | None, **_: Any) -> list[CheckMessage]:
    """Settings that are for tests, and servers that are not ready."""
    try:
        conf = get_conf()
        store = get_store()
    except ImproperlyConfigured:
        return []  # `check_settings` says so
    messages: list[CheckMessage] = [*_check_servers(store), *check_cache(conf.CACHE_NAME)]
    if conf.QUEUE == "testing":
        messages.append(
            checks.Warning(
                "POWERCRUD_SETTINGS['QUEUE'] is 'testing': tasks are queued, and no worker runs "
                "them.",
                hint="Leave it out, or name the queue that workers listen to.",
                id="powercrud_models.W016",
            )
        )
    return messages


def _check_store() -> Iterator[CheckMessage]:
    try:
        get_store()
    except ImproperlyConfigured as error:
        yield Error(str(error), id="powercrud_models.E018")


def _check_servers(store: Store) -> Iterator[CheckMessage]:
    """What locks are in danger of, as the server and the tasks are at this moment."""
    try:
        for danger in store.dangers(tasks_alias()):
            yield checks.Warning(
                danger.said, hint=danger.hint, id=f"powercrud_models.{danger.check_id}"
            )
    except StoreUnavailable as error:
        yield Error(
            str(error), hint="Start it, or correct its LOCATION.", id="powercrud_models.E019"
        )
    except DatabaseError:
        return  # there is no server yet, or no table: `migrate` says so


def check_cache(name: str) -> Iterator[CheckMessage]:
    """Whether the cache of this name is ready: `createcachetable` is often forgotten."""
    cache: Any = caches[name] if name in settings.CACHES else None
    if not isinstance(cache, DatabaseCache):
        return
    table = getattr(cache, "_table")  # noqa: B009  the stubs do not know it
    alias = router.db_for_read(cache.cache_model_class)
    try:
        tables = connections[alias].introspection.table_names()
    except DatabaseError:
        return
    if table not in tables:
        yield Error(
            f"The cache {name!r} is a DatabaseCache, and its table {table!r} is missing.",
            hint="python manage.py createcachetable",
            id="powercrud_models.E020",
        )


def _check_queue(enabled: bool, queue: str) -> Iterator[CheckMessage]:
    reason = missing()
    if enabled and reason is not None and queue in ("auto", "django-q2"):
        if queue == "django-q2":
            yield Error(
                f"POWERCRUD_SETTINGS['QUEUE'] is 'django-q2', but {reason}",
                id="powercrud_models.E011",
            )
        else:
            yield checks.Warning(
                f"ASYNC_ENABLED is True, but {reason} Until then everything runs inline.",
                hint="Or say so: POWERCRUD_SETTINGS['QUEUE'] = 'inline' (or 'immediate').",
                id="powercrud_models.W011",
            )
    if not enabled and queue in ("immediate", "django-q2", "testing"):
        yield checks.Warning(
            f"POWERCRUD_SETTINGS['QUEUE'] is {queue!r}, but ASYNC_ENABLED is False: "
            "everything runs inline.",
            hint="POWERCRUD_SETTINGS['ASYNC_ENABLED'] = True",
            id="powercrud_models.W012",
        )


def _check_database() -> Iterator[CheckMessage]:
    """Guard and launch exclude each other only where a second look sees what has been committed."""
    connection = connections[tasks_alias()]
    # Django's own checks have asked the server by now
    is_mysql = connection.vendor == "mysql" and not getattr(connection, "mysql_is_mariadb", True)
    if connection.vendor not in WANTED or is_mysql:
        yield Error(
            f"Locks cannot be kept in the database {connection.alias!r}: it is of the kind "
            f"{connection.vendor!r}.",
            hint="Route AsyncTask, and the models that use it, to SQLite, PostgreSQL or MariaDB.",
            id="powercrud_models.E015",
        )
    wanted = READ_COMMITTED.get(connection.vendor)
    level = connection.settings_dict.get("OPTIONS", {}).get("isolation_level", wanted)
    level = level.lower() if isinstance(level, str) else level  # as Django does
    # to Django None is READ COMMITTED on PostgreSQL, and what the server likes on MariaDB
    if level != wanted and (level is not None or connection.vendor == "mysql"):
        yield Error(
            f"The database {connection.alias!r} is not at READ COMMITTED: a save could miss the "
            "lock of a task.",
            hint="Leave isolation_level out of its OPTIONS.",
            id="powercrud_models.E014",
        )
