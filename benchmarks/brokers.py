"""The broker: whether it answers, and what a benchmark leaves in one that it does not drop."""

from __future__ import annotations

from benchmarks.databases import DoesNotAnswer
from benchmarks.settings import QUEUE_OF_REDIS, chosen


def check_broker() -> None:
    """Raises DoesNotAnswer when the broker is a Redis server that cannot be reached."""
    if chosen["broker"] != "redis":
        return
    try:
        import redis
    except ImportError as error:
        raise DoesNotAnswer(str(error)) from None
    try:
        redis.Redis(**QUEUE_OF_REDIS).ping()
    except redis.RedisError as error:
        raise DoesNotAnswer(f"Redis: {error}") from None


def clear_broker() -> None:
    """Delete the keys of this benchmark's cluster in Redis, and no others."""
    if chosen["broker"] == "redis":
        import redis

        client = redis.Redis(**QUEUE_OF_REDIS)
        for key in client.scan_iter(match=f"django_q:{chosen['q_cluster']['name']}:*"):
            client.delete(key)
