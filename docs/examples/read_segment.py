"""Prints a customer's segment: python read_segment.py REDIS_URL CUSTOMER [SCHEME] [PREFIX]."""

import sys

from redis import Redis


def segment(redis: Redis, customer: str, scheme: str, prefix: str = "streamseg") -> str | None:
    """The segment of a customer in a scheme; None for a customer of whom no event was ever accepted."""
    found = redis.hget(f"{prefix}:customer:{customer}", scheme)
    return None if found is None else str(found)


if __name__ == "__main__":
    url, customer, *rest = sys.argv[1:]
    print(segment(Redis.from_url(url, decode_responses=True), customer, *(rest or ["value"])))
