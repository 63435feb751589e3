"""The Faust app of the worker, and how it is run; it knows nothing of segments."""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from faust.types.auth import CredentialsT
from mode import CrashingSupervisor
from yarl import URL

from streamseg.core.errors import InputError, TryAgainError
from streamseg.worker.apart import Threads
from streamseg.worker.batches import (
    BatchScheduler,
    BatchTransport,
    IdempotentProducer,
    PassThrough,
    RecordBatch,
)
from streamseg.worker.failure import die, fatal
from streamseg.worker.fetches import give_plain_records
from streamseg.worker.lease import KickedOutError, Lease, unsent
from streamseg.worker.log import BATCH_BYTES, Log
from streamseg.worker.owner import Owner
from streamseg.worker.reading import Readings
from streamseg.worker.shell import Shell
from streamseg.worker.store import StateTable

REBALANCE_SECONDS = 120.0
"""How long the group waits for a member to come to a rebalance; a member that loads state comes after it."""
REQUEST_SECONDS = 30.0
QUIET_LOGGERS = (
    *("faust", "mode", "aiokafka"),
    *(f"streamseg.worker.{module}" for module in ("app", "batches", "store")),  # Faust's, by our modules
)
"""These tell every step of a rebalance at INFO, and what they only suspect at WARNING."""


class TopicsError(InputError):
    """The topics are not what the worker needs."""


class BrokerAwayError(TryAgainError):
    """No broker answers."""


@dataclass(frozen=True, slots=True)
class ShellSettings:
    """What the shell needs to know; times in seconds, sizes in bytes."""

    kafka: tuple[str, ...]
    """Brokers to begin with, host:port."""
    event_topics: tuple[str, ...]
    """All with `partitions` partitions."""
    group: str
    """The consumer group, and the Faust app's id."""
    changelog_topic: str
    """Compacted, with `partitions` partitions; created before the worker starts."""
    partitions: int
    data_dir: Path
    session_seconds: float = 9.0
    """After so long without a heartbeat a worker is dead, and its partitions go to others."""
    heartbeat_seconds: float = 2.0
    commit_seconds: float = 1.0
    """How often offsets are committed: about what is read again after a crash."""
    poll_records: int = 10_000
    """Records handed over at once, at most."""
    fetch_bytes: int = 4 << 20
    """Fetched at once for each partition, at most."""
    batch_bytes: int = BATCH_BYTES
    """Size at which what is appended is cut into batches."""
    max_record_bytes: int = 1_000_000
    """Largest record to append; brokers take 1,048,588 by default."""
    compression: str | None = "snappy"
    """Of what is appended: snappy, zstd, lz4, gzip or None. Of states of 130 bytes snappy makes a half for
    0.2 µs a record, zstd a third for 1 µs; aiokafka's lz4 takes 9 µs."""
    compiled: bool = False
    """Whether the compiled core reads what is fetched of event topics."""
    log_level: str = "INFO"
    credentials: CredentialsT | None = field(default=None, repr=False)
    """How to log in, as one of Faust's credentials."""
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class ShellApp(faust.App):
    """The Faust app with the parts that the consumer, the table and the agent share."""

    def __init__(self, settings: ShellSettings, owner: Owner[Any]) -> None:
        self.settings = settings
        self.owner = owner
        self.readings = Readings(settings.event_topics)
        self.assigned_generation = -1
        self.kept: frozenset[int] = frozenset()
        """The partitions that are ours in the assigned generation, and open."""
        self.opened_generation = -1
        """The generation in which all partitions that were assigned are open."""
        self.recovered = 0
        """Changelog records that came through Faust's own recovery, not in bulk."""
        self.lease = Lease(settings.session_seconds)
        # Before any client has a connection: the producer's comes first.
        give_plain_records(self.readings.topics, compiled=settings.compiled)
        super().__init__(settings.group, **_faust_settings(settings))
        self._threads = Threads()
        log = Log(self._aiokafka_producer, settings.max_record_bytes)
        self.shell = Shell(self.readings, log, self, self._threads)

    def client(self, kind: type[Any], **settings: Any) -> Any:
        """Make an aiokafka client of some kind that knows the brokers and how to log in."""
        auth = credentials_to_aiokafka_auth(self.settings.credentials, self.settings.tls)
        return kind(bootstrap_servers=list(self.settings.kafka), **auth, **settings)

    def _aiokafka_producer(self) -> Any:
        return cast(IdempotentProducer, self.producer)._ensure_producer()

    def kicked_out(self) -> None:
        """End the process when the group went on without us while something was being written.

        What is written amid it would wait for the lease, and be sent when the next membership brings one.
        """
        producer = self.producer._producer if self.producer is not None else None  # type: ignore[attr-defined]
        opening = self.opened_generation != self.assigned_generation
        sending = producer is not None and unsent(producer)
        if not self.should_stop and (opening or sending or self.owner.writing):
            die("the membership", KickedOutError("the group went on without this worker: restart it"))

    async def on_first_start(self) -> None:
        """Check the topics before anything else starts."""
        with fatal("the check of the topics"):
            await self._check_topics()
            await self.owner.start()
        await super().on_first_start()

    async def on_shutdown(self) -> None:
        """Stop what runs beside the partitions, last of all."""
        await super().on_shutdown()
        await self.shell.close()
        self._threads.close()
        await self.owner.stop()

    async def _check_topics(self) -> None:
        topics = [*self.settings.event_topics, self.settings.changelog_topic]
        admin = self.client(AIOKafkaAdminClient)
        try:
            await admin.start()
        except KafkaConnectionError as error:
            raise BrokerAwayError(f"no broker answers at {', '.join(self.settings.kafka)}: {error}") from error
        try:
            described = await admin.describe_topics(topics)
        finally:
            await admin.close()
        check_partitions({each["topic"]: len(each["partitions"]) for each in described}, self.settings)

    def hand_over(self, stream: Any, event: Any) -> None:
        """Give a batch to the owner, unless a rebalance made it void: then it is fetched again."""
        batch: RecordBatch = event.value
        reading = batch.reading
        is_current = self.readings.get(reading.tp) is reading and batch.epoch == reading.epoch
        if is_current and reading.positioned:
            reading.hand(batch.start, batch.end)
            self.owner.arrived(batch.topic, batch.partition, batch.records, partial(stream.ack, event))

    def _crash(self, reason: BaseException) -> None:
        """End the process: nothing was acknowledged that is not done, so a restart mends all."""
        if self.should_stop or isinstance(reason, asyncio.CancelledError):
            super()._crash(reason)
        else:
            die("the Kafka part", reason)


def check_partitions(counts: dict[str, int], settings: ShellSettings) -> None:
    """Raise TopicsError unless all topics exist and have the same, configured number of partitions."""
    for topic in (*settings.event_topics, settings.changelog_topic):
        if not counts.get(topic):
            raise TopicsError(f"topic {topic} does not exist: create it with {settings.partitions} partitions")
        if counts[topic] != settings.partitions:
            raise TopicsError(
                f"topic {topic} has {counts[topic]} partitions but {settings.partitions} are configured: all "
                "event topics and the changelog need the same number, or a customer's events would not meet "
                "its state"
            )


def _faust_settings(settings: ShellSettings) -> dict[str, Any]:
    return {
        "broker": [URL(f"kafka://{server}") for server in settings.kafka],
        "broker_credentials": settings.credentials,
        "ssl_context": settings.tls,
        "datadir": settings.data_dir,
        "store": "memory://",
        "topic_partitions": settings.partitions,
        "table_standby_replicas": 0,  # a standby would hold nothing, and Faust balances workers only without
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "autodiscover": False,
        "web_enabled": False,
        "ConsumerScheduler": BatchScheduler,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": settings.fetch_bytes,
        "broker_max_poll_records": settings.poll_records,
        "broker_session_timeout": settings.session_seconds,
        "broker_heartbeat_interval": settings.heartbeat_seconds,
        "broker_rebalance_timeout": REBALANCE_SECONDS,
        "broker_request_timeout": REQUEST_SECONDS,
        "broker_commit_interval": settings.commit_seconds,
        "broker_commit_every": 1 << 62,  # the clock alone commits: a commit inside of the fetch loop would stop it
        "producer_linger_ms": 0,
        "producer_max_batch_size": settings.batch_bytes,
        "producer_max_request_size": settings.max_record_bytes,
        "producer_compression_type": settings.compression,
        "producer_request_timeout": REQUEST_SECONDS,
        "stream_buffer_maxsize": 256,
        "stream_wait_empty": True,
        "agent_supervisor": CrashingSupervisor,
        "worker_redirect_stdouts": False,
    }


def build_app(settings: ShellSettings, owner: Owner[Any]) -> ShellApp:
    """Build the app around an owner. Nothing connects before `run`; `app.shell` is what the owner may ask."""
    app = ShellApp(settings, owner)
    app.transport = BatchTransport([URL(f"kafka://{server}") for server in settings.kafka], app)
    app.tables.add(
        StateTable(app, name="state", default=None, key_type=bytes, value_type=bytes, partitions=settings.partitions)
    )
    events = app.topic(*settings.event_topics, schema=PassThrough())

    async def hand_events_over(stream: Any) -> None:
        with fatal("handing events over"):
            async for event in stream.noack().events():
                app.hand_over(stream, event)

    app.agent(events, name=f"{settings.group}-events")(hand_events_over)
    return app


def run(app: ShellApp) -> int:
    """Run the worker in this process until SIGTERM or SIGINT. Returns the exit code: 0 after a clean stop.

    A clean stop finishes what is in flight, commits, and leaves the group. Any failure ends the process at
    once, with the exit code of `die`.
    """
    _set_up_logging(app.settings.log_level)
    loop = _new_loop()
    app.finalize()
    worker = faust.Worker(
        app,
        loop=loop,
        quiet=True,
        override_logging=False,
        redirect_stdouts=False,
        loglevel=app.settings.log_level,
    )
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 70


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        pass
    else:
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


def _set_up_logging(level: str) -> None:
    root = logging.getLogger()
    if not root.handlers:
        logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.ERROR, root.level))
