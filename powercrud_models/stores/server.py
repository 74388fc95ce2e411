"""The Redis server under CACHE_NAME: its client and its keys are those of the project's cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.redis import RedisCache
from django.core.exceptions import ImproperlyConfigured

from powercrud_models.exceptions import StoreUnavailable

TAG = "{powercrud}"
"""Redis Cluster puts the keys that share it on one node."""
WAY_OUT = (
    "Name a cache in POWERCRUD_SETTINGS['CACHE_NAME'] whose BACKEND is "
    "'django.core.cache.backends.redis.RedisCache' or 'django_redis.cache.RedisCache', or leave "
    "out STORE: locks are then kept in the database."
)


class Server:
    """Runs scripts through the cache's own client: its connections, key prefix and version.

    Raises ImproperlyConfigured when it cannot, with the way out.
    """

    def __init__(self, cache_name: str) -> None:
        self.cache_name = cache_name
        self.client  # noqa: B018  a cache that is none of Redis is named before the first lock

    @property
    def client(self) -> Any:
        """The client of this thread, for writing: a replica may lag behind."""
        cache = _cache(self.cache_name)
        if isinstance(cache, RedisCache):
            return _client(lambda: cache._cache.get_client(write=True))
        if find_spec("django_redis"):
            from django_redis.cache import RedisCache as OtherCache
            from django_redis.client import ShardClient

            if isinstance(cache, OtherCache) and not isinstance(cache.client, ShardClient):
                return _client(lambda: cache.client.get_client(write=True))
        raise ImproperlyConfigured(
            f"POWERCRUD_SETTINGS['STORE'] is 'redis', but the cache {self.cache_name!r} is a "
            f"{type(cache).__module__}.{type(cache).__qualname__}, which gives no client of one "
            f"Redis server. {WAY_OUT}"
        )

    @cached_property
    def _base(self) -> str:
        base = str(_cache(self.cache_name).make_key(TAG))
        return base if TAG in base else f"{{{base}}}"  # a KEY_FUNCTION may have hashed it

    def name(self, *parts: str) -> str:
        """The name of a key, with the cache's prefix and version."""
        return ":".join((self._base, *parts))

    def run(self, script: str, names: Sequence[str], *arguments: Any) -> Any:
        """What the script returns.

        Raises StoreUnavailable when the server does not answer, or refuses.
        """
        return self.run_all(script, [(names, arguments)])[0]

    def run_all(self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> Any:
        """What each call of the script returns; they travel in one round trip."""
        from redis import RedisError

        try:
            return [_decoded(answer) for answer in self._answers(script, calls)]
        except RedisError as error:
            raise StoreUnavailable(
                f"Locks are kept in Redis (the cache {self.cache_name!r}), which "
                f"cannot be asked: {type(error).__name__}: {error}"
            ) from error

    def _answers(
        self, script: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        from redis import RedisCluster
        from redis.exceptions import NoScriptError

        client = self.client
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        if len(calls) > 1 and not isinstance(client, RedisCluster):  # whose pipelines take none
            pipeline = client.pipeline(transaction=False)
            for number, (names, arguments) in enumerate(calls):
                call, what = (pipeline.evalsha, digest) if number else (pipeline.eval, script)
                call(what, len(names), *names, *arguments)
            return list(pipeline.execute())
        answers = []
        for names, arguments in calls:
            try:
                answer = client.evalsha(digest, len(names), *names, *arguments)
            except NoScriptError:  # the server sees it for the first time
                answer = client.eval(script, len(names), *names, *arguments)
            answers.append(answer)
        return answers

    def info(self, section: str) -> dict[str, Any]:
        """What the server says about itself; nothing where that is forbidden."""
        from redis import RedisError, ResponseError

        try:
            return dict(self.client.info(section))
        except ResponseError:
            return {}
        except RedisError as error:
            raise StoreUnavailable(f"Redis does not answer: {error}") from error

    @property
    def waits_for_ever(self) -> bool:
        """Whether a server that hangs would keep its callers waiting for ever."""
        pool = getattr(self.client, "connection_pool", None)
        if pool is None:
            return False
        return pool.connection_class(**pool.connection_kwargs).socket_timeout is None


def _cache(name: str) -> Any:
    if name not in settings.CACHES:
        raise ImproperlyConfigured(
            f"POWERCRUD_SETTINGS['CACHE_NAME'] is {name!r}, but CACHES has no such cache. {WAY_OUT}"
        )
    try:
        return caches[name]
    except InvalidCacheBackendError as error:
        raise ImproperlyConfigured(
            f"The cache {name!r} cannot be used: {error} {WAY_OUT}"
        ) from error


def _client(get: Any) -> Any:
    try:
        return get()
    except ImportError as error:
        raise ImproperlyConfigured(
            f"POWERCRUD_SETTINGS['STORE'] is 'redis', but Redis's client cannot be imported: "
            f"{error}. pip install 'django-powercrud-models[redis]'"
        ) from error


def _decoded(answer: Any) -> Any:
    return answer if isinstance(answer, int) else json.loads(answer)
