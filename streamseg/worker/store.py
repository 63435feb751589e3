"""Faust's table and store, which keep nothing: they load changelog partitions in bulk for the owner."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.stores.memory import Store
from faust.tables.table import Table

from streamseg.core.errors import StreamsegError
from streamseg.worker import memory
from streamseg.worker.failure import fatal
from streamseg.worker.fetches import Record, fetched

logger = logging.getLogger("streamseg.worker")

CLOSE_SECONDS = 10.0
"""How long the owner may take to close a partition before the worker gives up and ends."""
STALL_SECONDS = 60.0
"""How long a load may stand still before the worker gives up and ends."""
TAIL_ROUNDS = 5
"""How often to look for records appended since the load; after that Faust's own recovery delivers them."""

LOOK_AHEAD = 10_000
"""So many offsets before its end a partition has a checkpoint, nearly always: one is written every second."""
PROGRESS_SECONDS = 5.0
"""How often a load that goes on is told of in the log."""
FETCH_SECONDS = 0.5

Take = Callable[[Sequence[Record]], None]
Tell = Callable[[int, int], None]
"""Hears how many records were read since the last time, and how many offsets are left."""


class LoadError(StreamsegError):
    """The changelog could not be read to its end."""


class ChangelogLoader:
    """Reads partitions of one changelog topic in bulk, outside of the consumer group."""

    def __init__(self, topic: str, consumer: AIOKafkaConsumer) -> None:
        self._topic = topic
        self._consumer = consumer

    def _tps(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in partitions]

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """Give the offset after the last record, for each partition."""
        ends = await self._consumer.end_offsets(self._tps(partitions))
        return {tp.partition: end for tp, end in ends.items()}

    async def read(
        self, starts: Mapping[int, int], ends: Mapping[int, int], takes: Mapping[int, Take], tell: Tell | None = None
    ) -> int:
        """Hand each partition's records from start to end to its `takes`, oldest first; returns how many.

        Raises LoadError when the broker gives nothing more before the end is reached.
        """
        at = {TopicPartition(self._topic, p): start for p, start in starts.items() if start < ends[p]}
        if not at:
            return 0
        self._consumer.assign(list(at))
        for tp, start in at.items():
            self._consumer.seek(tp, start)
        count, moved = 0, time.monotonic()
        while at:
            before, count_before = dict(at), count
            async for tp, records, after in fetched(self._consumer, FETCH_SECONDS):
                if tp in at:
                    count += _hand(records, after, ends[tp.partition], takes[tp.partition])
                    at[tp] = after
                    if after >= ends[tp.partition]:
                        del at[tp]
                        self._consumer.pause(tp)
            moved = self._check_progress(at != before, moved, set(at))
            if tell is not None:
                tell(count - count_before, sum(ends[tp.partition] - offset for tp, offset in at.items()))
        return count

    @staticmethod
    def _check_progress(progress: bool, moved: float, left: set[TopicPartition]) -> float:
        now = time.monotonic()
        if not progress and now - moved > STALL_SECONDS:
            names = ", ".join(sorted(f"{tp.topic}/{tp.partition}" for tp in left))
            raise LoadError(f"nothing more came from {names} for {STALL_SECONDS:.0f} s: check the broker's log")
        return now if progress else moved


def _hand(records: Sequence[Record], after: int, end: int, take: Take) -> int:
    """Give records to who takes them, those before the end; returns how many."""
    if after > end:
        records = [record for record in records if record.offset < end]
    take(records)
    return len(records)


class Progress:
    """How far a load is: told to the owner at each step, to the log every few seconds."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._records = 0
        self._started = self._logged = time.monotonic()

    def __call__(self, records: int, left: int) -> None:
        """Take note of a step."""
        self._tell(records, left)
        self._records += records
        now = time.monotonic()
        if now - self._logged >= PROGRESS_SECONDS:
            self._logged = now
            rate = self._records / (now - self._started)
            logger.info("loading: %d changelog records (%.0f/s), %d offsets left", self._records, rate, left)

    def finish(self, partitions: int) -> None:
        """Tell that everything was read."""
        self._tell(0, 0)
        seconds = time.monotonic() - self._started
        logger.info("read %d changelog records of %d partitions in %.2f s", self._records, partitions, seconds)


class PartitionStore(Store[bytes, bytes]):
    """Opens and closes the partitions of the owner as the consumer group assigns them."""

    app: Any  # a ShellApp
    table: Any  # the StateTable

    def __post_init__(self) -> None:
        self.data: dict[bytes, bytes] = {}  # Faust looks at it; always empty
        self._open: set[int] = set()
        self._ends: dict[int, int] = {}
        self._generation = -1

    # -- what Faust's recovery asks

    def persisted_offset(self, tp: Any) -> int | None:
        """Give the last changelog offset the owner has, so that Faust's own recovery finds nothing to do."""
        end = self._ends.get(tp.partition) if tp.topic == self.table.changelog_topic_name else None
        return None if end is None else end - 1

    def apply_changelog_batch(
        self, batch: Iterable[Any], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """Pass on what still comes through Faust's own recovery: appended after the load."""
        _ = to_key, to_value  # raw bytes go to the owner
        with fatal("taking late changelog records"):
            for event in batch:
                message = event.message
                if message.topic == self.table.changelog_topic_name and message.partition in self._open:
                    self.app.owner.apply(message.partition, message.key, message.value, message.offset)
                    self.app.recovered += 1

    async def on_recovery_completed(self, active_tps: set[Any], standby_tps: set[Any]) -> None:
        """Do nothing: there is no data to drop."""

    # -- rebalances

    async def on_rebalance(
        self, assigned: set[Any], revoked: set[Any], newly_assigned: set[Any], generation_id: int = 0
    ) -> None:
        """Close what was lost, load and open what was won, leave alone what was kept."""
        _ = assigned, revoked, newly_assigned  # they follow from the assignor and from what is open
        with fatal("taking over partitions"):
            topic = self.table.changelog_topic_name
            mine = {tp.partition for tp in self.app.assignor.assigned_actives() if tp.topic == topic}
            # A generation we had no part in may have given our partitions to another worker meanwhile.
            kept = self._open & mine if generation_id == self._generation + 1 else set()
            self._generation = generation_id
            self.app.kept = frozenset(kept)
            self.app.assigned_generation = generation_id
            await self._close(self._open - kept)
            if mine:
                await self._take_over(kept, sorted(mine - kept))
            self.app.opened_generation = generation_id
            memory.give_back()  # partitions that were closed, and what had been fetched of them, hang in cycles

    async def on_stop(self) -> None:
        """Close all partitions when the worker stops."""
        with fatal("closing partitions"):
            await self._close(set(self._open))
        await super().on_stop()

    async def _close(self, partitions: set[int]) -> None:
        await asyncio.gather(*(self._close_one(partition) for partition in partitions))

    async def _close_one(self, partition: int) -> None:
        await asyncio.wait_for(self.app.owner.close(partition), CLOSE_SECONDS)
        # At a stop, what was acknowledged while closing is still to be committed.
        if not self.app.should_stop:
            self.app.readings.close(partition)
        self._open.discard(partition)
        self._ends.pop(partition, None)

    async def _take_over(self, kept: set[int], new: list[int]) -> None:
        async with self.app.client(AIOKafkaConsumer, **LOAD_SETTINGS) as consumer:
            loader = ChangelogLoader(self.table.changelog_topic_name, consumer)
            # Nobody else wrote to what we kept: all of it is known.
            self._ends.update(await loader.ends(kept))
            if new:
                await self._load(loader, new)

    async def _load(self, loader: ChangelogLoader, new: list[int]) -> None:
        started = time.monotonic()
        owner = self.app.owner
        await self.app.maybe_start_producer()  # opening may write
        ends = await loader.ends(new)
        loaders = await self._load_all(loader, ends)
        takes: dict[int, Take] = {partition: each.take for partition, each in loaders.items()}
        ends = await self._fence(loader, loaders, takes, ends)
        starts = await asyncio.gather(*(owner.open(each, loaders[each], ends[each]) for each in new))
        for partition, start in zip(new, starts, strict=True):
            self._open.add(partition)
            self.app.readings.open(partition, start)
        self.app.kept |= frozenset(new)
        self._ends.update(await self._read_tail(loader, ends))
        owner.taken_over(time.monotonic() - started)

    async def _load_all(self, loader: ChangelogLoader, ends: Mapping[int, int]) -> dict[int, Any]:
        """Read partitions from their beginnings to their ends; gives their loaders."""
        progress = Progress(self.app.owner.loading)
        loaders = {partition: self.app.owner.loader(partition) for partition in ends}
        near = {partition: max(0, end - LOOK_AHEAD) for partition, end in ends.items()}
        await loader.read(near, ends, {partition: each.look_ahead for partition, each in loaders.items()})
        await self._load_from_start(loader, ends, loaders, progress)
        if misled := [partition for partition, each in loaders.items() if each.misled]:
            for partition in misled:
                loaders[partition].drop()
            again = {partition: self.app.owner.loader(partition) for partition in misled}
            await self._load_from_start(loader, ends, again, progress)
            loaders |= again
        progress.finish(len(ends))
        return loaders

    @staticmethod
    async def _load_from_start(
        loader: ChangelogLoader, ends: Mapping[int, int], loaders: Mapping[int, Any], progress: Progress
    ) -> None:
        takes: dict[int, Take] = {partition: each.take for partition, each in loaders.items()}
        await loader.read(dict.fromkeys(loaders, 0), ends, takes, progress)

    async def _fence(
        self, loader: ChangelogLoader, loaders: dict[int, Any], takes: dict[int, Take], ends: dict[int, int]
    ) -> dict[int, int]:
        """Shut others out, and read what they had written until then; returns up to where was read."""
        owner = self.app.owner
        fenced = await asyncio.gather(*(owner.fence(each, loaders[each], ends[each]) for each in ends))
        after = dict(zip(ends, fenced, strict=True))
        await loader.read(ends, after, takes)
        return after

    async def _read_tail(self, loader: ChangelogLoader, known: dict[int, int]) -> dict[int, int]:
        """Pass on what was appended since the fence: by opening, or by a worker that lost the partition."""
        takes = {partition: self._late(partition) for partition in known}
        for _ in range(TAIL_ROUNDS):
            ends = await loader.ends(known)
            if ends == known:
                break
            await loader.read(known, ends, takes)
            known = ends
        return known

    def _late(self, partition: int) -> Take:
        apply = self.app.owner.apply

        def take(records: Sequence[Record]) -> None:
            for record in records:
                apply(partition, record.key, record.value, record.offset)

        return take


LOAD_SETTINGS: dict[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "max_partition_fetch_bytes": 1 << 20,
    "fetch_max_bytes": 8 << 20,
    "fetch_max_wait_ms": 100,
}
"""aiokafka copies a fetch some times as it comes in, with the next one on its way: larger ones take more memory, and as
long."""


class StateTable(Table[bytes, bytes]):
    """The table that makes the changelog part of the app, under a name of our choice."""

    app: Any  # a ShellApp

    def _new_store(self) -> PartitionStore:
        return PartitionStore(
            "memory://",
            self.app,
            self,
            table_name=self.name,
            key_type=bytes,
            value_type=bytes,
            key_serializer="raw",
            value_serializer="raw",
            loop=self.loop,
        )

    def _changelog_topic_name(self) -> str:
        return str(self.app.settings.changelog_topic)
