"""Records of the compiled core through the log to a real Kafka, which takes and keeps them as it does others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from streamseg_engine import Records

from streamseg.worker.log import Item, Log, LogError, RecordTooLargeError
from streamseg.worker.sealed import sealed_batches

T = TypeVar("T")

BATCH_BYTES = 16_384
ITEMS: list[Item] = [
    *((b"%d" % each, b"state %d " % each * 20, [("id", b"%d" % each), ("origin", b"")]) for each in range(2000)),
    (b"gone", None, []),
    (b"", b"", [("", b"")]),
    (b"large", b"x" * 30_000, []),
    (b"last", b"x", []),
]


def do(what: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(what)


def native(items: list[Item]) -> Records:
    records = Records(BATCH_BYTES, 50_000)
    for item in items:
        records.push(*item)
    return records


async def create(kafka: str, topic: str, **configs: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        named = {name.replace("_", "."): value for name, value in configs.items()}
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=named)])
    finally:
        await admin.close()


def producer(kafka: str, compression: str | None = "snappy") -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=kafka,
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES,
        compression_type=compression,
    )


async def read(kafka: str, topic: str, count: int) -> list[Any]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        records: list[Any] = []
        while len(records) < count:
            for polled in (await consumer.getmany(timeout_ms=1000)).values():
                records.extend(polled)
        assert await consumer.position(TopicPartition(topic, 0)) == count
    return records


async def append(kafka: str, topic: str, compression: str | None, *parts: list[Item] | Records) -> list[int]:
    async with producer(kafka, compression) as sender:
        log = Log(lambda: sender, 50_000)
        appended = await asyncio.gather(*(log.append(topic, 0, part) for part in parts))
        return [await each for each in appended]


@pytest.mark.parametrize("compression", [None, "snappy", "zstd", "lz4", "gzip"])
def test_records_of_the_core_stand_in_the_log_in_order_among_others(
    compression: str | None, kafka: str, topic: str
) -> None:
    do(create(kafka, topic, cleanup_policy="compact", min_compaction_lag_ms="3600000"))
    before = int(time.time() * 1000)
    parts: list[list[Item] | Records] = [native(ITEMS[:1500]), native([]), ITEMS[1500:1800], native(ITEMS[1800:])]
    assert do(append(kafka, topic, compression, *parts)) == [1499, -1, 1799, 2003]
    records = do(read(kafka, topic, 2004))
    assert [(each.key, each.value, list(each.headers)) for each in records] == ITEMS
    assert [each.offset for each in records] == list(range(2004))
    assert before <= records[0].timestamp <= records[-1].timestamp <= int(time.time() * 1000)


@pytest.mark.parametrize("compression", [None, "snappy"])
def test_a_broker_that_compresses_anew_has_read_every_record(compression: str | None, kafka: str, topic: str) -> None:
    do(create(kafka, topic, compression_type="gzip"))
    items: list[Item] = [*ITEMS, (None, b"no key", [])]
    assert do(append(kafka, topic, compression, native(items))) == [2004]
    records = do(read(kafka, topic, 2005))
    assert [(each.key, each.value, list(each.headers)) for each in records] == items


def test_a_record_that_is_too_large_is_refused_before_anything_is_queued(kafka: str, topic: str) -> None:
    items: list[Item] = [(b"small", b"x", []), (b"big", b"x" * 50_000, []), (b"bigger", b"x" * 60_000, [])]
    do(create(kafka, topic))
    said = [do(refusal(kafka, topic, RecordTooLargeError, part)) for part in (items, native(items))]
    assert said[0] == said[1]
    assert "has 50003 bytes but at most 49872 fit: key b'big'. " in said[0]
    assert do(append(kafka, topic, None, native([(b"first", b"x", [])]))) == [0]


def test_what_the_broker_refuses_is_an_error_of_the_log(kafka: str, topic: str) -> None:
    do(create(kafka, topic, max_message_bytes="1"))
    said = do(refusal(kafka, topic, LogError, native(ITEMS)))
    assert said.startswith(f"the broker did not take what was written to {topic}/0: ")


async def refusal(kafka: str, topic: str, kind: type[LogError], part: list[Item] | Records) -> str:
    async with producer(kafka) as sender:
        with pytest.raises(kind) as caught:
            await (await Log(lambda: sender, 50_000).append(topic, 0, part))
        assert type(caught.value) is kind
        return str(caught.value)


def test_a_batch_that_is_sent_again_is_written_once(kafka: str, topic: str) -> None:
    do(create(kafka, topic))
    do(send_again(kafka, topic))
    assert [each.key for each in do(read(kafka, topic, 3))] == [b"a", b"b", b"c"]


async def send_again(kafka: str, topic: str) -> None:
    """Makes the producer believe that its first batch got no answer."""
    async with producer(kafka) as sender:
        accumulator = sender._message_accumulator
        [first] = sealed_batches(native([(b"a", b"x", []), (b"b", b"y", [])]), 1, "snappy")
        assert (await (await sender.send_batch(first, topic, partition=0))).offset == 0
        sent = first._build()
        again = accumulator._append_batch(first, TopicPartition(topic, 0))
        again.drain_ready()  # not its first time, so it keeps its sequence
        assert (await again.future).offset == 0
        assert first._build() == sent
        assert await (await Log(lambda: sender, 50_000).append(topic, 0, native([(b"c", b"z", [])]))) == 2
