"""What a consumer was sent, by whole record batches, as aiokafka's parser in C gives them.

`getmany` makes one more object of each record and touches each several times, which takes longer than all else that a
take-over does. Who reads a changelog of millions needs key, value and offset only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException


class PlainRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Gives records of some topics as aiokafka's parser in C makes them, without another object for each."""

    topics: ClassVar[frozenset[str]] = frozenset()

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:
        return record if tp.topic in self.topics else super()._consumer_record(tp, record)


def give_plain_records(topics: Iterable[str]) -> None:
    """Have consumers of this process give plain records of these topics from now on."""
    PlainRecords.topics = frozenset(topics)
    fetcher.PartitionRecords = PlainRecords


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
    if type(result) is not FetchResult:
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
