"""Topics for a run, and who fills them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streamseg.worker.topics import wait_until_known

PARTITIONS = 4
BATCH_BYTES = 1 << 19
SLICES = 100
"""How often in a second a steady load is appended."""


class Record(NamedTuple):
    """What is to be appended, and where."""

    partition: int
    key: bytes
    value: bytes


async def create_topic(kafka: str, topic: str, partitions: int = PARTITIONS) -> None:
    """Makes a topic, and waits until the broker knows it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1)])
        await wait_until_known(admin, topic)
    finally:
        await admin.close()


async def delete_topics(kafka: str, name: str) -> None:
    """Deletes the topics that have the name in theirs."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.delete_topics([topic for topic in await admin.list_topics() if name in topic])
    finally:
        await admin.close()


class Writer:
    """Appends to the partitions of one topic, in batches; of at most so many records, if that is said."""

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, most: int | None = None, partitions: int = PARTITIONS
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._most = most
        self._batches = [producer.create_batch() for _ in range(partitions)]
        self.counts = [0] * partitions

    async def add(self, partition: int, key: bytes, value: bytes) -> None:
        """Appends a record."""
        batch = self._batches[partition]
        full = self._most is not None and batch.record_count() >= self._most
        if full or batch.append(key=key, value=value, timestamp=None) is None:
            await self._send(partition)
            self._batches[partition].append(key=key, value=value, timestamp=None)
        self.counts[partition] += 1

    async def _send(self, partition: int) -> None:
        await self._producer.send_batch(self._batches[partition], self._topic, partition=partition)
        self._batches[partition] = self._producer.create_batch()

    async def flush(self) -> None:
        """Waits until the broker has all."""
        for partition in range(len(self._batches)):
            await self._send(partition)
        await self._producer.flush()


async def append(kafka: str, topic: str, records: Iterable[Record], partitions: int = PARTITIONS) -> None:
    """Appends records as fast as the broker takes them: they are in batches before the first is sent."""
    async with AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=BATCH_BYTES) as producer:
        waiting = _batches(producer, records, partitions)
        while any(waiting):
            for partition, batches in enumerate(waiting):
                if batches:
                    await producer.send_batch(batches.pop(), topic, partition=partition)
        await producer.flush()


async def append_steadily(
    kafka: str, topic: str, records: Sequence[Record], rate: int, partitions: int = PARTITIONS
) -> None:
    """Appends so many records a second, on a schedule that waits for nobody."""
    at_once = max(1, rate // SLICES)
    async with AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=BATCH_BYTES) as producer:
        started = time.perf_counter()
        for start in range(0, len(records), at_once):
            await asyncio.sleep(max(0.0, started + start / rate - time.perf_counter()))
            for partition, batches in enumerate(_batches(producer, records[start : start + at_once], partitions)):
                for batch in batches:
                    await producer.send_batch(batch, topic, partition=partition)
        await producer.flush()


def _batches(producer: AIOKafkaProducer, records: Iterable[Record], partitions: int) -> list[list[Any]]:
    """For each partition its batches, the last one first."""
    made: list[list[Any]] = [[producer.create_batch()] for _ in range(partitions)]
    for partition, key, value in records:
        if made[partition][-1].append(key=key, value=value, timestamp=None) is None:
            made[partition].append(producer.create_batch())
            made[partition][-1].append(key=key, value=value, timestamp=None)
    return [[each for each in reversed(batches) if each.record_count()] for batches in made]
