"""Bytes of a customer: resident in a worker, and in its state by part; and whether the formulas for them hold.

    python -m benchmarks.memory

Ends with 1 if what docs/operating.md says a worker needs is not what it needs. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import document, peer, sizing
from benchmarks.changelog import MODELS, fill, make_models
from benchmarks.recovery import DEFINITIONS
from benchmarks.traffic import Traffic
from benchmarks.worker import LOOK_SECONDS, Setup, Worker, drained, running, wait_until_ready
from benchmarks.writer import append, delete_topics
from streamseg import services
from streamseg.core.units import DAY
from streamseg.formats.definitions_yaml import read_definitions

SIZES = (100_000, 1_000_000)
FEW = 1_000
EVENTS = 100_000
"""After loading, so that customers are in use."""
SETTLED = 1 / 1_000
"""A worker has settled when its memory moved by less than this for so many looks:"""
CALM_LOOKS = 10
HISTORIES = (20, 100, 400)
"""Events of a customer, for the formula of the state."""
HISTORY_MODELS = 200
STATE_ERROR, WORKER_ERROR = 0.12, 0.15
"""By so much a formula may be wrong."""
MB = 1e6
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resident:
    """A worker with so many customers, in bytes."""

    customers: int
    state: float
    """Of one."""
    loaded: float
    peak: float
    """While it loaded."""
    after: float
    """When events have been."""
    touched: int
    """Customers who had one."""


async def measure(setup: Setup, customers: int, events: int) -> Resident:
    """One worker that loads them."""
    models = make_models(setup, min(MODELS, customers))
    state = await fill(setup, models, customers)
    traffic = Traffic(customers, setup.partitions)
    with running(setup) as [worker]:
        await wait_until_ready([worker], setup.partitions)
        loaded = await _settled(worker)
        peak = _bytes(worker, "VmHWM")
        made = [traffic.event(models.clock + 1 + number // 20) for number in range(events)]
        await append(setup.kafka, setup.events, made, setup.partitions)
        await drained([worker], events)
        after = await _settled(worker)
    await delete_topics(setup.kafka, setup.name)
    return Resident(customers, state, loaded, peak, after, len({record.key for record in made}))


def _bytes(worker: Worker, name: str) -> float:
    return worker.mb(name) * (1 << 20)


async def _settled(worker: Worker) -> float:
    """The resident bytes once they do not move any more."""
    size, calm = _bytes(worker, "VmRSS"), 0
    while calm < CALM_LOOKS:
        worker.require()
        await asyncio.sleep(LOOK_SECONDS)
        now = _bytes(worker, "VmRSS")
        size, calm = now, calm + 1 if abs(now - size) < size * SETTLED else 0
    return size


def per_customer(few: Resident, many: Resident) -> Figures:
    """What one more customer takes, and what the formula says of the whole."""
    more = many.customers - few.customers
    resident = (many.loaded - few.loaded) / more
    in_use = (many.after - many.loaded - (few.after - few.loaded)) / max(many.touched - few.touched, 1)
    id_bytes = len(f"c-{many.customers}")
    formula = sizing.worker_bytes(many.customers, many.state, id_bytes)
    return {
        "customers": many.customers,
        "resident_mb": round(many.loaded / MB),
        "peak_mb": round(many.peak / MB),
        "formula_mb": round(formula / MB),
        "bytes": round(resident),
        "state_bytes": round(many.state),
        "besides_bytes": round(resident - many.state),
        "in_use_bytes": round(in_use),
    }


def states(files: Mapping[str, Path], models: int) -> list[Figures]:
    """States of so many customers with histories of several lengths: their bytes, and those of the formula."""
    found = []
    for name, path in files.items():
        definitions = read_definitions(path)
        for events in HISTORIES:
            made = make_models(Setup(path, "", "", path.parent), models, events, 365 * DAY)
            profiles = [profile for profile, _ in made.profiles]
            size = sum(sizing.encoded(definitions, profile) for profile in profiles) / len(profiles)
            formula = sizing.counts(definitions, profiles).state_bytes()
            found.append({"definitions": name, "events": events, "bytes": round(size), "formula": round(formula)})
    return found


def wrong(found: Figures, *, whole: bool = True) -> list[str]:
    """Where a formula does not hold; of the worker only on the whole, when there are enough customers."""
    told = [
        f"{each['definitions']}, {each['events']} events: {each['bytes']} bytes, by the formula {each['formula']}"
        for each in found["states"]
        if abs(each["formula"] / each["bytes"] - 1) > STATE_ERROR
    ]
    for each in found["workers"] if whole else ():
        if abs(each["formula_mb"] / each["resident_mb"] - 1) > WORKER_ERROR:
            told.append(
                f"{each['customers']:,} customers: {each['resident_mb']} MB, by the formula {each['formula_mb']} MB"
            )
        if each["in_use_bytes"] > sizing.IN_USE * (1 + WORKER_ERROR):
            told.append(f"{each['in_use_bytes']:,} bytes more of a customer in use, not up to {sizing.IN_USE:,}")
    return told


def markdown(found: Figures) -> str:
    """The tables of docs/benchmarks.md."""
    head = [
        "customers",
        "resident",
        "at the peak, loading",
        "by the formula",
        "each: bytes",
        "its state",
        "besides",
        "more in use",
    ]
    rows = [
        [
            f"{each['customers']:,}", *(f"{each[name]:,} MB" for name in ("resident_mb", "peak_mb", "formula_mb")),
            *(f"{each[name]:,}" for name in ("bytes", "state_bytes", "besides_bytes", "in_use_bytes")),
        ]
        for each in found["workers"]
    ]  # fmt: skip
    shares = [[name, f"{size:.0f}"] for name, size in found["parts"].items()]
    checks = [
        [each["definitions"], f"{each['events']}", f"{each['bytes']:,}", f"{each['formula']:,}"]
        for each in found["states"]
    ]
    about = (
        f"The starter set, 20 events a customer on average, {document.machine()}. "
        f"With {found['few']['customers']:,} customers a worker has {found['few']['resident_mb']} MB.\n"
    )
    tables = (
        document.table(head, rows),
        document.table(["part of a state", "bytes"], shares),
        document.table(["definitions", "events of a customer", "bytes of a state", "by the formula"], checks),
    )
    return "\n".join((about, *tables))


FILES = {"starter": DEFINITIONS, "the job above": peer.DEFINITIONS}


def collect(
    kafka: str, redis: str, folder: Path, sizes: Sequence[int], events: int, models: int, name: str = "memory"
) -> Figures:
    """All figures; states are those of so many customers."""

    def one(customers: int) -> Resident:
        place = folder / f"{name}-{customers}"
        place.mkdir()
        found = asyncio.run(measure(Setup(DEFINITIONS, kafka, redis, place, place.name), customers, events))
        click.echo(
            f"{customers:>10,} customers: {found.loaded / MB:,.0f} MB, {found.after / MB:,.0f} MB after events",
            err=True,
        )
        return found

    few = one(FEW)
    made = make_models(Setup(DEFINITIONS, kafka, redis, folder), models)
    profiles = [profile for profile, _ in made.profiles]
    return {
        "few": {"customers": few.customers, "resident_mb": round(few.loaded / MB), "after_mb": round(few.after / MB)},
        "workers": [per_customer(few, one(size)) for size in sizes],
        "parts": {part: round(size, 1) for part, size in sizing.parts(made.definitions, profiles).items()},
        "counts": {key: round(value, 1) for key, value in asdict(sizing.counts(made.definitions, profiles)).items()},
        "states": states(FILES, models),
    }


@click.command()
@click.option("--customers", default="", help="How many, in turn.  [default: 100000 1000000]")
@click.option("--quick", is_flag=True, help="10,000 customers, too few to judge the worker by.")
@click.option("--report", "reported", is_flag=True, help="Write the tables into docs.")
def main(customers: str, quick: bool, reported: bool) -> None:
    """Measure, print, and the figures as JSON."""
    sizes = [int(each) for each in customers.split()] or ([10_000] if quick else SIZES)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        kafka = stack.enter_context(services.kafka(folder / "kafka"))
        redis = stack.enter_context(services.redis(folder / "redis"))
        found = collect(kafka, redis, folder, sizes, EVENTS // 10 if quick else EVENTS, HISTORY_MODELS)
    click.echo(f"{time.perf_counter() - began:.0f} s", err=True)
    if reported:
        document.replace("memory", markdown(found))
    if problems := wrong(found, whole=not quick):
        click.echo("\n".join(["the formulas of docs/operating.md do not hold:", *problems]), err=True)
    click.echo(json.dumps({**found, "wrong": problems}))
    if problems:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
