"""Looks at an installation: its topics, and how producers key and partition the events that they sent last."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from zlib import crc32

import msgspec

from streamseg.core.errors import InputError
from streamseg.tail import connected, partitions_of, printable
from streamseg.worker.lenient import read_any_header_name
from streamseg.worker.placement import partition_of
from streamseg.worker.settings import Keys, Names
from streamseg.worker.topics import prepare

POLL_MS = 500
IDLE_POLLS = 4
"""Polls without a record after which a partition holds no more: its last offsets may be markers of transactions."""


class _Wire(msgspec.Struct):
    """What has to be known of an event."""

    customer_id: str


_decode = msgspec.json.Decoder(_Wire).decode


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Literal["right", "note", "problem"]
    text: str

    def __str__(self) -> str:
        return f"{ {'right': '✓', 'note': '!', 'problem': '✗'}[self.level] } {self.text}"


@dataclass(slots=True)
class Sample:
    """The latest records of an event topic with so many partitions."""

    topic: str
    partitions: int
    records: int = 0
    unreadable: int = 0
    """No events of a customer."""
    missing: int = 0
    """Without a key."""
    mismatch: int = 0
    """With another key than the customer id."""
    elsewhere: int = 0
    """Not where murmur2 puts the customer."""
    murmur2: int = 0
    crc32: int = 0
    neither: int = 0
    """Where these put the key, whatever it is; of both it can be where they agree."""
    homes: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Partitions that a customer's events came to."""

    def add(self, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Takes a record in."""
        self.records += 1
        if key is None:
            self.missing += 1
        else:
            self._take_key(partition, key)
        try:
            customer = _decode(value or b"").customer_id
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.unreadable += 1
            return
        self.homes[customer].add(partition)
        self.mismatch += key is not None and key != customer.encode()
        self.elsewhere += partition_of(customer, self.partitions) != partition

    def _take_key(self, partition: int, key: bytes) -> None:
        java = partition_of(key, self.partitions) == partition
        c = crc32(key) % self.partitions == partition
        self.murmur2, self.crc32, self.neither = self.murmur2 + java, self.crc32 + c, self.neither + (not (java or c))

    @property
    def split(self) -> int:
        """Customers whose events came to several partitions."""
        return sum(len(homes) > 1 for homes in self.homes.values())

    @property
    def partitioner(self) -> str:
        """By what the records came to their partitions, as far as they tell."""
        keyed = self.records - self.missing
        if not keyed:
            return "no record has a key: any partition"
        if self.partitions == 1:
            return "one partition: all agree"
        if self.murmur2 == keyed:
            return "murmur2, as Kafka's Java clients"
        if self.crc32 == keyed:
            return "CRC32, as librdkafka by default"
        shares = f"murmur2 for {self.murmur2 / keyed:.0%}, CRC32 for {self.crc32 / keyed:.0%} of the keys"
        return f"mixed: {shares}" if not self.neither else f"random, or another one: {shares}"

    def findings(self, keys: Keys) -> Iterator[Finding]:
        """What this means for a worker with these `--keys`."""
        if self.records == self.unreadable:
            yield Finding("note", f"{self.topic}: none of {self.records:,} records is an event of a customer")
            return
        yield Finding("right", f"{self.topic}: {self.records:,} latest records, {len(self.homes):,} customers")
        yield Finding("right" if self.murmur2 == self.records else "note", f"partitioner: {self.partitioner}")
        if self.unreadable:
            yield Finding("note", f"{self.unreadable:,} are no events of a customer")
        wrong = f"{self.missing:,} without a key, {self.mismatch:,} under another key than the customer id"
        if self.missing or self.mismatch:
            yield Finding("note" if keys is Keys.REKEY else "problem", wrong + _becomes(keys))
        if keys is Keys.TRUST:
            if self.split:
                yield Finding(
                    "problem", f"{self.split:,} customers come to several partitions: --keys trust splits them"
                )
        elif self.elsewhere:
            text = f"{self.elsewhere:,} are not in their customer's partition"
            if keys is Keys.REJECT:
                yield Finding("problem", f"{text}: rejected")
                return
            yield Finding("note", f"{text}: sent on")
            if not (self.missing or self.mismatch or self.split):
                yield Finding("note", "all events of a customer meet in one partition: --keys trust would do")


def _becomes(keys: Keys) -> str:
    return ": sent on if they are in the wrong partition" if keys is Keys.REKEY else ": rejected"


def examine(
    kafka: tuple[str, ...], events: tuple[str, ...], names: Names, group: str, keys: Keys, records: int
) -> Iterator[Finding]:
    """What is right and wrong about the topics of an installation; `records` of each partition are looked at.

    Raises TryAgainError when no broker answers.
    """
    try:
        partitions = asyncio.run(prepare(kafka, events, names, group, create=False))
        yield Finding("right", f"topics: all there, {partitions} partitions each, policies as they must be")
    except InputError as error:
        yield Finding("problem", str(error))
    for topic in events:
        try:
            sample = asyncio.run(_sample(kafka, topic, records))
        except InputError:  # the topic is missing, which was told
            continue
        yield from sample.findings(keys)


async def _sample(kafka: Sequence[str], topic: str, records: int) -> Sample:
    from aiokafka import TopicPartition

    read_any_header_name()
    tps = [TopicPartition(topic, each) for each in await partitions_of(kafka, topic, "correct --events")]
    sample = Sample(topic, len(tps))
    async with connected(kafka, enable_auto_commit=False) as consumer:
        consumer.assign(tps)
        first, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp in tps:
            consumer.seek(tp, max(first[tp], ends[tp] - records))
        left, idle = {tp for tp in tps if first[tp] < ends[tp]}, 0
        while left and idle < IDLE_POLLS:
            polled = await consumer.getmany(*left, timeout_ms=POLL_MS)
            idle = 0 if polled else idle + 1
            for tp, found in polled.items():
                for record in found:
                    if record.offset < ends[tp]:
                        sample.add(tp.partition, record.key, record.value)
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    return sample


def report(findings: Iterator[Finding]) -> int:
    """Writes findings as they come; returns the exit code: 1 if one is a problem."""
    code = 0
    for finding in findings:
        print(printable(str(finding)), flush=True)
        code = max(code, finding.level == "problem")
    return int(code)
