"""Appends events on a schedule that waits for nobody, in a process of its own.

All is made before the first event is due: the load shall not take the core that the worker needs. Event n is due at the
start plus n / rate. What is due is appended every SLICE_SECONDS; when the broker is slow, the next slices follow at
once. An event that is measured is the first of a customer whose id ends with the instant at which it was due, in
microseconds: so whoever sees what became of it knows what to count from (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from asyncio import Future
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from benchmarks.samples import Samples
from benchmarks.traffic import Traffic
from benchmarks.writer import BATCH_BYTES, PARTITIONS, Record

SLICE_SECONDS = 0.005
"""As long as Kafka's own producer waits for more, since version 4."""
START_SECONDS = 0.5
READY = "ready"
"""What a process says that waits for nothing any more."""
TRIED = 20_000
"""Events made to see how long that takes."""
SPARE = 1.5
"""How much longer all may take, for each of them."""


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
    """One event in so many is of a newcomer."""
    sampled: int = 1
    """One newcomer in so many is measured."""
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
        return self.events // self._apart - self._before // self._apart

    @property
    def _apart(self) -> int:
        return self.every * self.sampled

    @property
    def _before(self) -> int:
        return int(self.rate * self.warm_up)

    def is_measured(self, number: int) -> bool:
        """Whether an event is, of those of newcomers."""
        return number > self._before and number % self._apart == 0

    def command(self, out: Path) -> list[str]:
        """How to run it: what is measured is written to a file, as the time that appending took."""
        return [sys.executable, "-m", "benchmarks.feed", json.dumps(asdict(self)), str(out)]


def measured_prefix(label: str) -> bytes:
    """What ids of measured customers begin with."""
    return f"m-{label}-".encode()


class Slice:
    """What is due at once of one partition."""

    def __init__(self, partition: int, batch: BatchBuilder) -> None:
        self.partition = partition
        self.batch = batch
        self.measured: list[int] = []
        """When those that are measured were due."""

    def add(self, record: Record, due: int | None) -> bool:
        """Takes an event, if there is room."""
        if self.batch.append(key=record.key, value=record.value, timestamp=None) is None:
            return False
        if due is not None:
            self.measured.append(due)
        return True


class Feed:
    """One run of a load, which begins at an instant."""

    def __init__(self, load: Load, producer: AIOKafkaProducer, began: float) -> None:
        self.samples = Samples()
        self._load = load
        self._producer = producer
        self._began = began
        self._traffic = Traffic(load.customers, load.partitions, purchases=load.purchases, label=f"{load.label}-")

    def slices(self) -> list[list[Slice]]:
        """Makes all events: what is due at once, in order."""
        made: list[list[Slice]] = []
        for number in range(1, self._load.events + 1):
            at = number / self._load.rate
            while len(made) <= at / SLICE_SECONDS:
                made.append([])
                latest: dict[int, Slice] = {}
            record, due = self._event(number, self._began + at)
            part = latest.get(record.partition)
            if part is None or not part.add(record, due):
                part = latest[record.partition] = Slice(record.partition, self._producer.create_batch())
                part.add(record, due)
                made[-1].append(part)
        return made

    def _event(self, number: int, at: float) -> tuple[Record, int | None]:
        """The event, and the instant at which it is due if it is measured."""
        load, instant = self._load, int(at * 1_000)
        if number % load.every:
            return self._traffic.event(instant), None
        due = int(at * 1e6)
        if load.is_measured(number):
            return self._traffic.newcomer(b"%b%d" % (measured_prefix(load.label), due), instant), due
        return self._traffic.newcomer(b"w-%b-%d" % (load.label.encode(), due), instant), None

    async def run(self, slices: list[list[Slice]]) -> None:
        """Appends all, and waits until the broker has them."""
        for number, parts in enumerate(slices, 1):
            await asyncio.sleep(max(0.0, self._began + number * SLICE_SECONDS - time.time()))
            for part in parts:
                await self._send(part)
        await self._producer.flush()

    async def _send(self, part: Slice) -> None:
        sent = await self._producer.send_batch(part.batch, self._load.topic, partition=part.partition)
        sent.add_done_callback(partial(self._acknowledged, part.measured))

    def _acknowledged(self, measured: list[int], sent: Future[Any]) -> None:
        sent.result()
        now = int(time.time() * 1e6)
        for due in measured:
            self.samples.add("append", due, now)


def making_seconds(load: Load, producer: AIOKafkaProducer) -> float:
    """How long it takes to make all, about."""
    tried = replace(load, seconds=min(load.seconds + load.warm_up, TRIED / load.rate), warm_up=0.0)
    before = time.perf_counter()
    Feed(tried, producer, time.time()).slices()
    return (time.perf_counter() - before) * load.events / max(1, tried.events)


async def _main(load: Load, out: Path) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=load.kafka, max_batch_size=BATCH_BYTES, linger_ms=0)
    async with producer:
        gc.disable()  # it would look through all that is made, again and again
        feed = Feed(load, producer, time.time() + START_SECONDS + SPARE * making_seconds(load, producer))
        slices = feed.slices()
        print(READY, flush=True)
        before = time.process_time()
        await feed.run(slices)
    feed.samples.write(out)
    print(json.dumps({"cpu": time.process_time() - before}))


if __name__ == "__main__":
    uvloop.run(_main(Load(**json.loads(sys.argv[1])), Path(sys.argv[2])))
