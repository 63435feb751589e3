"""Speed of replay and worker on one synthetic input, beside the floor: decoding its JSON and nothing else.

    python -m benchmarks.bench --events 1000000

Figures are of one run on one machine: take the ratios. The last line is one JSON object: name to
events_per_second, events_per_cpu_second, peak_mb.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import click
from aiokafka import AIOKafkaProducer

from benchmarks.peers.wire import decode
from benchmarks.worker import Setup, drained, running
from benchmarks.writer import BATCH_BYTES, PARTITIONS, Writer, create_topic
from streamseg import services
from streamseg.core.units import DAY, MILLISECONDS
from streamseg.shop import Shop
from streamseg.worker.placement import partition_of

DEFINITIONS = Path(__file__).parent.parent / "streamseg" / "definitions" / "starter.yaml"
EVENTS_PER_CUSTOMER = 20
SPAN_MS = 90 * DAY
Figures = dict[str, float]


@click.command()
@click.option("--events", default=1_000_000, show_default=True, help="How many events.")
@click.option("--seed", default=7, show_default=True)
def main(events: int, seed: int) -> None:
    """Measure, print a table, and the figures as JSON."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "events.jsonl"
        shop = Shop(seed=seed, events=events, customers=max(1, events // EVENTS_PER_CUSTOMER), span_ms=SPAN_MS)
        keys = _write(path, shop)
        found = {"floor": measure_floor(path), "replay": measure_replay(path, events, 1)}
        found["replay-all"] = measure_replay(path, events, len(os.sched_getaffinity(0)))
        kafka = stack.enter_context(services.kafka(Path(folder) / "kafka"))
        redis = stack.enter_context(services.redis(Path(folder) / "redis"))
        setup = Setup(DEFINITIONS, kafka, redis, Path(folder))
        asyncio.run(_load(setup, path, keys))
        found["streamseg"] = asyncio.run(measure_worker(setup, events))
    _print(found)


def _write(path: Path, shop: Shop) -> list[bytes]:
    """Writes the events to a file; returns their keys."""
    keys = []
    with path.open("wb") as file:
        for key, line in shop.lines():
            keys.append(key.encode())
            file.write(line.replace(b"\n", b" ") + b"\n")
    return keys


def measure_floor(path: Path) -> Figures:
    """Decoding every line that can be, in this process."""
    lines = path.read_bytes().splitlines()
    started, cpu = time.perf_counter(), time.process_time()
    for line in lines:
        try:
            decode(line)
        except ValueError:
            continue
    return _figures(len(lines), time.perf_counter() - started, time.process_time() - cpu, _peak(resource.RUSAGE_SELF))


def measure_replay(path: Path, events: int, jobs: int) -> Figures:
    """`streamseg replay` as its users run it: start-up, reading and writing included."""
    replay = [sys.executable, "-m", "streamseg", "replay", "--definitions", str(DEFINITIONS), "--jobs", str(jobs)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([*replay, "--changes", str(path) + ".changes", str(path)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _figures(events, seconds, cpu, _peak(resource.RUSAGE_CHILDREN))


async def _load(setup: Setup, path: Path, keys: list[bytes]) -> None:
    """Fills the event topic, each customer's events into one partition."""
    await create_topic(setup.kafka, setup.events)
    async with AIOKafkaProducer(bootstrap_servers=setup.kafka, max_batch_size=BATCH_BYTES) as producer:
        writer = Writer(producer, setup.events)
        with path.open("rb") as file:
            for key, line in zip(keys, file, strict=True):
                await writer.add(partition_of(key, PARTITIONS), key, line[:-1])
        await writer.flush()


async def measure_worker(setup: Setup, events: int) -> Figures:
    """One worker process from its first event to its last, everything acknowledged and in Redis."""
    with running(setup) as [worker]:
        drain = await drained([worker], events)
        return _figures(drain.events, drain.seconds, drain.cpu, worker.mb("VmHWM"))


def _peak(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def _figures(events: int, seconds: float, cpu: float, peak: float) -> Figures:
    return {
        "events_per_second": round(events / seconds),
        "events_per_cpu_second": round(events / max(cpu, MILLISECONDS["ms"] / 1000)),
        "peak_mb": round(peak),
    }


def _print(found: dict[str, Figures]) -> None:
    click.echo(f"{'':12}{'events/s':>12}{'per CPU-s':>12}{'of the floor':>14}{'peak MB':>10}")
    for name, figures in found.items():
        share = figures["events_per_cpu_second"] / found["floor"]["events_per_cpu_second"]
        click.echo(
            f"{name:12}{figures['events_per_second']:>12,.0f}{figures['events_per_cpu_second']:>12,.0f}{share:>14.1%}"
            f"{figures['peak_mb']:>10,.0f}"
        )
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
