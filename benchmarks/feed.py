"""Appends events on a schedule that waits for nobody, in a process of its own.

Events are made before the first is due, but for their ids and times and for those of newcomers, and come again after
POOL of them: the load shall not take the core that the worker needs. Event n is due at the start plus n / rate. What is
due is appended every SLICE_SECONDS; when the broker is slow, more is due at the next slice. An event that is measured
is the first of a customer whose id ends with the instant at which it was due, in microseconds: so whoever sees what
became of it knows what to count from (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from asyncio import Future
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from aiokafka import AIOKafkaProducer

from benchmarks.samples import Samples
from benchmarks.traffic import Traffic
from benchmarks.writer import BATCH_BYTES, PARTITIONS, Record
from streamseg.core.units import format_instant

SLICE_SECONDS = 0.002
START_SECONDS = 0.2
READY = "ready"
"""What a process says that waits for nothing any more."""
SOMETIME = format_instant(0).encode()
"""The time of an event that is not due yet."""
POOL = 300_000
"""Events made before, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to append. The first `warm_up` seconds are not measured."""

    kafka: str
    topic: str
    label: str
    rate: float
    """Events a second."""
    seconds: float
    every: int
    """One event in so many is of a newcomer, and measured."""
    customers: int
    warm_up: float = 0.0
    purchases: float = 0.15
    """Share of the other events."""
    partitions: int = PARTITIONS

    @property
    def events(self) -> int:
        """All of them."""
        return int(self.rate * (self.warm_up + self.seconds))

    @property
    def measured(self) -> int:
        """Events that are measured."""
        return self.events // self.every - self._before // self.every

    @property
    def _before(self) -> int:
        return int(self.rate * self.warm_up)

    def is_measured(self, number: int) -> bool:
        """Whether an event is, of those of newcomers."""
        return number > self._before

    def command(self, out: Path) -> list[str]:
        """How to run it: what is measured is written to a file, as the time that appending took."""
        return [sys.executable, "-m", "benchmarks.feed", json.dumps(asdict(self)), str(out)]


def measured_prefix(label: str) -> bytes:
    """What ids of measured customers begin with."""
    return f"m-{label}-".encode()


class _Slice:
    """What is due at once of one partition."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.batch = producer.create_batch()
        self.measured: list[int] = []
        """When those that are measured were due."""

    def add(self, record: Record, due: int | None) -> bool:
        """Takes an event, if there is room."""
        if self.batch.append(key=record.key, value=record.value, timestamp=None) is None:
            return False
        if due is not None:
            self.measured.append(due)
        return True


class Made(NamedTuple):
    """An event without its time, and without its number where that stands."""

    partition: int
    key: bytes
    parts: list[bytes]


class Feed:
    """One run of a load."""

    def __init__(self, load: Load, producer: AIOKafkaProducer) -> None:
        self.samples = Samples()
        self._load = load
        self._producer = producer
        self._traffic = Traffic(load.customers, load.partitions, purchases=load.purchases, label=f"{load.label}-")
        self._label = f"{load.label}-".encode()
        self._made = [self._make(number) for number in range(1, min(load.events, POOL) + 1)]
        self._began = 0.0
        self._count = 0

    def _make(self, number: int) -> Made:
        """The traffic's next event, which is of a customer who is there already."""
        record = self._traffic.event(0)
        return Made(record.partition, record.key, record.value.split(b"%b%d" % (self._label, number)))

    async def run(self) -> None:
        """Appends all, and waits until the broker has them."""
        load = self._load
        self._began = time.time() + START_SECONDS
        while self._count < load.events:
            due = min(load.events, int((time.time() - self._began) * load.rate))
            if due > self._count:
                await self._append(due)
            await asyncio.sleep(SLICE_SECONDS)
        await self._producer.flush()

    async def _append(self, due: int) -> None:
        """The events up to a number."""
        slices = [_Slice(self._producer) for _ in range(self._load.partitions)]
        while self._count < due:
            self._count += 1
            at = self._began + self._count / self._load.rate
            record, measured = self._event(self._count, at)
            part = slices[record.partition]
            if not part.add(record, measured):
                await self._send(record.partition, part)
                part = slices[record.partition] = _Slice(self._producer)
                part.add(record, measured)
        for partition, part in enumerate(slices):
            if part.batch.record_count():
                await self._send(partition, part)

    def _event(self, number: int, at: float) -> tuple[Record, int | None]:
        """The event, and the instant at which it is due if it is measured."""
        load, instant = self._load, int(at * 1_000)
        if number % load.every:
            partition, key, parts = self._made[number % len(self._made)]
            value = (b"%be%d" % (self._label, number)).join(parts)
            return Record(partition, key, value.replace(SOMETIME, self._traffic.text(instant))), None
        due = int(at * 1e6)
        if load.is_measured(number):
            return self._traffic.newcomer(b"%b%d" % (measured_prefix(load.label), due), instant), due
        return self._traffic.newcomer(b"w-%b-%d" % (load.label.encode(), due), instant), None

    async def _send(self, partition: int, part: _Slice) -> None:
        sent = await self._producer.send_batch(part.batch, self._load.topic, partition=partition)
        sent.add_done_callback(partial(self._acknowledged, part.measured))

    def _acknowledged(self, measured: list[int], sent: Future[Any]) -> None:
        sent.result()
        now = int(time.time() * 1e6)
        for due in measured:
            self.samples.add("append", due, now)


async def _main(load: Load, out: Path) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=load.kafka, max_batch_size=BATCH_BYTES, linger_ms=0)
    async with producer:
        feed = Feed(load, producer)
        gc.freeze()  # what is made need not be looked through again and again
        print(READY, flush=True)
        before = time.process_time()
        await feed.run()
    feed.samples.write(out)
    print(json.dumps({"cpu": time.process_time() - before}))


if __name__ == "__main__":
    uvloop.run(_main(Load(**json.loads(sys.argv[1])), Path(sys.argv[2])))
