"""How fast a worker is back that starts on a full changelog, for each store, beside Faust's own recovery of it.

    python -m benchmarks.recovery --customers 1000000

Figures are of one run on one machine: take the ratios. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
from aiohttp import ClientSession
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.changelog import fill, make_models
from benchmarks.traffic import Traffic
from benchmarks.worker import Setup, Worker, drained, progress, running
from benchmarks.writer import append
from streamseg import services
from streamseg.core.units import Instant
from streamseg.worker.settings import Store

DEFINITIONS = Path(__file__).parents[1] / "streamseg" / "definitions" / "starter.yaml"
PATIENCE = 300.0
READ = re.compile(r"read (\d+) changelog records of \d+ partitions in ([\d.]+) s")
Figures = dict[str, float]


class Visits:
    """Page views of customers who are known, and of one who is new."""

    def __init__(self, setup: Setup, customers: int, clock: Instant) -> None:
        self._setup = setup
        self._clock = clock
        self._traffic = Traffic(customers, setup.partitions, purchases=0)
        self._count = 0

    async def send(self, events: int) -> None:
        """Sends events of customers drawn by lot."""
        self._clock += 1
        made = [self._traffic.event(self._clock + number // 20) for number in range(events)]
        self._clock += events // 20
        await append(self._setup.kafka, self._setup.events, made, self._setup.partitions)

    async def send_newcomer(self) -> None:
        """Sends one event of a customer who changes by that."""
        self._count += 1
        made = self._traffic.newcomer(b"newcomer-%d" % self._count, self._clock)
        await append(self._setup.kafka, self._setup.events, [made], self._setup.partitions)


async def measure_store(setup: Setup, store: Store, visits: Visits, events: int) -> Figures:
    """A worker from its start to the change of the first event, then under load."""
    await visits.send_newcomer()
    async with AIOKafkaConsumer(
        bootstrap_servers=setup.kafka, fetch_max_wait_ms=20, auto_offset_reset="latest"
    ) as changes:
        tps = [TopicPartition(setup.names.changes, partition) for partition in range(setup.partitions)]
        changes.assign(tps)
        await changes.seek_to_end(*tps)
        begun = time.perf_counter()
        with running(replace(setup, options=("--store", store))) as [worker]:
            first = asyncio.ensure_future(changes.getone())
            while not first.done():
                _require(worker, begun)
                await asyncio.wait([first], timeout=1)
            seconds, cpu = time.perf_counter() - begun, worker.cpu
            read = READ.search(worker.process.log.read_text())
            assert read is not None
            loaded = int(read[1]) / float(read[2])
            resident, peak = worker.mb(), worker.mb("VmHWM")
            rate = await _under_load(visits, events, worker)
            busy = worker.mb()
    return {
        "records_per_second": round(loaded),
        "seconds_to_first_event": round(seconds, 2),
        "cpu_seconds_to_first_event": round(cpu, 2),
        "mb": round(resident),
        "peak_mb": round(peak),
        "events_per_second": round(rate),
        "mb_after_events": round(busy),
    }


async def _under_load(visits: Visits, events: int, worker: Worker) -> float:
    """Events a second, of many that come at once."""
    async with ClientSession() as session:
        before, _ = await progress(session, worker.url)
    await visits.send(events)
    return (await drained([worker], events, before)).rate


def _require(worker: Worker, begun: float) -> None:
    worker.require()
    if time.perf_counter() - begun > PATIENCE:
        raise SystemExit(f"the worker took too long:\n{worker.process.tail()}")


def measure_faust(setup: Setup, folder: Path, customers: int, seconds: float) -> Figures:
    """Faust's own recovery of the same topic, until it is through or the time is over."""
    topics = [setup.kafka, setup.events, setup.changelog, str(setup.partitions)]
    faust = [sys.executable, "-m", "benchmarks.faust_recovery", *topics]
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
        kafka = stack.enter_context(services.kafka(folder / "kafka"))
        redis = stack.enter_context(services.redis(folder / "redis"))
        setup = Setup(DEFINITIONS, kafka, redis, folder)
        models = make_models(setup)
        begun = time.perf_counter()
        size = asyncio.run(fill(setup, models, customers))
        click.echo(
            f"wrote {customers:,} states of {size:.0f} bytes to {setup.partitions} partitions "
            f"in {time.perf_counter() - begun:.0f} s"
        )
        visits = Visits(setup, customers, models.clock + 1)
        found: dict[str, Figures] = {}
        for store in Store:
            place = folder / store
            place.mkdir()
            found[store] = asyncio.run(measure_store(replace(setup, folder=place), store, visits, events))
        found["faust"] = measure_faust(setup, folder, customers, faust_seconds)
    _print(found, customers)


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
