"""A herd of customers whose deadline falls in the same second, while other customers go on.

    python -m benchmarks.herd

All of the herd buy within one second; so long after it that `since(purchase)` is too much for their segment, time
alone moves them. How late is the change, and what becomes of the latency of others meanwhile? The last line is one
JSON object.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import document
from benchmarks.changelog import MODELS, fill, make_models
from benchmarks.feed import Load
from benchmarks.latency import KINDS, SHOWN, events_done, milliseconds
from benchmarks.processes import warn_if_busy
from benchmarks.reader import HERD
from benchmarks.samples import summary
from benchmarks.traffic import Traffic
from benchmarks.trial import Running, Trial, look_for, telling_of_hashes
from benchmarks.worker import Setup, Worker, drained, running, wait_until_ready
from benchmarks.writer import append
from streamseg import services

DEFINITIONS = """\
version: 1
currency: EUR
schemes:
  presence:
    default: away
    segments:
      - {{name: here, when: since(purchase) <= {seconds}s}}
"""
SPREAD_MS = 1_000
"""Within which all buy."""
EVERY = 10
"""One event of the others in so many is measured."""
AFTER_SECONDS = 30.0
"""The others go on for so long after the deadlines at least."""
PERIODS = {"before": "before", "meanwhile": "from the first deadline to the last change"}
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure."""

    customers: int
    """In the herd."""
    others: int
    """Customers who are there besides."""
    rate: float
    """Events of theirs a second."""
    seconds: int
    """From a purchase to its deadline."""
    after: float = AFTER_SECONDS


def measure(kafka: str, redis: str, folder: Path, plan: Plan, name: str = "bench") -> Figures:
    """One worker."""
    definitions = folder / "herd.yaml"
    definitions.write_text(DEFINITIONS.format(seconds=plan.seconds))
    setup = Setup(definitions, kafka, redis, folder, name, clock="wall")
    asyncio.run(fill(setup, make_models(setup, min(MODELS, plan.others), until=int(time.time() * 1_000)), plan.others))
    with telling_of_hashes(redis), running(setup) as [worker]:
        asyncio.run(wait_until_ready([worker], setup.partitions))
        bought = asyncio.run(buy(setup, worker, plan))
        load = Load(
            kafka=kafka, topic=setup.events, label="h", rate=plan.rate, every=EVERY, customers=plan.others, purchases=0,
            seconds=bought / 1_000 + plan.seconds + plan.after - time.time(),
        )  # fmt: skip
        trial = Running(setup, [worker], load, look_for(setup, load, deadlines=plan.customers)).result()
    return _figures(plan, trial, bought)


async def buy(setup: Setup, worker: Worker, plan: Plan) -> int:
    """The purchases of the herd, from now on; returns when the first one was (ms), once all are done.

    Raises SystemExit if that took until the deadlines.
    """
    traffic, began = Traffic(plan.customers, setup.partitions, label="h"), int(time.time() * 1_000)
    before = await events_done(worker)
    made = [
        traffic.purchase(HERD + b"%d" % number, began + number * SPREAD_MS // plan.customers)
        for number in range(plan.customers)
    ]
    await append(setup.kafka, setup.events, made, setup.partitions)
    await drained([worker], plan.customers, before)
    if time.time() > began / 1_000 + plan.seconds - 1:
        raise SystemExit(f"the purchases were done only when their deadlines came: give more than {plan.seconds} s")
    return began


def _figures(plan: Plan, trial: Trial, bought: int) -> Figures:
    deadlines = trial.samples.of["deadlines"]
    first, last = min(due for due, _ in deadlines), max(seen for _, seen in deadlines)
    expected = (bought + plan.seconds * 1_000 + 1) * 1_000
    if first != expected:
        raise SystemExit(f"the first deadline was {(first - expected) / 1_000:.0f} ms after where it had to be")
    found: Figures = {
        "customers": plan.customers,
        "lateness": summary(deadlines),
        "seconds": round((last - first) / 1e6, 2),
    }
    for kind in KINDS:
        samples = trial.samples.of[kind]
        found[kind] = {
            "before": summary(each for each in samples if each.due < first),
            "meanwhile": summary(each for each in samples if first <= each.due <= last),
        }
    return {**found, "cores": trial.cores, "waits_for_cores": trial.waits}


def lines(found: Figures) -> list[str]:
    """For whoever waits."""
    told = [f"{found['customers']:,} deadlines are late by {milliseconds(found['lateness'])}"]
    return told + [
        f"others {title}, {name}: {milliseconds(found[kind][name])}"
        for kind, title in KINDS.items()
        for name in PERIODS
    ]


def markdown(found: Figures, plan: Plan) -> str:
    """The table of docs/benchmarks.md."""
    about = (
        f"{found['customers']:,} deadlines in one second, {plan.rate:,.0f} events/s of {plan.others:,} others, "
        f"one worker, {document.machine()}. All changes were on the topic {found['seconds']:.1f} s after the first "
        "deadline. Milliseconds.\n\n"
    )
    rows = [["changes of the herd, after their deadlines", *_cells(found["lateness"])]]
    for kind, title in KINDS.items():
        rows += [[f"events of others {title}, {text}", *_cells(found[kind][name])] for name, text in PERIODS.items()]
    return about + document.table(["", *SHOWN], rows)


def _cells(of: dict[str, float]) -> list[str]:
    return [f"{of[name]:,.1f}" if of["count"] else "–" for name in SHOWN]


@click.command()
@click.option("--customers", default=100_000, show_default=True, help="How many deadlines.")
@click.option("--others", default=100_000, show_default=True, help="Customers besides.")
@click.option("--rate", default=1_000.0, show_default=True, help="Events of theirs a second.")
@click.option("--seconds", default=60, show_default=True, help="From a purchase to its deadline.")
@click.option("--report", "reported", is_flag=True, help="Write the table into docs.")
def main(customers: int, others: int, rate: float, seconds: int, reported: bool) -> None:
    """Measure, print, and the figures as JSON."""
    warn_if_busy()
    plan = Plan(customers=customers, others=others, rate=rate, seconds=seconds)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        kafka = stack.enter_context(services.kafka(folder / "kafka"))
        redis = stack.enter_context(services.redis(folder / "redis"))
        found = measure(kafka, redis, folder, plan)
    click.echo("\n".join(lines(found)), err=True)
    if reported:
        document.replace("herd", markdown(found, plan))
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
