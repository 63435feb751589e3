"""A steady load: events sent to their partitions while workers die, and how far every topic has come meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from tests.worker.running_worker import Site

SLICE_SECONDS = 0.05
LOOK_SECONDS = 0.05


class Feed:
    """Sends lines (customer, event) at a rate until it is stopped or there are no more."""

    def __init__(self, site: Site, lines: Iterator[tuple[str, bytes]], rate: float, kafka: str | None = None) -> None:
        self.sent = 0
        self._site, self._lines, self.rate = site, lines, rate
        self._kafka = kafka or site.kafka
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to send."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Send no more, and wait until the broker has all."""
        self._stopping.set()
        self._thread.join()

    async def _run(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka, enable_idempotence=True, linger_ms=5, max_request_size=4 << 20
        )
        await producer.start()
        try:
            began, due = time.monotonic(), 0.0
            while not self._stopping.is_set():
                due = (time.monotonic() - began) * self.rate
                some = list(islice(self._lines, max(0, int(due) - self.sent)))
                for customer, value in some:
                    await self._send(producer, customer.encode(), value)
                if not some and int(due) > self.sent:
                    break
                self.sent += len(some)
                await asyncio.sleep(SLICE_SECONDS)
        finally:
            await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, key: bytes, value: bytes) -> None:
        partition = self._site.partitioner(key, self._site.partitions)
        while True:
            try:
                await producer.send(self._site.events[0], value, key, partition)
            except KafkaError:  # the broker is away: what is on the topic counts, and this comes later
                await asyncio.sleep(SLICE_SECONDS)
            else:
                return


class Watch:
    """The ends of topics as of a moment ago, looked at by one consumer in a thread of its own."""

    def __init__(self, kafka: str, *topics: str, partitions: int) -> None:
        self._kafka = kafka
        self._tps = [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
        self._stopping = threading.Event()
        self.seen: tuple[float, Mapping[TopicPartition, int]] = (0.0, {})
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def ends(self, topic: str, since: float) -> dict[int, int] | None:
        """The ends by partition, if they were asked for after an instant (monotonic seconds)."""
        asked, ends = self.seen
        if asked < since:
            return None
        found: defaultdict[int, int] = defaultdict(int)
        found.update({tp.partition: end for tp, end in ends.items() if tp.topic == topic})
        return found

    async def _run(self) -> None:
        while not self._stopping.is_set():
            consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka, request_timeout_ms=5_000)
            try:
                await consumer.start()
                consumer.assign(self._tps)
                while not self._stopping.is_set():
                    asked = time.monotonic()
                    self.seen = (asked, await consumer.end_offsets(self._tps))
                    await asyncio.sleep(LOOK_SECONDS)
            except KafkaError:  # the broker is away
                await asyncio.sleep(LOOK_SECONDS)
            finally:
                with suppress(asyncio.CancelledError):  # of a fetch that was given up, not ours
                    await consumer.stop()
