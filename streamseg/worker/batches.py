"""Faust in batches: a message is all records of one partition from one poll, acknowledged by watermark."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from aiokafka import AIOKafkaConsumer
from faust.serializers.schemas import Schema
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from mode.services import WaitResults

from streamseg.worker.lease import hold_without, watch_membership
from streamseg.worker.lenient import read_any_header_name
from streamseg.worker.reading import Reading, Readings, StuckError

logger = logging.getLogger("streamseg.worker")

FETCH_WAIT_MS = 200
"""How long the broker holds a fetch that finds nothing. Faust's 1500 would keep a partition that was left
out of a running fetch waiting for so long, and `caught_up` needs polls that are fresh."""
HELD_BYTES = 1_000_000
"""So much is worth a poll at any time."""
POLL_SECONDS = 0.25
"""How long one poll waits; a rebalance waits for a running poll before it moves the consumer."""
SPACING_SECONDS, MOST_SPACING_SECONDS = 0.014, 0.045
"""Polls begin so far apart at least: under load each would bring a few events, at the price of many."""
EVENT_SECONDS = 6e-6
"""What an event takes, all in all: so much longer is the wait after a poll for each that it brought. A machine that has
little time to spare then has fewer and larger groups, and one with few events is as quick as it can be."""
BLOCKED_POLL_SECONDS = 0.01
"""How soon to look again at partitions whose owner had too much waiting."""
DRAIN_SECONDS = 0.5
"""How long a rebalance or a stop waits for records in flight to be acknowledged."""
STUCK_SECONDS = 180.0
"""How long an open partition may stay unread while the flow goes on until the worker gives up and ends."""


def spacing(events: int, most: int) -> float:
    """How far apart the beginnings of a poll that brought so many events and of the next one are, in seconds.

    A poll brings `most` at most: where it did, more events wait, and groups are large anyway.
    """
    if events >= most:
        return SPACING_SECONDS
    return min(SPACING_SECONDS + events * EVENT_SECONDS, MOST_SPACING_SECONDS)


class Hold(NamedTuple):
    """How long a broker shall hold a fetch: until there are so many bytes, or for so long."""

    least_bytes: int
    most_ms: int


def hold(events: int, most: int) -> Hold:
    """Give how long to hold the fetch that follows a poll which brought so many events, of `most` at most.

    A fetch that is answered at once waits here for the next poll's turn, and what comes meanwhile waits for the one
    behind it. So the broker waits instead, and a poll brings what came until then. After a single event the next may
    be long in coming, and is fetched as it comes.
    """
    if 1 < events < most:
        return Hold(HELD_BYTES, round(1_000 * spacing(events, most)))
    return Hold(1, FETCH_WAIT_MS)


class RecordBatch:
    """All records of one partition from one poll, in the shape Faust expects of one record."""

    __slots__ = ("end", "epoch", "offset", "partition", "reading", "records", "start", "timestamp", "topic")

    timestamp_type = checksum = headers = key = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, reading: Reading, records: Sequence[Any], start: int, end: int) -> None:
        last = records[-1]
        self.reading = reading
        self.epoch = reading.epoch
        self.records = records
        self.start = start
        """Where the consumer stood before: the end of the batch before this one."""
        self.end = end
        """Where the consumer stood after: past the last record, and past markers that follow it."""
        self.topic: str = reading.tp.topic
        self.partition: int = reading.tp.partition
        self.offset: int = last.offset
        self.timestamp: int = last.timestamp

    @property
    def value(self) -> RecordBatch:
        """The batch itself: Faust passes a record's value on."""
        return self


class BatchScheduler(DefaultSchedulingStrategy):
    """Yields one object per polled partition: batches for the event topics, single records for the others."""

    def iterate(self, records: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
        """Go through what a poll returned, partition by partition."""
        for tp, polled in records.items():
            if isinstance(polled, RecordBatch):
                yield tp, polled
            else:
                for record in polled:
                    yield tp, record


class PassThrough(Schema[Any, Any]):
    """Leaves keys and values as they are: the owner decodes whole batches."""

    def compile(self, app: Any, **_kwargs: Any) -> Callable[..., Awaitable[Any]]:
        """Give Faust the decoder of a message, which decodes nothing."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001
            return app.create_event(None, message.value, None, message)

        return decode


class HeartbeatingListener(driver.ConsumerRebalanceListener):
    """Keeps the worker in the group while it loads state: aiokafka does not beat during the callback."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Take partitions over, however long their changelog is, without losing the session meanwhile."""
        coordinator = self._thread._ensure_consumer()._coordinator
        app: Any = self._thread.app
        watch_membership(coordinator, app.lease, app.kicked_out)
        coordinator._start_heartbeat_task()
        await coordinator._do_heartbeat()
        await super().on_partitions_assigned(assigned)


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that runs the aiokafka consumer; also notes where it stands after each poll."""

    positions: Mapping[Any, int] = MappingProxyType({})
    _paused: tuple[Any, frozenset[Any]] | None = None

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        # An event of an aborted transaction never happened.
        consumer._isolation_level = "read_committed"
        return consumer

    async def _fetch_records(
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[Any],
        timeout: float | None = None,  # noqa: ASYNC109 (Faust's)
        max_records: int | None = None,
    ) -> Mapping[Any, Any]:
        self._pause_changelog(consumer, active_partitions)
        records = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        # The next fetch is sent when this ends: aiokafka's task comes to know of this poll only then.
        held, fetcher = hold(sum(map(len, records.values())), consumer._max_poll_records), consumer._fetcher
        fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms = held.least_bytes, held.most_ms
        assignment = consumer._subscription.subscription.assignment
        self.positions = {
            tp: state._position
            for tp in (assignment.tps if assignment else ())
            if (state := assignment.state_value(tp))._position is not None
        }
        return records

    def _pause_changelog(self, consumer: AIOKafkaConsumer, active: set[Any]) -> None:
        """Keep aiokafka from fetching changelog partitions nobody reads: it would hold megabytes of each."""
        assignment = consumer._subscription.subscription.assignment
        idle = frozenset(tp for tp in consumer.assignment() if tp not in active and self.consumer._is_changelog_tp(tp))
        if self._paused is not None and self._paused[0] is assignment and self._paused[1] == idle:
            return
        if idle:
            consumer.pause(*idle)
        if resumed := consumer.paused() - idle:
            consumer.resume(*resumed)
        self._paused = (assignment, idle)

    def end(self, tp: tuple[str, int]) -> tuple[int, float] | None:
        """Give a partition's end (the next readable offset to be written) and its age in seconds.

        None before the first poll.
        """
        subscription = self._consumer._subscription.subscription if self._consumer else None
        assignment = subscription.assignment if subscription else None
        if assignment is None or tp not in assignment.tps:
            return None
        state = assignment.state_value(tp)
        if state.highwater is None or state.timestamp is None:
            return None
        stable = state.lso if state.lso is not None and state.lso >= 0 else state.highwater
        return min(state.highwater, stable), time.time() - state.timestamp / 1000


class BatchConsumer(driver.Consumer):
    """A Faust consumer that reads batches from where the owner wants, and acknowledges by watermark.

    Faust would track every offset, and build an interval tree of the "gaps" inside of batches. Here a
    partition has three numbers (see Reading), which holds because batches are acknowledged in order.
    """

    RebalanceListener: ClassVar[type] = HeartbeatingListener

    app: Any  # a ShellApp
    _thread: BatchConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.readings: Readings = self.app.readings
        self._full: Callable[[int], bool] = self.app.owner.full
        self.revoking = False
        self._polled = float("-inf")
        self._spacing = 0.0
        # Held by a poll and by whoever moves the consumer: a poll never straddles a move.
        self._moving = asyncio.Lock()

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # -- reading

    async def _getmany(self, active_partitions: set[Any] | None, timeout: float) -> dict[Any, Any]:  # noqa: ASYNC109
        await asyncio.sleep(self._polled + self._spacing - time.monotonic())
        async with self._moving:
            self._polled = time.monotonic()
            active = active_partitions or set()
            wanted = {tp for tp in active if self._readable(tp)}
            if not wanted:
                await asyncio.sleep(BLOCKED_POLL_SECONDS)
                return {}
            wait = POLL_SECONDS if len(wanted) == len(active) else BLOCKED_POLL_SECONDS
            try:
                polled = await super()._getmany(wanted, min(timeout, wait))
            except UnicodeDecodeError:  # the name of a header: nothing else is text to aiokafka
                await self._read_again()
                return {}
            self._spacing = spacing(sum(map(len, polled.values())), self.app.settings.poll_records)
            return self._batches(polled, self._thread.positions)

    async def _read_again(self) -> None:
        """Drop what was fetched, and fetch it once more for the parser that takes any header name."""
        logger.warning("a record has a header whose name is not UTF-8: from now on records are parsed more slowly")
        read_any_header_name()
        assigned = self.assignment()
        await self._move([reading for reading in self.readings if reading.tp in assigned and reading.positioned])

    def _readable(self, tp: Any) -> bool:
        if tp.topic not in self.readings.topics:
            return True
        reading = self.readings.get(tp)
        if reading is None:
            return False
        if reading.waited > STUCK_SECONDS:
            # Faust does not look whether its call to seek came to an end in time.
            raise StuckError(f"{tp.topic}/{tp.partition} is open but not read: restart the worker")
        return reading.positioned and not self._full(tp.partition)

    async def wait_first(self, *waited: Any, timeout: Any = None) -> WaitResults:  # noqa: ASYNC109 (mode's)
        """Hand a message to the streams at once, while records flow: their queues take it, and nobody waits.

        Faust has it race four tasks, for some turns of the loop with each partition of a poll, one after the other.
        """
        message, *others = waited
        if others and asyncio.iscoroutine(message) and self.flow_active and not self.suspend_flow.is_set():
            for other in others:
                other.close()
            return WaitResults([message], [await message], False)
        return await super().wait_first(*waited, timeout=timeout)

    def _batches(self, polled: Mapping[Any, Any], positions: Mapping[Any, int]) -> dict[Any, Any]:
        batches: dict[Any, Any] = {}
        for tp, records in polled.items():
            if tp.topic not in self.readings.topics:
                batches[tp] = records
                continue
            reading = self.readings.get(tp)
            # Not positioned: a rebalance began during this poll, and will move the consumer back.
            if reading is not None and reading.positioned:
                end = positions.get(tp, records[-1].offset + 1)
                batches[tp] = RecordBatch(reading, records, reading.fetched, end)
                reading.fetched = end
        for reading in self.readings:
            if reading.tp not in batches and reading.tp in positions:
                reading.skip_to(positions[reading.tp])
        return batches

    def on_buffer_full(self, tp: Any) -> None:
        """Stop fetching, but never an event topic: Faust sleeps a second then; `full` bounds what waits."""
        if tp.topic not in self.readings.topics:
            super().on_buffer_full(tp)

    # -- positions

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """Stop reading before anything else: what is fetched from now on is fetched again later."""
        for reading in self.readings:
            reading.suspend()
        self.revoking = True
        try:
            if self.app.should_stop:  # Faust would wait for nothing
                await self.wait_empty()
                await self.app.producer.flush()
            await super().on_partitions_revoked(revoked)
        finally:
            self.revoking = False

    async def perform_seek(self) -> None:
        """Move the consumer to the next record to hand over, where Faust would go to the committed offset."""
        if not self.flow_active:  # amid a rebalance: its end will call again
            return
        assigned = self.assignment()
        readings = [reading for reading in self.readings if reading.tp in assigned]
        if readings:
            async with self._moving:
                await self._move(readings)

    async def _move(self, readings: Sequence[Reading]) -> None:
        tps = [reading.tp for reading in readings]
        committed = await self._thread.call_thread(self._committed, tps)
        self._committed_offset.update(committed)
        new = [reading for reading in readings if reading.next is None]
        if new:
            earliest = await self.earliest_offsets(*(reading.tp for reading in new))
            ends = await self.highwaters(*(reading.tp for reading in new))
            for reading in new:
                reading.begin(committed[reading.tp], earliest[reading.tp], ends[reading.tp])
        await self.seek_wait({reading.tp: reading.next for reading in readings if reading.next is not None})
        # Faust drops what is below its own note of what was read; ours is the one that counts.
        for reading in readings:
            self._read_offset[reading.tp] = None
            reading.place()

    def resume_flow(self) -> None:
        """Let records flow. Only now may placed partitions be read: Faust empties its queues just before."""
        super().resume_flow()
        for reading in self.readings:
            reading.resume()

    async def _committed(self, tps: Sequence[Any]) -> dict[Any, int | None]:
        consumer = self._thread._ensure_consumer()
        return {tp: await consumer.committed(tp) for tp in tps}

    # -- acknowledging

    def ack(self, message: Any) -> bool:
        """Acknowledge a batch and everything before it."""
        batch = message.value
        if not isinstance(batch, RecordBatch):
            return bool(super().ack(message))
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        batch.reading.acknowledge(batch.end)
        return True

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        if tp.topic not in self.readings.topics:
            await super()._add_gap(tp, offset_from, offset_to)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[Any]:
        return (
            reading.tp
            for reading in self.readings
            if reading.committable is not None
            and (topics is None or reading.tp in topics or reading.tp.topic in topics)
        )

    def _new_offset(self, tp: Any) -> int | None:
        reading = self.readings.get(tp)
        return reading.committable if reading is not None else None

    async def wait_empty(self) -> None:
        """Wait until the owner acknowledged what it was handed, or for DRAIN_SECONDS; then commit.

        Called when partitions are revoked, and twice at a stop: the second time the owner has closed
        everything, and there is nothing left to wait for. Partitions that are revoked are nobody's until the group
        has given them out, be it amid a stop: Faust flushes the producer next, and nothing may follow that.
        """
        deadline = time.monotonic() + DRAIN_SECONDS
        while self.readings.in_flight and time.monotonic() < deadline and not self.should_stop:
            await asyncio.sleep(0.01)
        if not await self.commit():  # False also when another commit was under way: that one may be older
            await self.commit()
        if self.revoking or not self.app.should_stop:
            self.app.kept = frozenset()

    # -- health

    def verify_event_path(self, now: float, tp: Any) -> None:
        """Complain about nothing: Faust's checks count single messages, and cry over idle changelogs."""

    def verify_recovery_event_path(self, now: float, tp: Any) -> None:
        """Complain about nothing, for the same reason."""


class IdempotentProducer(driver.Producer):
    """The app's producer, which the broker lets repeat itself without writing twice."""

    app: Any  # a ShellApp

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    async def on_start(self) -> None:
        """Start, to send nothing without a lease."""
        await super().on_start()
        hold_without(self.app.lease, self._ensure_producer().client)


class BatchTransport(driver.Transport):
    """Faust's Kafka transport with the batch consumer and the idempotent producer."""

    Consumer: ClassVar[type] = BatchConsumer
    Producer: ClassVar[type] = IdempotentProducer
