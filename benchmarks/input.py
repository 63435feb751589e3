"""The input of a run: the events of a made-up shop, in a file and in a topic.

They come in order, each once, without refunds and without anything malformed: what streamseg does about those is
not part of the job that all are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from aiokafka import AIOKafkaProducer

from benchmarks.writer import BATCH_BYTES, PARTITIONS, Writer, create_topic
from streamseg.core.units import DAY
from streamseg.shop import Shop
from streamseg.worker.placement import partition_of

EVENTS_PER_CUSTOMER = 20
SPAN_MS = 180 * DAY
"""Twice the longest window, so that events leave it, too."""
SPARE = 1.05
"""More lines than are wanted, for those that are left out."""
_REFUND = b'"type":"refund"'


@dataclass(frozen=True, slots=True)
class Input:
    """So many events, one JSON object a line."""

    path: Path
    events: int

    @property
    def topic(self) -> str:
        """The topic that holds them."""
        return f"bench-events-{self.events}"


def make(path: Path, events: int, seed: int) -> Input:
    """Makes the events up; the same for the same seed."""
    customers = max(1, events // EVENTS_PER_CUSTOMER)
    shop = Shop(
        seed=seed,
        events=int(events * SPARE) + 100,
        customers=customers,
        span_ms=SPAN_MS,
        late_ratio=0,
        duplicate_ratio=0,
        malformed_ratio=0,
    )
    wanted = (line for _, line in shop.lines() if _REFUND not in line)
    with path.open("wb") as file:
        file.writelines(line + b"\n" for line in islice(wanted, events))
    return Input(path, events)


async def load(kafka: str, made: Input) -> None:
    """Makes the topic and fills it, each customer's events into one partition."""
    await create_topic(kafka, made.topic)
    async with AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=BATCH_BYTES) as producer:
        writer = Writer(producer, made.topic)
        with made.path.open("rb") as file:
            for line in file:
                key = _customer(line)
                await writer.add(partition_of(key, PARTITIONS), key, line[:-1])
        await writer.flush()


def _customer(line: bytes) -> bytes:
    start = line.index(b'"customer_id":"') + 15
    return line[start : line.index(b'"', start)]
