"""What a consumer was sent, by whole record batches, as aiokafka's parser in C gives them.

`getmany` makes one more object of each record and touches each several times, which takes longer than all else that a
take-over does. Who reads a changelog of millions needs key, value and offset only.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException
from aiokafka.record.memory_records import MemoryRecords

from streamseg.worker import connection

if TYPE_CHECKING:
    from streamseg_engine import Fetched

_BEGINNING = struct.Struct(">qi")
"""Of a batch: its first offset, and how many bytes follow."""
BATCH_HEAD = 61
"""Bytes of a batch without records. In less there is none, or an old one."""


class SentRecords:
    """What a partition was sent: as aiokafka's parser in C reads it, once somebody asks for that.

    The parser takes nothing but bytes; a large response is looked at where it stands.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = data
        self._parser: Any = None

    def has_next(self) -> bool:
        """Tell whether a whole batch is left."""
        if self._parser is None and len(self.data) > BATCH_HEAD:
            _, length = _BEGINNING.unpack_from(self.data)
            return bool(len(self.data) >= _BEGINNING.size + length)
        return bool(self._parsed().has_next())

    def next_batch(self) -> Any:
        """Give the next batch; None if there is no whole one."""
        return self._parsed().next_batch()

    def size_in_bytes(self) -> int:
        """Give the size of all."""
        return len(self.data)

    def _parsed(self) -> Any:
        if self._parser is None:
            self._parser = MemoryRecords(bytes(self.data))
        return self._parser


class PlainRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Gives records of some topics without an object of Python for each.

    They are as the compiled core reads them, where it may and can; else as aiokafka's parser in C makes them.
    """

    topics: ClassVar[frozenset[str]] = frozenset()
    compiled: ClassVar[bool] = False

    def __init__(self, tp: TopicPartition, records: Any, aborted: Any, offset: int, *others: Any) -> None:
        super().__init__(tp, records, aborted, offset, *others)
        self.whole: Fetched | None = None
        """All that is left of the fetch; None if aiokafka has to read it."""
        if self.compiled and tp.topic in self.topics and isinstance(records, SentRecords):
            from streamseg_engine import Fetched

            committed = self._isolation_level == fetcher.READ_COMMITTED
            self.whole = Fetched.read(records.data, offset, self._aborted_transactions if committed else [])
        if self.whole is not None:
            self._records_iterator = None  # as in _pop

    def take(self, most: int | None) -> Fetched:
        """Takes so many of the records that are left, or all."""
        assert self.whole is not None
        left = self.whole
        taken = left if most is None else left.part(0, most)
        self.whole = left.part(len(taken), len(left))
        self.next_fetch_offset = taken.next_offset
        return taken

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:
        return record if tp.topic in self.topics else super()._consumer_record(tp, record)


class PlainResult(FetchResult):  # type: ignore[misc]
    """Gives all records at once that the compiled core has read."""

    _partition_records: Any

    def getall(self, max_records: int | None = None) -> Sequence[Any]:
        """Gives what was sent, at most so many records; none if the consumer has moved since."""
        sent = self._partition_records
        if not isinstance(sent, PlainRecords) or sent.whole is None:
            records: Sequence[Any] = super().getall(max_records)
            return records
        if not self.check_assignment(self._topic_partition):
            return []
        taken = sent.take(max_records)
        self._update_position()
        if not sent.whole:
            self._partition_records = None
        return taken


def give_plain_records(topics: Iterable[str], *, compiled: bool) -> None:
    """Have consumers of this process give plain records of these topics from now on, by the compiled core if told."""
    PlainRecords.topics, PlainRecords.compiled = frozenset(topics), compiled
    fetcher.PartitionRecords, fetcher.FetchResult, fetcher.MemoryRecords = PlainRecords, PlainResult, SentRecords
    if compiled:
        connection.copy_nothing()


TURN_RECORDS = 4_000
"""After about so many records others have a turn."""


class Record(Protocol):
    """A record as the parser gives it."""

    @property
    def offset(self) -> int:
        """Where it stands."""
        ...

    @property
    def key(self) -> bytes | None:
        """Its key; a compacted topic takes none without, but it may not always have been compacted."""
        ...

    @property
    def value(self) -> bytes | None:
        """None deletes the key."""
        ...


class EventRecord(Record, Protocol):
    """A record of an event topic."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Names and contents."""
        ...


async def fetched(
    consumer: AIOKafkaConsumer, seconds: float
) -> AsyncIterator[tuple[TopicPartition, Sequence[Record], int]]:
    """Give what was sent of the partitions that were assigned: records, and the offset up to which that was all.

    Gives nothing when nothing came within the time. The next records are on their way while these are taken.
    Raises what aiokafka cannot mend by itself.
    """
    own: Any = consumer._fetcher
    if not own._records:
        waiter = own._create_fetch_waiter()
        await asyncio.wait([waiter], timeout=seconds)
        waiter.cancel()
    sent = [(tp, start, batches) for tp in list(own._records) for start, batches in _pop(own, tp)]
    own._notify(own._wait_consume_future)
    parsed = 0
    for tp, start, batches in sent:
        while batches:
            batch = batches.popleft()  # not kept: it holds on to what it was unpacked to
            records = _records(tp, start, batch)
            yield tp, records, batch.next_offset
            parsed += len(records)
            if parsed >= TURN_RECORDS:
                parsed = 0
                await asyncio.sleep(0)


def _pop(own: Any, tp: TopicPartition) -> Iterator[tuple[int, deque[Any]]]:
    """Take over what one partition was sent, and let the consumer go on behind it."""
    result = own._records.pop(tp)
    if not isinstance(result, FetchResult):
        result.check_raise()
    elif result.check_assignment(tp):
        sent = result._partition_records
        start = sent.next_fetch_offset
        batches = deque[Any]()
        while sent._records.has_next():
            batches.append(sent._records.next_batch())
        sent.next_fetch_offset = batches[-1].next_offset
        result._update_position()
        sent._records_iterator = None  # refers to what refers to it: all that was sent would stay until a collection
        yield start, batches


def _records(tp: TopicPartition, start: int, batch: Any) -> Sequence[Record]:
    """Give the records of a batch; the broker sends whole batches, so the first may begin before the `start`."""
    if not batch.validate_crc():
        raise CorruptRecordException(f"{tp.topic}/{tp.partition}: the checksum of a batch is wrong")
    records = [] if batch.is_control_batch else list(batch)
    return [each for each in records if each.offset >= start] if records and records[0].offset < start else records
