"""Appends whole batches of records to topics, in order, through the app's own producer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from aiokafka.errors import KafkaError, KafkaTimeoutError

from streamseg.core.errors import StreamsegError

if TYPE_CHECKING:  # the compiled core may be absent; then nobody has its records
    from streamseg_engine import Records

logger = logging.getLogger("streamseg.worker")

Item = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""A record's key (None only where the original had none), its value (None deletes the key), and its headers."""

BATCH_BYTES = 1_000_000
"""Size at which what is appended is cut into batches: a broker takes 1,048,588 by default."""
RECORD_OVERHEAD = 128
"""More than what a record and the head of its batch add to key, value and headers, in bytes."""
HEADER_OVERHEAD = 12
MOST_HEADERS = 4_096
"""More than what the headers of any record of ours have together."""

NATIVE_COMPRESSIONS: dict[str | None, Literal["none", "snappy"]] = {None: "none", "snappy": "snappy"}
"""What aiokafka's producer and the compiled core call the compressions that the latter has."""


class LogError(StreamsegError):
    """The broker did not take what was appended."""


class RecordTooLargeError(LogError):
    """A record is larger than what one batch may hold."""


class Log:
    """Appends to topics; what is appended to one partition keeps the order of the calls."""

    def __init__(self, producer: Callable[[], Any], max_record_bytes: int) -> None:
        self._producer = producer
        self._max_record_bytes = max_record_bytes
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def append(self, topic: str, partition: int, items: Sequence[Item] | Records) -> Awaitable[int]:
        """Queue records for a partition; returns when all are queued, in order.

        Records of the compiled core are sent in the batches into which it cut them. The returned awaitable gives
        the offset of the last record once the broker has all of them (-1 when there were none), and raises when it
        refused one. While the broker is away, this waits.

        Raises RecordTooLargeError before anything is queued.
        """
        self._check_sizes(topic, items)
        queued: list[tuple[Awaitable[Any], int]] = []
        async with self._turns[topic, partition]:
            for batch in self._batches(items):
                count = batch.record_count()
                queued.append((await self._send(batch, topic, partition), count))
        return asyncio.ensure_future(_last_offset(topic, partition, queued))

    def _check_sizes(self, topic: str, items: Sequence[Item] | Records) -> None:
        limit = self._max_record_bytes - RECORD_OVERHEAD
        if not isinstance(items, Sequence):
            size, largest = items.largest()
            if size > limit:
                raise _too_large(topic, size, limit, largest)
            return
        for key, value, headers in items:
            size = len(key or b"") + len(value or b"")
            if size + MOST_HEADERS <= limit:
                continue
            if headers:
                size += sum(len(name.encode()) + len(content) + HEADER_OVERHEAD for name, content in headers)
            if size > limit:
                raise _too_large(topic, size, limit, key or b"")

    def _batches(self, items: Sequence[Item] | Records) -> Sequence[Any]:
        producer = self._producer()
        now = int(time.time() * 1000)
        if isinstance(items, Sequence):
            return self._filled(producer, items, now)
        # aiokafka keeps this to itself. What is not its producer gets batches of its own making.
        compression = NATIVE_COMPRESSIONS.get(getattr(producer, "_compression_type", ""))
        if compression is None:
            return self._filled(producer, items.items(), now)
        from streamseg.worker.sealed import sealed_batches

        return sealed_batches(items, now, compression)

    def _filled(self, producer: Any, items: Sequence[Item], now: int) -> list[Any]:
        """Fill batches up to the producer's batch size; a record that is larger gets a batch of its own."""
        batches: list[Any] = []
        append = None
        for key, value, headers in items:
            if append is None or append(timestamp=now, key=key, value=value, headers=headers) is None:
                batch = producer.create_batch()
                batches.append(batch)
                append = batch.append
                append(timestamp=now, key=key, value=value, headers=headers)
        for batch in batches:
            batch.close()
        return batches

    async def _send(self, batch: Any, topic: str, partition: int) -> Awaitable[Any]:
        while True:
            try:
                sent: Awaitable[Any] = await self._producer().send_batch(batch, topic, partition=partition)
            except KafkaTimeoutError:  # not queued: the broker is away, or slow
                logger.warning("the broker does not take records for %s/%d: still trying", topic, partition)
            else:
                return sent


def _too_large(topic: str, size: int, limit: int, key: bytes) -> RecordTooLargeError:
    return RecordTooLargeError(
        f"a record for {topic} has {size} bytes but at most {limit} fit: key {key[:80]!r}. "
        "Raise the topic's max.message.bytes and the worker's max_record_bytes, or keep less"
    )


async def _last_offset(topic: str, partition: int, queued: Sequence[tuple[Awaitable[Any], int]]) -> int:
    last = -1
    for sent, count in queued:
        try:
            metadata = await sent
        except KafkaError as error:
            raise LogError(f"the broker did not take what was written to {topic}/{partition}: {error}") from error
        if metadata is None or metadata.offset < 0:
            raise LogError(f"the broker does not say where it put {count} records of {topic}/{partition}")
        last = metadata.offset + count - 1
    return last
