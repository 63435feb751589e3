"""Topics for a run, and who fills them."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

PARTITIONS = 4


async def create_topic(kafka: str, topic: str) -> None:
    """Makes a topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    finally:
        await admin.close()


class Writer:
    """Appends to the partitions of one topic, in batches; of at most so many records, if that is said."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, most: int | None = None) -> None:
        self._producer = producer
        self._topic = topic
        self._most = most
        self._batches = [producer.create_batch() for _ in range(PARTITIONS)]
        self.counts = [0] * PARTITIONS

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
        for partition in range(PARTITIONS):
            await self._send(partition)
        await self._producer.flush()
