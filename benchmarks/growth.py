"""CPU of an event as customers, segments, windows, histories, partitions and workers grow.

    python -m benchmarks.growth --only "customers windows"

Counted from /proc over all workers, so others on the machine matter little. The last line is one JSON object: for each
series its points.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click

from benchmarks import document
from benchmarks.changelog import MODELS, fill, make_models
from benchmarks.processes import warn_if_busy
from benchmarks.programs import peers_python
from benchmarks.traffic import Traffic
from benchmarks.worker import Setup, drained, running, wait_until_ready
from benchmarks.writer import append, append_steadily, delete_topics
from streamseg import services
from streamseg.core.units import DAY, Duration

CHART = document.ROOT / "docs" / "images" / "growth.svg"
HISTORY_MS = 365 * DAY
"""How long the customers have been there."""
MODEL_EVENTS = 400_000
"""Events of all models together, at most; but there are this many of them at least:"""
FEWEST_MODELS = 40
SPEND = 600
"""The first segment is above so much spend (major units) for each 100 events: so that all segments are used."""
DEFINITIONS = """\
version: 1
currency: USD
features:
  orders: count(purchase, {days}d)
  spend: sum(purchase.amount, {days}d)
  views: count(page_view, {days}d)
  opens: count(email_open, {days}d)
  recency: since(purchase)
schemes:
  value:
    default: nobody
    segments:
"""


@dataclass(frozen=True, slots=True)
class Point:
    """What is given to the workers."""

    customers: int = 100_000
    segments: int = 10
    days: int = 30
    """Length of the windows."""
    events: int = 20
    """Of each customer, before, on average."""
    partitions: int = 4
    workers: int = 1
    rate: int = 0
    """Measured events a second; 0: all wait when it begins."""

    def definitions(self) -> str:
        """A scheme with so many segments: each for a spend that is lower than that of the one before it."""
        listed = self.segments - 1
        top = SPEND * self.events / 100 * min(1.0, self.days * DAY / HISTORY_MS)
        rules = (
            f"      - {{name: s{place:03}, when: spend >= {top * (listed - place) / listed:.2f} and orders >= 1 "
            f"or views >= {10_000 + place} and recency <= {self.days}d}}\n"
            for place in range(listed)
        )
        return DEFINITIONS.format(days=self.days) + "".join(rules)

    @property
    def models(self) -> int:
        """How many different customers there are."""
        return max(FEWEST_MODELS, min(MODELS, MODEL_EVENTS // self.events, self.customers))

    def at(self, number: int) -> Duration:
        """How long after the history a measured event is: they come as often as those before them did."""
        return HISTORY_MS * number // (self.customers * self.events)


BASE = Point()
WIDE = Point(customers=20_000, events=200)
DEEP = Point(customers=10_000, days=90)
STEADY = Point(rate=20_000)
STEADY_SECONDS = 10
Series = Mapping[str, tuple[str, Sequence[Point]]]


def series(base: Point, *, quick: bool = False) -> Series:
    """The series by name: the field that grows, and its points."""
    wide, deep = (base, base) if quick else (WIDE, DEEP)
    steady = replace(base, rate=QUICK_RATE) if quick else STEADY

    def grow(of: Point, name: str, full: Sequence[int], small: Sequence[int]) -> tuple[str, Sequence[Point]]:
        return name, [replace(of, **{name: value}) for value in (small if quick else full)]

    return {
        "customers": grow(base, "customers", (10_000, 100_000, 1_000_000, 3_000_000), (1_000, 10_000)),
        "steady": grow(steady, "customers", (10_000, 100_000, 1_000_000, 3_000_000), (1_000, 10_000)),
        "segments": grow(steady, "segments", (5, 10, 20, 50, 100), (5, 20)),
        "windows": grow(replace(wide, rate=steady.rate), "days", (7, 30, 90, 365), (7, 90)),
        "events": grow(deep, "events", (10, 100, 1_000, 10_000), (10, 100)),
        "partitions": grow(base, "partitions", (1, 4, 16, 64), (1, 4)),
        "workers": grow(base, "workers", (1, 2, 3), (1, 2)),
    }


QUICK = Point(customers=2_000)
QUICK_RATE = 10_000
TITLES = {
    "customers": "customers, when all events wait",
    "steady": f"customers, at {STEADY.rate:,} events/s",
    "segments": f"segments, at {STEADY.rate:,} events/s",
    "windows": f"days of the windows, at {STEADY.rate:,} events/s",
    "events": "events a customer had",
    "partitions": "partitions",
    "workers": "workers",
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a point came to."""

    microseconds: float
    """CPU of an event, of all workers."""
    mb: float
    """Resident, of all workers, when they were done."""
    state_bytes: float
    """Of a customer, before."""


async def measure(setup: Setup, point: Point, events: int) -> Cost:
    """Workers that have loaded all customers, from the first event to the last, in Redis."""
    models = make_models(setup, point.models, point.events, HISTORY_MS)
    size = await fill(setup, models, point.customers)
    traffic = Traffic(point.customers, point.partitions)
    with running(setup, point.workers) as workers:
        await wait_until_ready(workers, point.partitions)
        events = max(events, point.rate * STEADY_SECONDS)
        made = [traffic.event(models.clock + 1 + point.at(number)) for number in range(events)]
        before = sum(worker.cpu for worker in workers)
        if point.rate:
            await append_steadily(setup.kafka, setup.events, made, point.rate, point.partitions)
        else:
            await append(setup.kafka, setup.events, made, point.partitions)
        await drained(workers, events)
        cpu = sum(worker.cpu for worker in workers) - before
        mb = sum(worker.mb() for worker in workers)
    await delete_topics(setup.kafka, setup.name)
    return Cost(round(cpu / events * 1e6, 1), round(mb), round(size))


@dataclass(slots=True)
class Growth:
    """The services, and what was measured so far."""

    kafka: str
    redis: str
    folder: Path
    events: int
    name: str = "growth"

    def all(self, wanted: Series, rounds: int = 1) -> dict[str, list[tuple[int, Cost]]]:
        """The costs of each series, the middle ones of some rounds; a point of several series is measured once in each.

        Every other round goes backwards: a machine that grows slower meanwhile makes no series grow.
        """
        said: dict[Point, tuple[str, int]] = {}
        for name, (grown, points) in wanted.items():
            for point in points:
                said.setdefault(point, (name, getattr(point, grown)))
        found: dict[Point, list[Cost]] = {point: [] for point in said}
        for number in range(rounds):
            for point in list(said)[:: -1 if number % 2 else 1]:
                cost = asyncio.run(self._measure(point, sum(map(len, found.values()))))
                found[point].append(cost)
                click.echo(line(*said[point], cost), err=True)
        return {
            name: [(getattr(point, grown), middle(found[point])) for point in points]
            for name, (grown, points) in wanted.items()
        }

    async def _measure(self, point: Point, number: int) -> Cost:
        place = self.folder / f"{self.name}{number}"
        place.mkdir()
        definitions = place / "definitions.yaml"
        definitions.write_text(point.definitions())
        name = f"{self.name}{number}"
        setup = Setup(definitions, self.kafka, self.redis, place, name, partitions=point.partitions)
        return await measure(setup, point, self.events)


def line(name: str, value: int, cost: Cost) -> str:
    """A point, for whoever waits."""
    return f"{value:>10,} {TITLES[name]:34}{cost.microseconds:>8.1f} µs{cost.mb:>8,.0f} MB"


def middle(costs: Sequence[Cost]) -> Cost:
    """The cost in the middle of those of one point; of an even number the lower one."""
    return sorted(costs, key=lambda cost: cost.microseconds)[(len(costs) - 1) // 2]


Found = Mapping[str, Sequence[tuple[int, Cost]]]


def as_json(found: Found) -> str:
    """All points in one line."""
    return json.dumps(
        {name: [{"at": value, **asdict(cost)} for value, cost in points] for name, points in found.items()}
    )


def markdown(found: Found, events: int, rounds: int = 1) -> str:
    """The table of docs/benchmarks.md."""
    of = "" if rounds == 1 else f", the middle of {rounds} rounds"
    about = f"{events:,} events at each point{of}, {document.machine()}. µs of CPU an event.\n\n"
    rows = [
        [TITLES[name], " · ".join(f"{value:,}: **{cost.microseconds:.0f}**" for value, cost in points), _times(points)]
        for name, points in found.items()
    ]
    return about + document.table(["what grows", "CPU of an event", "from first to last"], rows)


def _times(points: Sequence[tuple[int, Cost]]) -> str:
    (first, cheap), (last, dear) = points[0], points[-1]
    return f"{last / first:,.0f} times as many cost {dear.microseconds / cheap.microseconds:.2f} times"


def report(found: Found, events: int, rounds: int) -> None:
    """Puts table and chart into the documentation."""
    picture = f"![CPU of an event as each grows](images/{CHART.name})"
    document.replace("growth", f"{markdown(found, events, rounds)}\n{picture}")
    subprocess.run(
        [str(peers_python()), "-m", "benchmarks.growth_chart", str(CHART)],
        check=True, cwd=document.ROOT, input=as_json(found), text=True,
    )  # fmt: skip


def chosen(only: str, *, quick: bool) -> Series:
    """The series that were asked for. Raises UsageError."""
    every = series(QUICK if quick else BASE, quick=quick)
    names = only.split() or list(every)
    if unknown := set(names) - every.keys():
        raise click.UsageError(f"no such series: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    return {name: every[name] for name in names}


@click.command()
@click.option("--only", default="", help="Names of series; without it all.")
@click.option("--events", type=int, help="How many, at each point.  [default: 100000, quick 20000]")
@click.option("--quick", is_flag=True, help="Few and small points.")
@click.option("--repeat", default=1, show_default=True, help="Rounds; what is told is the middle of them.")
@click.option("--report", "reported", is_flag=True, help="Write table and chart into docs; wants all series.")
def main(only: str, events: int | None, quick: bool, repeat: int, reported: bool) -> None:
    """Measure, print, and the figures as JSON."""
    wanted, count = chosen(only, quick=quick), events or (20_000 if quick else 100_000)
    if reported and (only or quick):
        raise click.UsageError("--report needs all series: a part of a run does not replace the whole")
    warn_if_busy()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        kafka = stack.enter_context(services.kafka(folder / "kafka"))
        redis = stack.enter_context(services.redis(folder / "redis"))
        found = Growth(kafka, redis, folder, count).all(wanted, repeat)
    click.echo(f"{time.perf_counter() - began:.0f} s", err=True)
    if reported:
        report(found, count, repeat)
    click.echo(as_json(found))


if __name__ == "__main__":
    main()
