"""The brokers that a cluster of the tests can have, and what can happen to their messages."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, NoReturn

import pytest
from django.utils import timezone

REDIS_URL = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379/9")
"""A Redis database in which other things of the tests may be, too: see ``RedisBroker``."""


class MessageBroker(ABC):
    """Tells a cluster where to pull from, and has the messages in hand."""

    q_cluster: dict[str, Any]
    """What stands in the cluster's Q_CLUSTER."""

    @abstractmethod
    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Have this process send to it: django-q2 reads its settings only once."""

    @abstractmethod
    def size(self) -> int:
        """How many messages nobody has pulled."""

    @abstractmethod
    def empty(self) -> None:
        """Lose all messages."""


both_brokers = pytest.mark.parametrize("broker", ["orm", "redis"], indirect=True)
"""For a test whose cluster is to have one and then the other."""


class OrmBroker(MessageBroker):
    """Messages are rows, which stay until the work has ended."""

    q_cluster: dict[str, Any] = {}  # the settings of the tests name it

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """It is used anyway."""

    def size(self) -> int:
        from django_q.models import OrmQ

        return int(OrmQ.objects.filter(lock__lte=timezone.now()).count())

    def empty(self) -> None:
        from django_q.models import OrmQ

        OrmQ.objects.all().delete()


class RedisBroker(MessageBroker):
    """A message is gone when it is pulled. The keys bear the number of this process.

    So another run of the tests, with the same Redis database, is left alone.
    """

    def __init__(self, url: str = REDIS_URL) -> None:
        self._url = url
        self._name = f"powercrud_models_{os.getpid()}"
        self.q_cluster = {"orm": None, "redis": url, "name": self._name}

    def use(self, patch: pytest.MonkeyPatch) -> None:
        from django_q.conf import Conf

        patch.setattr(Conf, "ORM", None)
        patch.setattr(Conf, "REDIS", self._url)
        patch.setattr(Conf, "PREFIX", self._name)
        patch.setattr(Conf, "CLUSTER_NAME", self._name)

    def size(self) -> int:
        return int(self._connection().llen(f"django_q:{self._name}:q"))

    def empty(self) -> None:
        connection = self._connection()
        for key in connection.scan_iter(f"django_q:{self._name}:*"):
            connection.delete(key)

    def _connection(self) -> Any:
        import redis

        return redis.from_url(self._url)


def refuse_without_redis() -> None:
    """Without a Redis that answers, skip the test; with REQUIRE_SERVICES=1, fail it."""
    try:
        import redis
    except ImportError as error:
        refuse(f"the client of Redis is not installed: {error}")
    try:
        redis.from_url(REDIS_URL).ping()
    except redis.RedisError as error:
        refuse(f"Redis does not answer: {error}")


def refuse(reason: str) -> NoReturn:
    if os.environ.get("REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
