"""Sees changes on their topic and assignments in Redis, in a process of its own; says `ready` when it looks.

Of Kafka it is a consumer like anybody's, but makes no object of each record. Of Redis it hears by keyspace
notifications, which reach a client when a HGET would show what they tell of: hashes of measured customers alone, so
that Redis sends nothing else.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from redis.asyncio import Redis

from benchmarks.feed import READY, measured_prefix
from benchmarks.samples import Samples
from benchmarks.writer import PARTITIONS
from streamseg.core.units import parse_instant
from streamseg.worker.fetches import give_plain_records

NOTIFY = "Kh"
"""`notify-keyspace-events`: of hashes, by key."""
LOOK_SECONDS = 0.2
MADE_SECONDS = 600.0
"""How long a load may take to be made."""
HERD = b"h-"
"""What ids of customers begin with whose deadlines are looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What to see. It ends when it has seen as many as are expected, or nothing new for `patience` seconds.

    Before the first record it waits for longer: for as long as a load may take to be made.
    """

    kafka: str
    topic: str
    redis: str
    prefix: str
    label: str
    expected: dict[str, int] = field(default_factory=dict)
    """Of `changes`, `redis`, and `deadlines`: changes of the herd by time alone."""
    patience: float = 60.0
    partitions: int = PARTITIONS

    def command(self, out: Path) -> list[str]:
        """How to run it: samples are written to a file."""
        return [sys.executable, "-m", "benchmarks.reader", json.dumps(asdict(self)), str(out)]


class _Change(msgspec.Struct):
    reason: str
    time: str


_decode = msgspec.json.Decoder(_Change).decode


class Reader:
    """One run of a look."""

    def __init__(self, look: Look) -> None:
        self.samples = Samples()
        self._look = look
        self._head = measured_prefix(look.label)
        self._seen: set[int] = set()
        self._moved = time.monotonic() + MADE_SECONDS
        """When something was last seen; before that, by when it must have begun."""

    async def run(self) -> None:
        """Looks until all is seen."""
        look = self._look
        give_plain_records([look.topic], compiled=False)  # what the reader takes of the cores, the worker waits for
        consumer = AIOKafkaConsumer(bootstrap_servers=look.kafka, enable_auto_commit=False)
        redis = Redis.from_url(look.redis)
        async with consumer, redis.pubsub() as notices:
            tps = [TopicPartition(look.topic, number) for number in range(look.partitions)]
            consumer.assign(tps)
            for tp, end in (await consumer.end_offsets(tps)).items():
                consumer.seek(tp, end)
            database = redis.connection_pool.connection_kwargs.get("db", 0)
            pattern = f"__keyspace@{database}__:{look.prefix}customer:{self._head.decode()}*"
            await notices.psubscribe(pattern)
            print(READY, flush=True)
            tasks = [asyncio.create_task(self._changes(consumer)), asyncio.create_task(self._assignments(notices))]
            await self._wait(tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait(self, tasks: list[asyncio.Task[None]]) -> None:
        expected, patience = self._look.expected, self._look.patience
        while any(len(self.samples.of[kind]) < count for kind, count in expected.items()):
            done, _ = await asyncio.wait(tasks, timeout=LOOK_SECONDS)
            for task in done:
                task.result()
            if time.monotonic() - self._moved > patience:
                return

    async def _changes(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            polled = await consumer.getmany(timeout_ms=1_000)
            now = int(time.time() * 1e6)
            if polled:
                self._moved = time.monotonic()
            for records in polled.values():
                for record in records:
                    self._change(record, now)

    def _change(self, record: Any, now: int) -> None:
        if record.key.startswith(self._head):
            self.samples.add("changes", int(record.key[len(self._head) :]), now)
        elif record.key.startswith(HERD):
            change = _decode(record.value)
            if change.reason == "time":
                # When it is on the topic the broker says: this reader may be behind.
                self.samples.add("deadlines", parse_instant(change.time) * 1_000, record.timestamp * 1_000)

    async def _assignments(self, notices: Any) -> None:
        while True:
            message = await notices.get_message(ignore_subscribe_messages=True, timeout=1.0)
            now = int(time.time() * 1e6)
            if message is None:
                continue
            due = int(message["channel"].rpartition(b"-")[2])
            if due not in self._seen:  # later ones are of forecasts that moved
                self._seen.add(due)
                self._moved = time.monotonic()
                self.samples.add("redis", due, now)


async def _main(look: Look, out: Path) -> None:
    gc.disable()  # it would look through all that was seen, and what comes meanwhile would be seen late
    reader = Reader(look)
    with suppress(asyncio.CancelledError):
        await reader.run()
    reader.samples.write(out)
    print(json.dumps({"cpu": time.process_time()}))


if __name__ == "__main__":
    uvloop.run(_main(Look(**json.loads(sys.argv[1])), Path(sys.argv[2])))
