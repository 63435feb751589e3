"""A worker whose owner counts the events of each key: run by test_shell.py as a process of its own.

Takes one JSON object as its argument: the shell's settings, and what the owner shall do. Tells on stdout, one
JSON object a line, what it opened and how far it is.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord

from streamseg.worker import batches
from streamseg.worker.app import ShellSettings, build_app, run
from streamseg.worker.fetches import Record
from streamseg.worker.log import Log
from streamseg.worker.owner import Ack, Loader
from streamseg.worker.shell import Shell


def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


@dataclass
class Count:
    """How many events of a key were counted, and the offset of the last one in each topic."""

    events: int = 0
    offsets: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        return json.dumps([self.events, self.offsets]).encode()


def decode(value: bytes) -> Count:
    return Count(*json.loads(value))


class CountLoader:
    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.most: dict[bytes, int] = {}
        self.records = 0

        self.misled = False

    def look_ahead(self, last: Sequence[Record]) -> None:
        """Nothing depends on the end."""

    def take(self, taken: Sequence[Record]) -> None:
        """Keep the record with most events: a worker that lost the partition may append older ones."""
        for record in taken:
            key, value = record.key, record.value
            self.records += 1
            if key and value is not None and decode(value).events >= self.most.get(key, 0):
                self.values[key] = value
                self.most[key] = decode(value).events

    def drop(self) -> None:
        """Never misled."""


class Counted:
    """One partition: takes all that arrived while the last group was written."""

    def __init__(self, partition: int, counts: dict[bytes, Count], owner: CountingOwner) -> None:
        self.partition = partition
        self.counts = counts
        self.owner = owner
        self.waiting: list[tuple[str, Sequence[ConsumerRecord], Ack]] = []
        self.events = 0
        self.handed = 0
        self.wake = asyncio.Event()
        self.busy = False
        self.task = asyncio.create_task(self.work())

    async def work(self) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            group, self.waiting, self.events = self.waiting, [], 0
            self.busy = True
            await self.count(group)
            self.busy = False

    def total(self) -> int:
        return sum(count.events for count in self.counts.values())

    async def count(self, group: list[tuple[str, Sequence[ConsumerRecord], Ack]]) -> None:
        touched: set[bytes] = set()
        for topic, records, _ in group:
            for record in records:
                touched.add(self.add(topic, record))
        await asyncio.sleep(self.owner.pause)
        items = [(key, self.counts[key].encode(), [("kind", b"count")]) for key in touched]
        appended: Awaitable[int] = await self.owner.log.append(self.owner.changelog, self.partition, items)
        await appended
        for _, _, ack in group:
            await ack()

    def add(self, topic: str, record: ConsumerRecord) -> bytes:
        key: bytes = record.key
        count = self.counts.setdefault(key, Count())
        if record.offset > count.offsets.get(topic, -1):
            count.offsets[topic] = record.offset
            count.events += 1
        return key


class CountingOwner:
    shell: Shell
    log: Log

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.changelog: str = arguments["changelog"]
        self.starts: dict[str, int] = arguments.get("starts", {})
        self.pause: float = arguments.get("pause", 0.0)
        self.opening: float = arguments.get("opening", 0.0)
        self.bound: int = arguments.get("bound", 20_000)
        self.open_partitions: dict[int, Counted] = {}
        self.first_offsets: dict[str, int] = {}
        self.late = 0
        self.batches = 0

    async def start(self) -> None:
        self.reporting = asyncio.create_task(self.report())

    async def stop(self) -> None:
        self.reporting.cancel()

    def loader(self, partition: int) -> CountLoader:  # noqa: ARG002
        return CountLoader()

    def loading(self, records: int, left: int) -> None:
        """Hear nothing."""

    def taken_over(self, seconds: float) -> None:
        """Hear nothing."""

    async def fence(self, partition: int, loader: Loader, end: int) -> int:  # noqa: ARG002
        return end

    async def open(self, partition: int, loader: Loader, end: int) -> Mapping[str, int]:
        assert isinstance(loader, CountLoader)
        await asyncio.sleep(self.opening)
        tell(opened=partition, records=loader.records, end=end)
        counts = {key: decode(value) for key, value in loader.values.items()}
        self.open_partitions[partition] = Counted(partition, counts, self)
        return self.starts

    async def close(self, partition: int) -> None:
        counted = self.open_partitions[partition]
        while counted.busy or counted.waiting:
            await asyncio.sleep(0.01)
        counted.task.cancel()
        del self.open_partitions[partition]
        tell(closed=partition)

    def apply(self, partition: int, key: bytes, value: bytes | None, offset: int) -> None:  # noqa: ARG002
        self.late += 1
        if value is not None:
            late = decode(value)
            mine = self.open_partitions[partition].counts
            if late.events > mine.get(key, Count()).events:
                mine[key] = late

    def arrived(self, topic: str, partition: int, records: Sequence[ConsumerRecord], ack: Ack) -> None:
        self.first_offsets.setdefault(f"{topic}/{partition}", records[0].offset)
        self.batches += 1
        counted = self.open_partitions[partition]
        counted.waiting.append((topic, records, ack))
        counted.events += len(records)
        counted.handed += len(records)
        counted.wake.set()

    @property
    def writing(self) -> bool:
        return any(counted.busy for counted in self.open_partitions.values())

    def full(self, partition: int) -> bool:
        return self.open_partitions[partition].events > self.bound

    async def report(self) -> None:
        """Tell how far the open partitions are whenever that changes."""
        told: dict[str, Any] = {}
        while True:
            state = self.state()
            if state != told:
                tell(**state)
                told = state
            await asyncio.sleep(0.05)

    def state(self) -> dict[str, Any]:
        partitions = sorted(self.open_partitions)
        return {
            "caught_up": {str(each): self.shell.caught_up(each) for each in partitions},
            "owns": {str(each): self.shell.owns(each) for each in partitions},
            "first": dict(self.first_offsets),
            "late": self.late,
            "batches": self.batches,
            "handed": {str(each): self.open_partitions[each].handed for each in partitions},
            "counted": {str(each): self.open_partitions[each].total() for each in partitions},
        }


def main(arguments: dict[str, Any]) -> int:
    settings = ShellSettings(
        kafka=tuple(arguments["kafka"]),
        event_topics=tuple(arguments["topics"]),
        group=arguments["group"],
        changelog_topic=arguments["changelog"],
        partitions=arguments["partitions"],
        data_dir=Path(arguments["data_dir"]),
        session_seconds=3.0,
        heartbeat_seconds=0.5,
        commit_seconds=0.3,
        poll_records=arguments.get("poll_records", 5000),
    )
    if spacing := arguments.get("spacing"):
        batches.SPACING_SECONDS = batches.MOST_SPACING_SECONDS = spacing
    owner = CountingOwner(arguments)
    app = build_app(settings, owner)
    owner.shell, owner.log = app.shell, app.shell.log
    return run(app)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
