"""How fast a worker is back that starts on a full changelog, for each store, beside Faust's own recovery of it.

    python -m benchmarks.recovery --customers 1000000

Figures are of one run on one machine: take the ratios. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from aiohttp import ClientSession
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis import Redis

from benchmarks.processes import cpu_seconds, status_mb
from benchmarks.worker import command, progress
from benchmarks.writer import PARTITIONS, Writer, create_topic
from streamseg import services
from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.core.units import DAY, Instant, format_instant
from streamseg.formats import messages
from streamseg.formats import state as records
from streamseg.formats.definitions_yaml import read_definitions
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, Checkpoint, Sent, State
from streamseg.replay import Replay
from streamseg.services.service import free_port
from streamseg.shop import Shop
from streamseg.worker.placement import MURMUR2, partition_of
from streamseg.worker.redis_server import Identity
from streamseg.worker.settings import MAX_RECORD_BYTES, Names, Store
from streamseg.worker.topics import prepare

DEFINITIONS = Path(__file__).parents[1] / "streamseg" / "definitions" / "starter.yaml"
EVENTS, NAMES, GROUP = "bench-events", Names("bench"), "bench"
CHANGELOG = NAMES.changelog(GROUP)
MODELS, EVENTS_OF_A_MODEL = 2_000, 20
"""Customers that a replay of a made-up shop makes; those of the changelog are these over and over, under other ids."""
GROUP_STATES = 500
"""States in one record batch: about what a busy worker writes at once."""
CHANGED = 5
"""One record in so many carries the change that it made."""
EPOCH = 1
PATIENCE = 300.0
READ = re.compile(r"read (\d+) changelog records of \d+ partitions in ([\d.]+) s")
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Models:
    """Customers to make others of, and the instant they have come to."""

    definitions: Definitions
    profiles: Sequence[tuple[Profile, Change | None]]
    clock: Instant


def make_models() -> Models:
    """The customers of a shop after some months."""
    definitions = read_definitions(DEFINITIONS)
    latest: dict[str, Change] = {}
    replay = Replay(definitions, lambda change: latest.__setitem__(change.customer, change))
    shop = Shop(seed=7, events=MODELS * EVENTS_OF_A_MODEL, customers=MODELS, span_ms=90 * DAY)
    replay.run(line for _, line in shop.lines())
    profiles = [(profile, latest.get(customer)) for customer, profile in replay.profiles.items()]
    return Models(definitions, profiles, replay.segmenter.clock)


def state_record(models: Models, number: int) -> bytes:
    """A state of one customer, as a worker writes it."""
    profile, change = models.profiles[number % len(models.profiles)]
    state = State(profile, {EVENTS: 0}, worth=100 * (number % 1_000))
    head, body = records.encode_state(state, models.definitions.layout.fingerprint.encode(), EPOCH)
    changed = number % CHANGED == 0 and change is not None
    outbox = [Sent(profile.version, profile.at, messages.change_data(change))] if changed and change else []
    return records.record(head, body, outbox)


async def fill(kafka: str, models: Models, customers: int, whole: str) -> float:
    """Writes a changelog as a worker leaves it that did all there was to do; returns the bytes of a state."""
    await create_topic(kafka, EVENTS)
    await prepare((kafka,), (EVENTS,), NAMES, GROUP)
    size = 0
    async with AIOKafkaProducer(
        bootstrap_servers=kafka, max_batch_size=1 << 19, max_request_size=MAX_RECORD_BYTES, compression_type="snappy"
    ) as producer:
        past, log = Writer(producer, EVENTS, GROUP_STATES), Writer(producer, CHANGELOG, GROUP_STATES)
        for partition in range(PARTITIONS):
            await past.add(partition, b"before", b"all customers had this event")
            await log.add(partition, FENCE_KEY, records.encode_fence(EPOCH))
        for number in range(customers):
            customer, value = b"c-%d" % number, state_record(models, number)
            size += len(value)
            await log.add(partition_of(customer, PARTITIONS), customer, value)
        for partition in range(PARTITIONS):
            done, read = log.counts[partition], {EVENTS: 1}
            checkpoint = Checkpoint(
                done, done, models.clock, read, -1, models.definitions.hash, done, EPOCH, whole, placement=MURMUR2
            )
            await log.add(partition, CHECKPOINT_KEY, records.encode_checkpoint(checkpoint))
        await past.flush()
        await log.flush()
    return size / customers


class Traffic:
    """Events of customers who are known, and of one who is new."""

    def __init__(self, customers: int, clock: Instant) -> None:
        self._customers = customers
        self._clock = clock
        self._dice = random.Random(5)
        self._count = 0

    def _event(self, customer: str) -> tuple[bytes, bytes]:
        self._count += 1
        self._clock += self._count % 20 == 0
        event = {"id": f"e{self._count}", "type": "page_view", "customer_id": customer}
        event["time"] = format_instant(self._clock)
        return customer.encode(), json.dumps(event).encode()

    async def send(self, kafka: str, events: int) -> None:
        """Sends events of customers drawn by lot; none means one event of a newcomer, who changes by that."""
        drawn = [f"c-{self._dice.randrange(self._customers)}" for _ in range(events)] or [f"newcomer-{self._count}"]
        async with AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=1 << 19) as producer:
            writer = Writer(producer, EVENTS, GROUP_STATES)
            for customer in drawn:
                key, value = self._event(customer)
                await writer.add(partition_of(key, PARTITIONS), key, value)
            await writer.flush()


@contextmanager
def started(kafka: str, redis: str, folder: Path, store: Store) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """A worker as its operator starts it: process, metrics and log."""
    port, log = free_port(), folder / f"{store}.log"
    given = command(DEFINITIONS, kafka, redis, EVENTS, GROUP, port, folder / "data")
    with log.open("wb") as file:
        process = subprocess.Popen([*given, "--store", store], stderr=file)
    try:
        yield process, f"http://127.0.0.1:{port}/metrics", log
    finally:
        process.terminate()
        process.wait(30)


async def measure_store(kafka: str, redis: str, folder: Path, store: Store, traffic: Traffic, events: int) -> Figures:
    """A worker from its start to the change of the first event, then under load."""
    await traffic.send(kafka, 0)
    async with AIOKafkaConsumer(bootstrap_servers=kafka, fetch_max_wait_ms=20, auto_offset_reset="latest") as changes:
        tps = [TopicPartition(NAMES.changes, partition) for partition in range(PARTITIONS)]
        changes.assign(tps)
        await changes.seek_to_end(*tps)
        begun = time.perf_counter()
        with started(kafka, redis, folder, store) as (process, url, log):
            first = asyncio.ensure_future(changes.getone())
            while not first.done():
                _require(process, log, begun)
                await asyncio.wait([first], timeout=1)
            seconds, cpu = time.perf_counter() - begun, cpu_seconds(process.pid)
            read = READ.search(log.read_text())
            assert read is not None
            loaded = int(read[1]) / float(read[2])
            resident, peak = status_mb(process.pid, "VmRSS"), status_mb(process.pid, "VmHWM")
            rate = await _under_load(kafka, traffic, events, process, url, log)
            busy = status_mb(process.pid, "VmRSS")
    return {
        "records_per_second": round(loaded),
        "seconds_to_first_event": round(seconds, 2),
        "cpu_seconds_to_first_event": round(cpu, 2),
        "mb": round(resident),
        "peak_mb": round(peak),
        "events_per_second": round(rate),
        "mb_after_events": round(busy),
    }


async def _under_load(
    kafka: str, traffic: Traffic, events: int, process: subprocess.Popen[bytes], url: str, log: Path
) -> float:
    """Events a second, from the first of many that wait to the last in Redis."""
    async with ClientSession() as session:
        before, _ = await progress(session, url)
        begun = time.perf_counter()
        await traffic.send(kafka, events)
        while True:
            done, waiting = await progress(session, url)
            if done >= before + events and not waiting:
                return events / (time.perf_counter() - begun)
            _require(process, log, begun)
            await asyncio.sleep(0.05)


def _require(process: subprocess.Popen[bytes], log: Path, begun: float) -> None:
    if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
        raise SystemExit(f"the worker ended (code {process.poll()}) or took too long:\n{log.read_text()[-3_000:]}")


def measure_faust(kafka: str, folder: Path, customers: int, seconds: float) -> Figures:
    """Faust's own recovery of the same topic, until it is through or the time is over."""
    faust = [sys.executable, "-m", "benchmarks.faust_recovery", kafka, EVENTS, CHANGELOG, str(PARTITIONS)]
    log = folder / "faust.log"
    with log.open("wb") as file:
        process = subprocess.Popen([*faust, str(folder / "faust")], stdout=subprocess.PIPE, stderr=file, text=True)
    assert process.stdout is not None
    begun = at = keys = first = 0.0
    try:
        for line in process.stdout:
            at, keys = map(float, line.split())
            if not keys:
                continue
            if not begun:
                begun, first = at, keys
            if keys >= customers or at - begun >= seconds:
                break
    finally:
        process.kill()
        process.wait()
    if at == begun:
        raise SystemExit(f"Faust did not recover anything that could be measured:\n{log.read_text()[-3_000:]}")
    return {
        "records_per_second": round((keys - first) / (at - begun)),
        "records_read": round(keys),
        "seconds": round(at - begun, 1),
    }


@click.command()
@click.option("--customers", default=1_000_000, show_default=True, help="How many customers.")
@click.option("--events", default=100_000, show_default=True, help="How many events, to compare the stores at work.")
@click.option("--faust-seconds", default=60.0, show_default=True, help="How long Faust may take; then it is stopped.")
def main(customers: int, events: int, faust_seconds: float) -> None:
    """Measure, print a table, and the figures as JSON."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        models = make_models()
        kafka = stack.enter_context(services.kafka(folder / "kafka"))
        redis = stack.enter_context(services.redis(folder / "redis"))
        begun = time.perf_counter()
        size = asyncio.run(fill(kafka, models, customers, _known_redis(redis)))
        click.echo(
            f"wrote {customers:,} states of {size:.0f} bytes to {PARTITIONS} partitions "
            f"in {time.perf_counter() - begun:.0f} s"
        )
        traffic = Traffic(customers, models.clock + 1)
        found: dict[str, Figures] = {}
        for store in Store:
            found[store] = asyncio.run(measure_store(kafka, redis, folder, store, traffic, events))
            shutil.rmtree(folder / "data")
        found["faust"] = measure_faust(kafka, folder, customers, faust_seconds)
    _print(found, customers)


def _known_redis(url: str) -> str:
    """Leaves our mark in Redis; returns its identity, as a checkpoint says that it knows all customers."""
    with Redis.from_url(url) as redis:
        redis.set(f"{NAMES.redis}view", "bench")
        return str(Identity(b"bench", str(redis.info("server")["run_id"])))


def _print(found: dict[str, Figures], customers: int) -> None:
    faust = found["faust"]
    click.echo(
        f"{'':12}{'records/s':>12}{'x Faust':>9}{'first event':>13}{'CPU':>8}{'MB':>8}{'peak MB':>9}{'events/s':>10}"
    )
    for store in Store:
        figures = found[store]
        ratio = figures["records_per_second"] / faust["records_per_second"]
        click.echo(
            f"{store:12}{figures['records_per_second']:>12,.0f}{ratio:>9.0f}"
            f"{figures['seconds_to_first_event']:>11.1f} s{figures['cpu_seconds_to_first_event']:>6.1f} s"
            f"{figures['mb']:>8,.0f}{figures['peak_mb']:>9,.0f}{figures['events_per_second']:>10,.0f}"
        )
    click.echo(
        f"{'faust':12}{faust['records_per_second']:>12,.0f}        1   "
        f"stopped after {faust['records_read']:,.0f} records, {faust['seconds']:.0f} s"
    )
    click.echo(json.dumps({"customers": customers, **found}))


if __name__ == "__main__":
    main()
