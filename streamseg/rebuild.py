"""Deletes the view in Redis, after which the workers show all of their customers again. Safe while they run."""

from __future__ import annotations

from collections.abc import Iterator

from redis import Redis, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from streamseg.core.errors import TryAgainError
from streamseg.worker.redis_cluster import told_key
from streamseg.worker.redis_server import REBUILDING
from streamseg.worker.settings import Names

MARK_SECONDS = 60
"""How long workers wait for one who began to rebuild and died."""
CHUNK = 1_000


class RedisAwayError(TryAgainError):
    """Redis does not answer, or does not do what it is asked."""


def rebuild(url: str, names: Names) -> int:
    """Delete all customers and counters of an installation; returns how many customers there were.

    Workers that run wait meanwhile, then show all their customers; those that do not run do it when they start.
    The counts of moves stay, because nobody could tell them again. Raises RedisAwayError.
    """
    try:
        with Redis.from_url(url) as redis:
            if not redis.info("cluster").get("cluster_enabled"):
                return _delete(redis, names.redis)
        with RedisCluster.from_url(url) as cluster:
            return _delete_from(cluster, names.redis)
    except (RedisError, RedisClusterException, OSError) as error:
        raise RedisAwayError(
            f"Redis at {url.rsplit('@', maxsplit=1)[-1]} failed ({error}): nothing is lost, run the command again"
        ) from error


def _delete(redis: Redis, prefix: str) -> int:
    redis.set(f"{prefix}view", REBUILDING, ex=MARK_SECONDS)
    deleted = 0
    for keys in _chunks(redis, f"{prefix}customer:*"):
        redis.expire(f"{prefix}view", MARK_SECONDS)
        deleted += redis.unlink(*keys)
    for keys in _chunks(redis, f"{prefix}count:*"):
        redis.unlink(*keys)
    redis.delete(f"{prefix}epochs", f"{prefix}view")
    return deleted


def _delete_from(cluster: RedisCluster, prefix: str) -> int:
    """Delete key by key. Workers need not wait: what they write meanwhile is deleted, or right.

    The marks go first, so that the view heals if we die, and last, so that all is shown that was deleted.
    """
    _delete_each(cluster, f"{prefix}view:*")
    deleted = _delete_each(cluster, f"{prefix}customer:*")
    for key in cluster.scan_iter(f"{prefix}count:*", count=CHUNK):
        cluster.delete(key, told_key(prefix, key.decode()))  # in one step: they tell of each other
    _delete_each(cluster, f"{prefix}view:*")
    return deleted


def _delete_each(cluster: RedisCluster, pattern: str) -> int:
    deleted = 0
    for keys in _chunks(cluster, pattern):
        pipeline = cluster.pipeline()  # type: ignore[no-untyped-call]
        for key in keys:
            pipeline.unlink(key)
        deleted += sum(pipeline.execute())
    return deleted


def _chunks(redis: Redis | RedisCluster, pattern: str) -> Iterator[list[bytes]]:
    found: list[bytes] = []
    for key in redis.scan_iter(pattern, count=CHUNK):
        found.append(key)
        if len(found) == CHUNK:
            yield found
            found = []
    if found:
        yield found
