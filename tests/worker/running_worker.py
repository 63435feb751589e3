"""A worker as an operator runs it: a process, its topics, what it published and what it shows."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from zlib import crc32

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.partitioner import murmur2
from aiokafka.record.util import calc_crc32c
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis, RedisCluster

from streamseg.services.service import free_port
from streamseg.worker.topics import wait_until_known
from tests.worker.reference import by_version

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "streamseg" / "definitions" / "starter.yaml"
EVERY_FEATURE = Path(__file__).with_name("definitions") / "every_feature.yaml"
PATIENCE = 60.0
POLL_SECONDS = 0.02
Partitioner = Callable[[bytes, int], int]
Headers = Sequence[tuple[str, bytes]]
T = TypeVar("T")
CRC, CRC_END = 17, 21
"""Where the checksum of a record batch stands; it is of all that follows."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A record to produce."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp: int = 1


def murmur2_partitioner(key: bytes, partitions: int) -> int:
    """Where Java's default partitioner puts a key."""
    return (int(murmur2(key)) & 0x7FFFFFFF) % partitions


def crc32_partitioner(key: bytes, partitions: int) -> int:
    """Where librdkafka's default partitioner puts a key."""
    return crc32(key) % partitions


def do(what: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(what)


def wait_until(
    ready: Callable[[], bool], what: str, workers: Iterable[RunningWorker] = (), patience: float = PATIENCE
) -> None:
    """Poll until something holds. Fails with the workers' logs when one of them ended, or when it takes too long."""
    deadline = time.monotonic() + patience
    while not ready():
        dead = [worker for worker in workers if worker.process.poll() is not None]
        if dead or time.monotonic() > deadline:
            logs = "\n".join(f"worker, code {each.process.poll()}:\n{each.log_tail()}" for each in workers)
            raise AssertionError(f"{'a worker ended' if dead else 'too long'} while waiting until {what}\n{logs}")
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Site:
    """One installation: its event topics, our topics and keys under one prefix, and its definitions."""

    kafka: str
    redis_url: str
    prefix: str
    directory: Path
    definitions: Path = STARTER
    clock: str = "stream"
    partitions: int = 4
    partitioner: Partitioner = murmur2_partitioner
    topics: tuple[str, ...] = ()
    keys: str = "rekey"
    redis_cluster: bool = False
    store: str = "memory"
    data: str = ""
    """The folder of a worker that runs alone; without it each has one of its own."""

    @property
    def events(self) -> tuple[str, ...]:
        """The event topics."""
        return self.topics or (f"{self.prefix}-events",)

    @property
    def group(self) -> str:
        return f"{self.prefix}-group"

    @property
    def changelog(self) -> str:
        return f"{self.prefix}.{self.group}-state-changelog"

    @property
    def rekeyed(self) -> str:
        return f"{self.prefix}.{self.group}-rekeyed"

    def own(self, name: str) -> str:
        """One of our topics."""
        return f"{self.prefix}.{name}"

    # Topics

    def create(self, configs: Mapping[str, str] | None = None) -> Self:
        """Create the event topics."""
        for topic in self.events:
            self.create_topic(topic, self.partitions, configs)
        return self

    def create_topic(self, topic: str, partitions: int, configs: Mapping[str, str] | None = None) -> None:
        async def create(admin: AIOKafkaAdminClient) -> None:
            await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=dict(configs or {}))])
            await wait_until_known(admin, topic)

        self._administer(create)

    def topic_names(self) -> set[str]:
        """The topics there are."""

        async def names(admin: AIOKafkaAdminClient) -> set[str]:
            return set(await admin.list_topics())

        return self._administer(names)

    def configure(self, topic: str, **configs: str) -> None:
        """Set settings of a topic; those not named go back to their defaults."""

        async def alter(admin: AIOKafkaAdminClient) -> None:
            named = {name.replace("_", "."): value for name, value in configs.items()}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=named)])

        self._administer(alter)

    def committed(self) -> dict[TopicPartition, int]:
        """How far the group has come."""

        async def offsets(admin: AIOKafkaAdminClient) -> Any:
            try:
                return await admin.list_consumer_group_offsets(self.group)
            except GroupCoordinatorNotAvailableError:  # nobody has committed anything to this broker yet
                return {}

        return {tp: each.offset for tp, each in self._administer(offsets).items() if each.offset > 0}

    def members(self) -> int:
        """How many members the group has."""

        async def describe(admin: AIOKafkaAdminClient) -> int:
            [response] = await admin.describe_consumer_groups([self.group])
            return len(response.groups[0][5])

        return self._administer(describe)

    def _administer(self, what: Callable[[AIOKafkaAdminClient], Coroutine[Any, Any, T]]) -> T:
        async def act() -> T:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
            await admin.start()
            try:
                return await what(admin)
            finally:
                await admin.close()

        return do(act())

    # In

    def shares(self, lines: Iterable[tuple[str, bytes]]) -> dict[int, list[tuple[str, bytes]]]:
        """Put events into partitions by their key, as `produce` does."""
        shares: defaultdict[int, list[tuple[str, bytes]]] = defaultdict(list)
        for key, value in lines:
            shares[self.partitioner(key.encode(), self.partitions)].append((key, value))
        return dict(shares)

    def produce(self, lines: Iterable[tuple[str, bytes]]) -> None:
        """Send events, keyed by customer, to the first event topic."""
        shares = self.shares(lines)
        self.send({number: [Sent(value, key.encode()) for key, value in share] for number, share in shares.items()})

    def send(
        self, records: Mapping[int, Sequence[Sent]], topic: str | None = None, broken_header: str | None = None
    ) -> None:
        """Send records to partitions as they are, and wait until the broker has them.

        The name of `broken_header` is replaced by bytes that are not UTF-8, which no client library would send.
        """
        do(self._send(records, topic or self.events[0], (broken_header or "").encode()))

    async def _send(self, records: Mapping[int, Sequence[Sent]], topic: str, broken: bytes) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.kafka, max_request_size=16 << 20) as producer:
            for partition, each in records.items():
                for batch in _batches(producer, each):
                    if broken:
                        _break(batch, broken)
                    await (await producer.send_batch(batch, topic, partition=partition))

    # Out

    def read(self, topic: str) -> list[ConsumerRecord]:
        """All records of a topic, partition by partition."""
        return do(self._read(topic))

    async def _read(self, topic: str) -> list[ConsumerRecord]:
        found: list[ConsumerRecord] = []
        async with self._consumer() as consumer:
            tps = [TopicPartition(topic, number) for number in sorted(await _partitions(consumer, topic))]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            for tp in tps:
                while await consumer.position(tp) < ends[tp]:
                    found += (await consumer.getmany(tp, timeout_ms=1000)).get(tp, [])
        return found

    def _consumer(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(bootstrap_servers=self.kafka, fetch_max_wait_ms=50)

    def ends(self, *topics: str) -> dict[TopicPartition, int]:
        """The ends of the partitions of topics, of the event topics if none is named; empty ones are left out."""
        return do(self._ends(topics or self.events))

    async def _ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        async with self._consumer() as consumer:
            tps = [TopicPartition(topic, each) for topic in topics for each in await _partitions(consumer, topic)]
            ends: dict[TopicPartition, int] = await consumer.end_offsets(tps)
        return {tp: end for tp, end in ends.items() if end}

    def published(self) -> list[dict[str, Any]]:
        """All changes as they stand on the topic, those published again among them."""
        return [json.loads(record.value) for record in self.read(self.own("segment-changes"))]

    def current(self) -> dict[str, dict[str, Any]]:
        """The last assignment of each customer on the compacted topic."""
        records = self.read(self.own("segment-current"))
        return {record.key.decode(): json.loads(record.value) for record in records if record.value is not None}

    def changes(self) -> dict[str, list[dict[str, Any]]]:
        """The changes of each customer by version; one that was published again counts once."""
        return by_version(self.published())

    def redis(self) -> Redis:
        kind: Any = RedisCluster if self.redis_cluster else Redis
        client: Redis = kind.from_url(self.redis_url, decode_responses=True)
        return client

    def shown(self) -> dict[str, dict[str, str]]:
        """The hashes of all customers in Redis, without what only workers read."""
        found = {key.split(":", 2)[2]: each for key, each in self._hashes("customer:*").items()}
        for each in found.values():
            each.pop("epoch", None)
        return found

    def counts(self) -> dict[str, Counter[str]]:
        """Customers by segment, for each scheme, as Redis says; segments without any are left out."""
        return {key.split(":")[2]: _positive(each) for key, each in self._hashes("count:*").items()}

    def moves(self) -> dict[str, Counter[str]]:
        """Migrations for each scheme and day, as Redis says."""
        return {key.split(":", 2)[2]: _positive(each) for key, each in self._hashes("moves:*").items()}

    def _hashes(self, pattern: str) -> dict[str, dict[str, str]]:
        with self.redis() as redis:
            keys = sorted(redis.scan_iter(f"{self.prefix}:{pattern}", count=10_000))
            pipeline = redis.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(key)
            return dict(zip(keys, pipeline.execute(), strict=True))

    # Workers

    @contextmanager
    def workers(self, count: int = 1) -> Iterator[list[RunningWorker]]:
        """Run workers until the end of the block; those that still run then are killed."""
        with ExitStack() as stack:
            running: list[RunningWorker] = []
            stack.callback(_kill_all, running)
            running += [self.start() for _ in range(count)]
            wait_until(lambda: all(worker.ready for worker in running), "they are ready", running)
            yield running

    def start(self, **options: Any) -> RunningWorker:
        """Start a worker; whoever asks for it ends it. Options as of RunningWorker."""
        return RunningWorker(self, **options)

    @contextmanager
    def worker(self) -> Iterator[RunningWorker]:
        """Run one worker until the end of the block."""
        with self.workers() as [worker]:
            yield worker

    def done(self) -> bool:
        """Whether everything produced was committed."""
        return self.committed() == self.ends(*self.events, self.rekeyed)

    def wait_until_done(self, workers: Iterable[RunningWorker], patience: float = PATIENCE) -> None:
        """Wait until the workers committed everything that was produced."""
        wait_until(self.done, "all events are committed", workers, patience)


def _kill_all(workers: list[RunningWorker]) -> None:
    """Kill those that stand in the list now: a test may have put others into it."""
    for worker in workers:
        worker.kill()


def _batches(producer: AIOKafkaProducer, records: Sequence[Sent]) -> Iterator[Any]:
    batch = producer.create_batch()
    for one in records:
        if not _append(batch, one):
            yield batch
            batch = producer.create_batch()
            assert _append(batch, one)
    yield batch


def _break(batch: Any, name: bytes) -> None:
    """Replace a name in a batch by bytes that are not UTF-8, and mend the checksum of the batch."""
    buffer = bytearray(batch._build()).replace(name, b"\xff" * len(name))
    buffer[CRC:CRC_END] = calc_crc32c(bytes(buffer[CRC_END:])).to_bytes(4, "big")
    batch._buffer = buffer


def _append(batch: Any, one: Sent) -> bool:
    return batch.append(timestamp=one.timestamp, key=one.key, value=one.value, headers=list(one.headers)) is not None


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    await consumer._client.force_metadata_update()
    await consumer._wait_topics()
    found: set[int] | None = (await consumer._client.fetch_all_metadata()).partitions_for_topic(topic)
    return found or set()


def _positive(counted: Mapping[str, str]) -> Counter[str]:
    return Counter({name: int(count) for name, count in counted.items() if int(count)})


class RunningWorker:
    """`streamseg worker` in a process of its own, with nothing of our environment.

    `module` is run in place of streamseg, with the same command line; `environment` and `extra` are added.
    """

    def __init__(
        self,
        site: Site,
        module: str = "streamseg",
        environment: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        name = f"worker-{self.port}-{time.monotonic_ns()}"
        self.log = site.directory / f"{name}.log"
        arguments = {
            "--definitions": site.definitions,
            "--kafka": site.kafka,
            "--redis": site.redis_url,
            "--events": ",".join(site.events),
            "--group": site.group,
            "--prefix": site.prefix,
            "--clock": site.clock,
            "--keys": site.keys,
            "--http": f"127.0.0.1:{self.port}",
            "--data": site.directory / (site.data or name),
            "--store": site.store,
            **(extra or {}),
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, "worker", *(str(x) for pair in arguments.items() for x in pair)],
                stdout=log,
                stderr=log,
                cwd=site.directory,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(environment or {})},
            )

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page; status 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """All samples: name and values of labels, in the order of the labels' names."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the worker logged."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.ready, "it is ready", [self])

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it as an operator does; gives its exit code."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    def tell_to_stop(self) -> None:
        """Begin to stop it."""
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Wait until it ends by itself; gives its exit code."""
        return self.process.wait(PATIENCE)
