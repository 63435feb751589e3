"""What tests share: a real Kafka and a real Redis for the whole run, and names that no other test uses."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator

import pytest

from streamseg import services

# A run in the background of a script ignores Ctrl-C, and so would every process that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a Kafka that answers: STREAMSEG_KAFKA, or one started for this run."""
    with services.kafka(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a Redis that answers: STREAMSEG_REDIS, or one started for this run."""
    with services.redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def topic() -> str:
    """Give the name of a topic that does not exist yet; whoever needs it creates it."""
    return f"events-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def prefix() -> str:
    """Give a bare word to put before topics and Redis keys; it holds no separator."""
    return f"test-{uuid.uuid4().hex[:12]}"
