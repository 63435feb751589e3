"""How long it takes from an event to the change on `segment-changes`, and to the assignment in Redis, by load.

    python -m benchmarks.latency

Open loop: events are appended on a schedule, and latencies count from the instant at which an event was due. Figures
are of one machine, on which load, reader, Kafka and Redis run, too. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import click
from aiohttp import ClientSession

from benchmarks import document
from benchmarks.changelog import MODELS, fill, make_models
from benchmarks.feed import Load
from benchmarks.peer import DEFINITIONS
from benchmarks.processes import tree, wait_until_idle, warn_if_busy
from benchmarks.samples import Sample, summary
from benchmarks.traffic import Traffic
from benchmarks.trial import Running, Trial, look_for, telling_of_hashes
from benchmarks.worker import Setup, Worker, drained, progress, running, wait_until_ready
from benchmarks.writer import append
from streamseg import services

RATES = (1_000.0, 10_000.0, 50_000.0)
SHARE = 0.5
"""Of a maximum: the last rates."""
STEPS = 5
"""Rates that are tried, each of them halfway between one that was kept up with and one that was not."""
TRIED_SECONDS, TRIED_WARM_UP = 8.0, 2.0
WARM_SECONDS, WARM_EVERY = 30.0, 10
"""How long there is a load before anything is measured, with fewer newcomers: Kafka's compiler takes a quarter of a
core at first."""
SAMPLED = 1_000
"""About so many newcomers a second are measured at most: more would show no more, and the reader takes CPU for each."""
LATE_US = 500_000
"""Who keeps up is no later than this at the end: the median of the last second."""
SAID = {"sustained": "what it sustains", "drained": "what it drains", "given": "what was given"}
KINDS = {"changes": "on `segment-changes`", "redis": "in Redis"}
SHOWN = ("p50", "p99", "p99.9", "max")
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    customers: int
    """Who are there before."""
    seconds: float
    """At each rate."""
    warm_up: float
    every: int
    backlog: int
    """Events to drain, for the maximum."""
    rate: float | None = None
    """A maximum, in events a second, if none shall be measured."""


def measure(setup: Setup, plan: Plan, most: Mapping[str, float], rates: Sequence[float] = RATES) -> Figures:
    """One worker at these rates, and at a share of each maximum."""
    told = {**dict.fromkeys(rates, ""), **{SHARE * rate: f"half of {SAID[name]}" for name, rate in most.items()}}
    with at_work(setup, plan) as worker:
        warm(setup, worker, plan, SHARE * min(most.values()))
        wait_until_idle(tree(os.getpid())[1:])
        found = [
            {**measure_rate(setup, worker, plan, f"r{number}", rate), "what": what}
            for number, (rate, what) in enumerate(told.items())
        ]
    return {"customers": plan.customers, "max": {name: round(rate) for name, rate in most.items()}, "rates": found}


@contextmanager
def served() -> Iterator[Setup]:
    """Services, and what a worker is given; nothing of them is left."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        kafka = stack.enter_context(services.kafka(folder / "kafka"))
        redis = stack.enter_context(services.redis(folder / "redis"))
        yield Setup(DEFINITIONS, kafka, redis, folder, clock="wall")


@contextmanager
def at_work(setup: Setup, plan: Plan) -> Iterator[Worker]:
    """A worker that is ready, with customers who have a history."""
    models = make_models(setup, min(MODELS, plan.customers), until=int(time.time() * 1_000))
    asyncio.run(fill(setup, models, plan.customers))
    with telling_of_hashes(setup.redis), running(setup) as [worker]:
        asyncio.run(wait_until_ready([worker], setup.partitions))
        yield worker


def maxima(setup: Setup, plan: Plan) -> dict[str, float]:
    """What a worker sustains while events come, and what it drains when they wait; in events a second.

    So many newcomers come to it that they are most of its customers.
    """
    with at_work(setup, plan) as worker:
        warm(setup, worker, plan, SHARE * asyncio.run(maximum(setup, worker, plan, "a")))
        most = asyncio.run(maximum(setup, worker, plan, "b"))
        return {"sustained": sustained(setup, worker, plan, most), "drained": most}


def warm(setup: Setup, worker: Worker, plan: Plan, rate: float) -> None:
    """A load before anything is measured."""
    warming = replace(plan, seconds=WARM_SECONDS, warm_up=0.0, every=WARM_EVERY * plan.every)
    trial(setup, worker, warming, "w", rate)


def sustained(setup: Setup, worker: Worker, plan: Plan, most: float) -> float:
    """The greatest rate that was kept up with, of some up to what is drained.

    Raises SystemExit if there was none.
    """
    low, high = 0.0, most
    tried = replace(plan, seconds=TRIED_SECONDS, warm_up=TRIED_WARM_UP)
    for number in range(STEPS):
        rate = (low + high) / 2
        if is_kept_up_with(setup, worker, tried, f"s{number}", rate):
            low = rate
        else:
            high = rate
    if not low:
        raise SystemExit(f"not even {high:,.0f} events/s were kept up with: is this machine busy?")
    return low


def is_kept_up_with(setup: Setup, worker: Worker, plan: Plan, label: str, rate: float) -> bool:
    """Tries a rate."""
    kept = keeps_up(trial(setup, worker, plan, label, rate).samples.of["changes"])
    click.echo(f"{rate:>9,.0f} events/s for {plan.seconds:g} s: {'kept up with' if kept else 'too many'}", err=True)
    return kept


def keeps_up(changes: Sequence[Sample]) -> bool:
    """Whether changes were not late when the load ended."""
    end = max(sample.due for sample in changes)
    return median(sample.seen - sample.due for sample in changes if sample.due > end - 1_000_000) <= LATE_US


async def maximum(setup: Setup, worker: Worker, plan: Plan, label: str) -> float:
    """Events a second while many wait, of the same kind as those of the rates.

    Raises SystemExit if they are too few to be measured.
    """
    traffic, now = Traffic(plan.customers, setup.partitions, label=label), int(time.time() * 1_000)
    made = [
        traffic.event(now) if number % plan.every else traffic.newcomer(b"%b-%d" % (label.encode(), number), now)
        for number in range(plan.backlog)
    ]
    before = await events_done(worker)
    worker.process.pause()  # or it would be done with most of them before the last is there
    try:
        await append(setup.kafka, setup.events, made, setup.partitions)
    finally:
        worker.process.resume()
    found = await drained([worker], plan.backlog, before)
    if not found.events:
        raise SystemExit(f"{plan.backlog:,} events were done before a look at the worker: ask for a larger --backlog")
    return found.rate


def measure_rate(setup: Setup, worker: Worker, plan: Plan, label: str, rate: float) -> Figures:
    """One rate."""
    tried = trial(setup, worker, plan, label, rate)
    of = tried.samples.of
    found = {"events_per_second": round(rate), **{kind: summary(of[kind]) for kind in (*KINDS, "append")}}
    click.echo(line(found), err=True)
    return {**found, "cores": tried.cores, "waits_for_cores": tried.waits}


def trial(setup: Setup, worker: Worker, plan: Plan, label: str, rate: float) -> Trial:
    """A load of one rate; when it ends, nothing waits any more."""
    load = Load(
        kafka=setup.kafka, topic=setup.events, label=label, rate=rate, seconds=plan.seconds,
        warm_up=plan.warm_up, every=plan.every, sampled=max(1, round(rate / plan.every / SAMPLED)),
        customers=plan.customers, partitions=setup.partitions,
    )  # fmt: skip
    before = asyncio.run(events_done(worker))
    found = Running(setup, [worker], load, look_for(setup, load)).result()
    asyncio.run(drained([worker], load.events, before))
    return found


async def events_done(worker: Worker) -> int:
    async with ClientSession() as session:
        done, _ = await progress(session, worker.url)
    return done


def line(found: Figures) -> str:
    """One rate, for whoever waits."""
    told = [f"{name} {milliseconds(of)}" for name, of in found.items() if isinstance(of, dict)]
    return f"{found['events_per_second']:>8,} events/s  {'; '.join(told)}"


def milliseconds(of: Figures) -> str:
    """Percentiles and the greatest."""
    return ", ".join(f"{name} {of[name]:,.1f}" for name in SHOWN) + " ms"


def markdown(found: Figures, plan: Plan) -> str:
    """The table of docs/benchmarks.md."""
    most = [f"{SAID[name]}: {rate:,} events/s" for name, rate in found["max"].items()]
    about = (
        f"{found['customers']:,} customers, {plan.seconds:g} s at each rate, one worker, {document.machine()}; "
        f"{', '.join(most)}. Milliseconds.\n\n"
    )
    rows = [
        [
            f"{load_of(rate)}, {title}",
            *(f"{rate[kind][name]:,.1f}" for name in SHOWN),
            f"{rate['append']['p99']:,.1f}",
            f"{rate['cores']['worker']:.2f}",
            f"{rate['waits_for_cores']:.2f}",
        ]
        for rate in found["rates"]
        for kind, title in KINDS.items()
    ]
    return about + document.table(["", *SHOWN, "p99 of appending", "the worker: cores", "waits for a core"], rows)


def load_of(rate: Figures) -> str:
    """How many events, and why so many."""
    return f"{rate['events_per_second']:,} events/s" + (f" ({rate['what']})" if rate["what"] else "")


@click.command()
@click.option("--customers", default=100_000, show_default=True, help="Customers who are there before.")
@click.option("--seconds", default=60.0, show_default=True, help="How long each rate goes on.")
@click.option("--warm-up", default=10.0, show_default=True, help="Seconds before that, which do not count.")
@click.option("--every", default=20, show_default=True, help="One event in so many is of a newcomer.")
@click.option("--backlog", default=300_000, show_default=True, help="Events to drain, for the maximum.")
@click.option("--rate", type=float, help="A maximum, in events a second, instead of measuring any.")
@click.option("--report", "reported", is_flag=True, help="Write the table into docs.")
def main(
    customers: int, seconds: float, warm_up: float, every: int, backlog: int, rate: float | None, reported: bool
) -> None:
    """Measure, print, and the figures as JSON."""
    warn_if_busy()
    plan = Plan(customers=customers, seconds=seconds, warm_up=warm_up, every=every, backlog=backlog, rate=rate)
    most = {"given": plan.rate} if plan.rate else {}
    if not most:
        with served() as setup:
            most = maxima(setup, plan)
    with served() as setup:  # others: what was appended for the maxima is gone, and nobody compacts it
        found = measure(setup, plan, most)
    if reported:
        document.replace("latency", markdown(found, plan))
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
