"""A full changelog, as workers leave it that did all there was to do: customers who were there before a run begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from aiokafka import AIOKafkaProducer
from redis import Redis

from benchmarks.worker import Setup
from benchmarks.writer import BATCH_BYTES, Writer, create_topic
from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.core.units import DAY, Duration, Instant
from streamseg.formats import messages
from streamseg.formats import state as records
from streamseg.formats.definitions_yaml import read_definitions
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, Checkpoint, Sent, State
from streamseg.replay import Replay
from streamseg.shop import Shop
from streamseg.worker.placement import MURMUR2, partition_of
from streamseg.worker.redis_server import Identity
from streamseg.worker.settings import MAX_RECORD_BYTES
from streamseg.worker.topics import prepare

MODELS, EVENTS_OF_A_MODEL = 2_000, 20
"""Customers that a replay of a made-up shop makes; those of the changelog are these over and over, under other ids."""
SPAN_MS: Duration = 90 * DAY
"""How long they have been customers."""
BATCH_STATES = 500
"""States in one record batch: about what a busy worker writes at once."""
CHANGED = 5
"""One record in so many carries the change that it made."""
EPOCH = 1


@dataclass(frozen=True, slots=True)
class Models:
    """Customers to make others of, and the instant they have come to."""

    definitions: Definitions
    profiles: Sequence[tuple[Profile, Change | None]]
    clock: Instant


def make_models(
    setup: Setup,
    count: int = MODELS,
    events: int = EVENTS_OF_A_MODEL,
    span_ms: Duration = SPAN_MS,
    until: Instant | None = None,
) -> Models:
    """The customers of a shop, with so many events each on average; their last event is at `until`, if that is said."""
    definitions = read_definitions(setup.definitions)
    shop = Shop(seed=7, events=count * events, customers=count, span_ms=span_ms)
    models = _replayed(definitions, shop)
    if until is None:
        return models
    shifted = Shop(
        seed=7, events=count * events, customers=count, span_ms=span_ms, start=shop.start + until - models.clock
    )
    return _replayed(definitions, shifted)


def _replayed(definitions: Definitions, shop: Shop) -> Models:
    latest: dict[str, Change] = {}
    replay = Replay(definitions, lambda change: latest.__setitem__(change.customer, change))
    replay.run(line for _, line in shop.lines())
    profiles = [(profile, latest.get(customer)) for customer, profile in replay.profiles.items()]
    return Models(definitions, profiles, replay.segmenter.clock)


def encoded(models: Models, number: int, events: str) -> tuple[bytes, bytes]:
    """The state of a model as a worker writes it: alone, and with the change that the last event made."""
    profile, change = models.profiles[number]
    state = State(profile, {events: 0}, worth=100 * (number % 1_000))
    head, body = records.encode_state(state, models.definitions.layout, EPOCH)
    outbox = [] if change is None else [Sent(profile.version, profile.at, messages.change_data(change))]
    return records.kept(head, body), records.record(head, body, outbox)


def customer_id(number: int) -> bytes:
    """Of one in the changelog."""
    return b"c-%d" % number


async def fill(setup: Setup, models: Models, customers: int) -> float:
    """Creates the topics, and writes states of so many customers; returns the bytes of one as it is kept.

    Each partition of the event topic has one event, which was done.
    """
    partitions = setup.partitions
    await create_topic(setup.kafka, setup.events, partitions)
    await prepare((setup.kafka,), (setup.events,), setup.names, setup.name)
    size = 0
    async with AIOKafkaProducer(
        bootstrap_servers=setup.kafka, max_batch_size=BATCH_BYTES, max_request_size=MAX_RECORD_BYTES,
        compression_type="snappy",
    ) as producer:  # fmt: skip
        past = Writer(producer, setup.events, BATCH_STATES, partitions)
        log = Writer(producer, setup.changelog, BATCH_STATES, partitions)
        for partition in range(partitions):
            await past.add(partition, b"before", b"all customers had this event")
            await log.add(partition, FENCE_KEY, records.encode_fence(EPOCH))
        made = [encoded(models, number, setup.events) for number in range(len(models.profiles))]
        for number, (alone, changed) in enumerate(islice(cycle(made), customers)):
            customer, value = customer_id(number), alone if number % CHANGED else changed
            size += len(alone)
            await log.add(partition_of(customer, partitions), customer, value)
        whole = _known_redis(setup)
        for partition in range(partitions):
            checkpoint = _checkpoint(models, log.counts[partition], setup.events, whole)
            await log.add(partition, CHECKPOINT_KEY, records.encode_checkpoint(checkpoint))
        await past.flush()
        await log.flush()
    return size / max(customers, 1)


def _checkpoint(models: Models, done: int, events: str, whole: str) -> Checkpoint:
    """That all is done up to an offset of the changelog, and one event was read."""
    return Checkpoint(
        done, done, models.clock, {events: 1}, -1, models.definitions.hash, done, EPOCH, whole, placement=MURMUR2
    )


def _known_redis(setup: Setup) -> str:
    """Leaves our mark in Redis; returns its identity, as a checkpoint says that it knows all customers."""
    with Redis.from_url(setup.redis) as redis:
        redis.set(f"{setup.names.redis}view", setup.name)
        return str(Identity(setup.name.encode(), str(redis.info("server")["run_id"])))
