"""A synthetic shop's events: into a file, or to Kafka as history or as live traffic."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from streamseg.core.errors import InputError
from streamseg.core.units import DAY, Duration, Instant, format_instant, parse_instant
from streamseg.shop import Shop
from streamseg.tail import away

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

DEFAULT_EVENTS = 1_000_000
DEFAULT_CUSTOMERS = 50_000
DEFAULT_START: Instant = 1_767_225_600_000
"""2026-01-01: files made with the same settings are the same on any day."""
LIVE_RATE = 100.0
LINES_A_CUSTOMER = 20
"""Lines of each customer after which live traffic goes on with new lives: by then many have left for good."""
SLICE = 2_000
"""Lines made in one go."""
SLICES_A_SECOND = 10
BATCH_BYTES = 256 * 1024
REPLICAS = 3
"""Of a topic that is created, if there are as many brokers."""
UNACKNOWLEDGED = 64
"""Batches on their way, at most."""

Line = tuple[str, bytes]
"""The customer's id, and JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What to make up; see `Shop` for what the settings mean."""

    events: int | None = None
    """None for the default number in a file, and for traffic without end in Kafka."""
    customers: int = DEFAULT_CUSTOMERS
    seed: int = 1
    span: Duration = 90 * DAY
    start: Instant | None = None
    late_ratio: float = 0.01
    duplicate_ratio: float = 0.01
    malformed_ratio: float = 0.001
    currency: str = "USD"

    def shop(self, *, seed: int, events: int, start: Instant) -> Shop:
        """The shop with these settings. Raises InputError if they do not go together."""
        return Shop(
            seed=seed,
            customers=self.customers,
            events=events,
            start=start,
            span_ms=self.span,
            late_ratio=self.late_ratio,
            duplicate_ratio=self.duplicate_ratio,
            malformed_ratio=self.malformed_ratio,
            currency=self.currency,
        )

    def history(self, start: Instant) -> Iterator[Line]:
        """So many events from `start` on, unless the settings name another start."""
        begin = self.start if self.start is not None else start
        return self.shop(seed=self.seed, events=self.events or DEFAULT_EVENTS, start=max(begin, 0)).lines()

    def live(self) -> Iterator[Line]:
        """Events without end, all of the moment at which they are taken; late ones as late as they are in history.

        Ids are of this run: to run twice does not make duplicates.
        """
        run, events = format(_now(), "x"), self.customers * LINES_A_CUSTOMER
        for turn in range(sys.maxsize):
            shop = self.shop(seed=self.seed + turn, events=events, start=DEFAULT_START)
            yield from _of_now(shop.lines(), f"{run}-{turn}-".encode())


def customers_for(events: int | None) -> int:
    """How many customers to make up for so many events, if nobody says."""
    return DEFAULT_CUSTOMERS if events is None else min(DEFAULT_CUSTOMERS, max(1, events // LINES_A_CUSTOMER))


_TIME = re.compile(rb'"time":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)"')
_IDS = re.compile(rb'("(?:id|order_id)":")')


def _of_now(lines: Iterable[Line], mark: bytes) -> Iterator[Line]:
    latest: Instant = 0
    for customer, text in lines:
        line = _IDS.sub(rb"\g<1>" + mark, text)
        found = _TIME.search(line)
        if found is not None:
            made = parse_instant(found[1].decode())
            latest = max(latest, made)
            stamp = format_instant(_now() - (latest - made)).encode()
            line = line[: found.start(1)] + stamp + line[found.end(1) :]
        yield customer, line


def _now() -> Instant:
    return time.time_ns() // 1_000_000


# Files


def write_file(traffic: Traffic, output: str, rate: float | None) -> None:
    """Writes JSON lines to a file (`-` is standard output), at most `rate` of them a second.

    Ends quietly when nobody reads standard output any more. Raises InputError when the file cannot be written.
    """
    lines, began = traffic.history(DEFAULT_START), time.monotonic()
    size, written = _slice_of(rate), 0
    try:
        with _opened(output) as file:
            while part := [line for _, line in islice(lines, size)]:
                file.write(b"\n".join(part) + b"\n")
                written += len(part)
                if rate is not None:
                    file.flush()
                    time.sleep(_pause(began, written, rate))
            file.flush()
    except BrokenPipeError:  # as in `streamseg generate | head`: also when Python flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _opened(output: str) -> Iterator[IO[bytes]]:
    if output == "-":
        yield sys.stdout.buffer
        return
    path = Path(output)
    try:
        file = path.open("wb", 1 << 20)
    except OSError as error:
        raise InputError(f"cannot write {output}: {error.strerror}") from error
    with file:
        if path.suffix != ".gz":
            yield file
            return
        with gzip.GzipFile("", "wb", 5, file, mtime=0) as compressed:  # the same bytes for the same events
            yield cast(IO[bytes], compressed)


def _slice_of(rate: float | None) -> int:
    return SLICE if rate is None else max(1, min(SLICE, int(rate / SLICES_A_SECOND)))


def _pause(began: float, done: int, rate: float) -> float:
    """Seconds until so many lines are due."""
    return max(0.0, began + done / rate - time.monotonic())


# Kafka


def produce(traffic: Traffic, kafka: Sequence[str], topic: str, partitions: int | None, rate: float | None) -> None:
    """Produces to a topic, keyed by customer and partitioned as Java clients do, until done or stopped.

    Raises InputError when the topic does not exist and `partitions` does not say how to create it,
    TryAgainError when no broker answers.
    """
    live = traffic.events is None
    if live and rate is None:
        rate = LIVE_RATE
    lines = traffic.live() if live else traffic.history(_now() - traffic.span)
    began = time.monotonic()
    sent = asyncio.run(_produce(lines, list(kafka), topic, partitions, rate))
    seconds = time.monotonic() - began
    print(f"{sent:,} events to {topic} in {seconds:.1f} s: {sent / max(seconds, 0.001):,.0f} a second", file=sys.stderr)


async def _produce(
    lines: Iterator[Line], kafka: list[str], topic: str, partitions: int | None, rate: float | None
) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    count = await _prepared(kafka, topic, partitions)
    async with _connected(kafka) as producer:
        batches = _Batches(producer, topic, count)
        size, sent, began = _slice_of(rate), 0, time.monotonic()
        while not stop.is_set() and (part := list(islice(lines, size))):
            await batches.add(part)
            sent += len(part)
            if rate is not None:
                await batches.flush()
                await _wait(stop, _pause(began, sent, rate))
        await batches.finish()
    return sent


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    """Waits so long, or until it is time to stop."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


class _Batches:
    """Fills a batch for each partition and sends the full ones."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int) -> None:
        self._producer, self._topic, self._count = producer, topic, partitions
        self._partitions: dict[str, int] = {}
        self._open: dict[int, Any] = {}
        self._sent: deque[Any] = deque()

    async def add(self, lines: Sequence[Line]) -> None:
        """Takes lines; sends what is full."""
        now = _now()
        for customer, line in lines:
            partition = self._partition(customer)
            batch = self._open.get(partition)
            key = customer.encode()
            if batch is None or batch.append(key=key, value=line, timestamp=now) is None:
                if batch is not None:
                    await self._send(partition, batch)
                batch = self._open[partition] = self._producer.create_batch()
                batch.append(key=key, value=line, timestamp=now)
        await asyncio.sleep(0)

    def _partition(self, customer: str) -> int:
        """The partition where any Kafka client would put the customer: murmur2 of the key."""
        found = self._partitions.get(customer)
        if found is None:
            from aiokafka.partitioner import murmur2

            found = self._partitions[customer] = (murmur2(customer.encode()) & 0x7FFFFFFF) % self._count
        return found

    async def _send(self, partition: int, batch: Any) -> None:
        batch.close()
        self._sent.append(await self._producer.send_batch(batch, self._topic, partition=partition))
        if len(self._sent) > UNACKNOWLEDGED:
            await self._sent.popleft()

    async def flush(self) -> None:
        """Sends what there is."""
        for partition, batch in self._open.items():
            await self._send(partition, batch)
        self._open.clear()

    async def finish(self) -> None:
        """Sends what there is, and waits until the brokers have everything."""
        await self.flush()
        while self._sent:
            await self._sent.popleft()


@asynccontextmanager
async def _connected(kafka: list[str]) -> AsyncIterator[AIOKafkaProducer]:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", compression_type="lz4", max_batch_size=BATCH_BYTES, linger_ms=0
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _prepared(kafka: list[str], topic: str, partitions: int | None) -> int:
    """How many partitions the topic has; it is created if that is wanted."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic
    from aiokafka.errors import KafkaConnectionError

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    try:
        await admin.start()
        [described] = await admin.describe_topics([topic])
        if not described["error_code"]:
            return len(described["partitions"])
        if partitions is None:
            raise InputError(f"topic {topic} does not exist: give --partitions N to create it, or correct --topic")
        brokers = len((await admin.describe_cluster())["brokers"])
        new = NewTopic(topic, num_partitions=partitions, replication_factor=min(REPLICAS, brokers))
        response = await admin.create_topics([new])
        for name, code, *message in response.topic_errors:
            if code:
                raise InputError(f"topic {name} cannot be created: error {code} {' '.join(map(str, message))}")
        return partitions
    except KafkaConnectionError as error:
        raise away(kafka) from error
    finally:
        await admin.close()
