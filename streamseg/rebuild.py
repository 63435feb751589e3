"""Deletes the view in Redis, after which the workers show all of their customers again. Safe while they run."""

from __future__ import annotations

from collections.abc import Iterator

from redis import Redis
from redis.exceptions import RedisError

from streamseg.core.errors import TryAgainError
from streamseg.worker.redis_view import REBUILDING
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
            return _delete(redis, names.redis)
    except (RedisError, OSError) as error:
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
    redis.delete(f"{prefix}view")
    return deleted


def _chunks(redis: Redis, pattern: str) -> Iterator[list[bytes]]:
    found: list[bytes] = []
    for key in redis.scan_iter(pattern, count=CHUNK):
        found.append(key)
        if len(found) == CHUNK:
            yield found
            found = []
    if found:
        yield found
