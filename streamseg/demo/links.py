"""The demo's connections to Kafka, Redis and the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from streamseg.demo.reference import Customer, Rejected
from streamseg.demo.source import PARTITIONS
from streamseg.demo.stage import Stage

_METRICS_SECONDS = 3.0
_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Links:
    """Open connections, and what the demo asks over them."""

    stage: Stage
    producer: AIOKafkaProducer
    changes: AIOKafkaConsumer
    """Reads all changes from the first one on."""
    admin: AIOKafkaAdminClient
    redis: Redis
    http: aiohttp.ClientSession

    async def committed(self) -> Mapping[int, int]:
        """By partition, how many events the worker has done with."""
        offsets = await self.admin.list_consumer_group_offsets(self.stage.group)
        return {
            place.partition: max(found.offset, 0)
            for place, found in offsets.items()
            if place.topic == self.stage.events
        }

    async def events(self) -> Mapping[int, int]:
        """By partition, how many events there are."""
        ends = await self.changes.end_offsets(_partitions(self.stage.events))
        return {place.partition: end for place, end in ends.items()}

    async def unread_changes(self) -> int:
        """How many records of changes have not come here yet."""
        places = _partitions(self.stage.names.changes)
        ends = await self.changes.end_offsets(places)
        return sum([ends[place] - await self.changes.position(place) for place in places])

    async def metrics(self) -> str:
        """The worker's metrics. Raises aiohttp.ClientError or TimeoutError when it does not answer."""
        async with self.http.get(f"http://{self.stage.http}/metrics") as answer:
            answer.raise_for_status()
            return await answer.text()

    async def counts(self, schemes: Iterable[str]) -> dict[tuple[str, str], int]:
        """Customers by scheme and segment, from the counters in Redis."""
        found: dict[tuple[str, str], int] = {}
        for scheme in schemes:
            key = f"{self.stage.names.redis}count:{scheme}"
            counts = await cast(Awaitable[dict[bytes, bytes]], self.redis.hgetall(key))
            found.update({(scheme, segment.decode()): int(count) for segment, count in counts.items()})
        return found

    async def customer_keys(self) -> set[str]:
        """The ids of all customers that Redis knows."""
        before = f"{self.stage.names.redis}customer:"
        return {key.decode().removeprefix(before) async for key in self.redis.scan_iter(f"{before}*", count=_CHUNK)}

    async def shown(self, customers: Sequence[str], schemes: Sequence[str]) -> list[Customer]:
        """What Redis shows of customers."""
        found: list[Customer] = []
        for start in range(0, len(customers), _CHUNK):
            found += await self._shown(customers[start : start + _CHUNK], schemes)
        return found

    async def _shown(self, customers: Sequence[str], schemes: Sequence[str]) -> list[Customer]:
        async with self.redis.pipeline(transaction=False) as pipeline:
            for customer in customers:
                pipeline.hmget(f"{self.stage.names.redis}customer:{customer}", "version", *schemes)
            rows = await pipeline.execute()
        return [_customer(customer, row, schemes) for customer, row in zip(customers, rows, strict=True)]

    async def dead_letters(self) -> set[Rejected]:
        """What stands in the dead letters; a crash may have written some twice."""
        found: set[Rejected] = set()
        async with _reader(self.stage, self.stage.names.dead_letters) as reader:
            ends = await reader.end_offsets(reader.assignment())
            while any([await reader.position(place) < end for place, end in ends.items()]):
                for records in (await reader.getmany(timeout_ms=500)).values():
                    found.update(_rejected(dict(record.headers)) for record in records)
        return found


@asynccontextmanager
async def connected(stage: Stage) -> AsyncIterator[Links]:
    """Connect to everything. The topics of changes and dead letters must be there."""
    async with AsyncExitStack() as stack:
        producer = AIOKafkaProducer(
            bootstrap_servers=stage.kafka, enable_idempotence=True, linger_ms=10, compression_type="snappy"
        )
        await stack.enter_async_context(producer)
        changes = await stack.enter_async_context(_reader(stage, stage.names.changes))
        admin = AIOKafkaAdminClient(bootstrap_servers=stage.kafka)
        stack.push_async_callback(admin.close)
        await admin.start()
        redis = await stack.enter_async_context(Redis.from_url(stage.redis))
        timeout = aiohttp.ClientTimeout(total=_METRICS_SECONDS)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        yield Links(stage, producer, changes, admin, redis, http)


@asynccontextmanager
async def _reader(stage: Stage, topic: str) -> AsyncIterator[AIOKafkaConsumer]:
    """Read a whole topic, outside of any group."""
    consumer = AIOKafkaConsumer(bootstrap_servers=stage.kafka, auto_offset_reset="earliest")
    consumer.assign(_partitions(topic))
    async with consumer:
        yield consumer


def _partitions(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]


def _customer(customer: str, row: Sequence[bytes | None], schemes: Sequence[str]) -> Customer:
    version, *segments = row
    shown = {scheme: (segment or b"").decode() for scheme, segment in zip(schemes, segments, strict=True)}
    return Customer(customer, int(version or 0), shown)


def _rejected(headers: Mapping[str, Any]) -> Rejected:
    return Rejected(int(headers["partition"]), int(headers["offset"]), headers["reason"].decode())
