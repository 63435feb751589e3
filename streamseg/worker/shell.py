"""What the owner may ask of the shell."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer
from faust.types import TP

from streamseg.core.units import Instant
from streamseg.worker.apart import Apart, here
from streamseg.worker.log import Log
from streamseg.worker.reading import Readings
from streamseg.worker.store import LOAD_SETTINGS, ChangelogLoader


class Shell:
    """The owner's view of Kafka: how far it is, whose the partitions are, and where to append."""

    def __init__(self, readings: Readings, log: Log, app: Any, apart: Apart = here) -> None:
        self.log = log
        self.apart = apart
        """Where work is done that takes long."""
        self._readings = readings
        self._app = app
        self._asker: AIOKafkaConsumer | None = None
        """Reads nothing: asks where topics end."""
        self._turn = asyncio.Lock()

    @property
    def partitions(self) -> int:
        """How many partitions each topic has."""
        return int(self._app.settings.partitions)

    def caught_up(self, partition: int, fresh_seconds: float = 2.0) -> bool:
        """Whether every event topic's partition was handed over up to its end.

        The end is the one that a poll at most `fresh_seconds` ago told. False while the partition is not
        open, amid a rebalance, and before the first poll after it.
        """
        return all(self._at_end(topic, partition, fresh_seconds) for topic in self._readings.topics)

    def _at_end(self, topic: str, partition: int, fresh_seconds: float) -> bool:
        reading = self._readings.get(TP(topic, partition))
        end = self._end(TP(topic, partition))
        if reading is None or reading.next is None or not reading.positioned or end is None:
            return False
        offset, age = end
        return age <= fresh_seconds and reading.next >= offset

    def lag(self, topic: str, partition: int) -> int | None:
        """How many offsets lie between the next record to hand over and the end, as the last poll told it.

        None while the partition is not open or was not polled yet.
        """
        reading = self._readings.get(TP(topic, partition))
        end = self._end(TP(topic, partition))
        if reading is None or reading.next is None or end is None:
            return None
        return max(0, end[0] - reading.next)

    @property
    def generation(self) -> int:
        """The generation of the consumer group this worker is a member of now; -1 while it is of none."""
        coordinator = self._coordinator()
        return -1 if coordinator is None else int(coordinator.generation)

    @property
    def assigned(self) -> bool:
        """Whether the group has given this worker its share, if only none, and all of it is open."""
        generation = self._app.assigned_generation
        return bool(generation != -1 and generation == self.generation and self._app.opened_generation == generation)

    def owns(self, partition: int) -> bool:
        """Whether this worker holds the partition in the group's present generation, as far as it knows.

        False from the moment a rebalance asked for the partition until it is known to be kept, and while it is
        closed because it was lost. To be asked before each write. A worker that was paused learns of its
        loss only with its next heartbeat.
        """
        return partition in self._app.kept and self.generation == self._app.assigned_generation != -1

    async def read(self, topic: str, partition: int, start: int, end: int) -> list[tuple[bytes, bytes | None]]:
        """Give keys and values of the records of a compacted topic from one offset to before another."""
        found: list[tuple[bytes, bytes | None]] = []
        async with self._app.client(AIOKafkaConsumer, **LOAD_SETTINGS) as consumer:
            takes = {partition: lambda records: found.extend((record.key, record.value) for record in records)}
            await ChangelogLoader(topic, consumer).read({partition: start}, {partition: end}, takes)
        return found

    async def ends(self, topic: str, partitions: list[int]) -> dict[int, int]:
        """Give the offsets after the last records of some partitions. Raises KafkaError when no broker tells."""
        async with self._turn:
            if self._asker is None:
                asker = self._app.client(AIOKafkaConsumer)
                await asker.start()
                self._asker = asker
        return await ChangelogLoader(topic, self._asker).ends(partitions)

    async def close(self) -> None:
        """Close what was opened to ask."""
        if self._asker is not None:
            await self._asker.stop()

    def monotonic(self) -> float:
        """Seconds that only rise."""
        return time.monotonic()

    def wall_clock(self) -> Instant:
        """Now."""
        return time.time_ns() // 1_000_000

    def _coordinator(self) -> Any:
        consumer = self._thread()._consumer if self._thread() is not None else None
        return None if consumer is None else consumer._coordinator

    def _thread(self) -> Any:
        consumer = self._app._consumer
        return None if consumer is None else consumer._thread

    def _end(self, tp: TP) -> tuple[int, float] | None:
        thread = self._thread()
        end: tuple[int, float] | None = None if thread is None else thread.end(tp)
        return end
