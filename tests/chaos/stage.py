"""Where a fault happens: an installation under load, its workers, and a supervisor that starts them again."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from streamseg.core.units import DAY
from streamseg.shop import Shop
from tests.chaos.feed import Feed, Watch
from tests.chaos.verdict import Verdict, verdict
from tests.worker.running_worker import STARTER, RunningWorker, Site

PATIENCE = 120.0
POLL_SECONDS = 0.05
SHORT_SHARE = 0.25
"""Of the load, in the short form: it runs on small machines, and several rows at a time."""
RESTART = 75
"""The exit code by which a worker asks to be started again."""


class ChaosError(AssertionError):
    """A run that proves nothing, or that did not come to an end."""


@dataclass(slots=True)
class Row:
    """What one test came to."""

    name: str
    fault: str
    load: str = ""
    kills: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    recoveries: list[float] = field(default_factory=list)
    """Seconds from a fault until every partition it hit was worked on again."""
    notes: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """What else did not hold."""
    seconds: float = 0.0
    """How long all of it took."""

    @property
    def passed(self) -> bool:
        """Whether all held."""
        return self.verdict.right and not self.wrong


class Stage:
    """One installation under load, and what is done to it."""

    def __init__(self, site: Site, row: Row, seed: int, kafka: str | None = None, share: float = 1.0) -> None:
        self.site, self.row, self.dice = site, row, random.Random(f"{row.name}-{seed}")
        self.workers: list[RunningWorker] = []
        self.options: Mapping[str, Any] = {}
        """How workers are started."""
        self.leaving: list[RunningWorker] = []
        """Workers that were told to stop."""
        self.endings: Counter[int] = Counter()
        self.kafka = kafka or site.kafka
        """Where load and verifier meet the broker."""
        self.outside = replace(site, kafka=self.kafka)
        self.watch = Watch(self.kafka, site.changelog, *site.events, partitions=site.partitions)
        self.feed: Feed | None = None
        self._share = share
        """Of the load that a row asks for."""

    # Load

    def load(self, rate: float, events: int = 5_000_000, customers: int = 5_000, **shop: Any) -> Feed:
        """Begin to send a shop's events."""
        made = Shop(seed=self.dice.randrange(1 << 30), customers=customers, events=events, span_ms=90 * DAY, **shop)
        rate *= self._share
        self.row.load = f"{rate:,.0f}/s, {customers:,} customers"
        self.feed = Feed(self.outside, made.lines(), rate)
        return self.feed

    def pause_between(self, least: float, most: float) -> None:
        """Let a random time go by, under supervision."""
        end = time.monotonic() + self.dice.uniform(least, most)
        while time.monotonic() < end:
            self.supervise()
            time.sleep(POLL_SECONDS)

    # Workers

    def start(self, count: int = 1) -> None:
        """Start workers, and wait until they have their share."""
        for _ in range(count):
            self.workers.append(self.site.start(**self.options))
        self.wait(lambda: all(worker.ready for worker in self.workers), "the workers are ready")

    def supervise(self) -> None:
        """Start workers again that ended by themselves; one that ended with another code than 75 is noted."""
        for number, worker in enumerate(self.workers):
            code = worker.process.poll()
            if code is not None:
                self.endings[code] += 1
                if code not in (RESTART, -signal.SIGKILL):
                    self.row.wrong.append(f"a worker ended with code {code}: {worker.log_tail(3)}")
                self.workers[number] = self.site.start(**self.options)

    def wait(self, ready: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Wait under supervision."""
        deadline = time.monotonic() + patience
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(worker.log_tail(15) for worker in self.workers)
                raise ChaosError(f"{self.row.name}: too long until {what}\n{logs}")
            self.supervise()
            time.sleep(POLL_SECONDS)

    def kill(self, *victims: int, supervised: bool = True) -> None:
        """Kill workers at once, start as many again, and measure until their partitions are worked on again."""
        held = {part for victim in victims for part in partitions_of(self.workers[victim])}
        self.require_unfinished()
        for victim in victims:
            self.workers[victim].process.kill()
        for victim in victims:
            self.workers[victim].process.wait()
        self.row.kills += len(victims)
        self.recover(held or set(range(self.site.partitions)), supervised=supervised)

    def recover(self, partitions: set[int], since: float | None = None, *, supervised: bool = True) -> None:
        """Measure until something new of each of these partitions stands on the changelog."""
        began = since or time.monotonic()
        asked = time.monotonic()
        before: dict[int, int] | None = None
        while before is None:
            before = self.watch.ends(self.site.changelog, asked)
            time.sleep(0.01)
        known = before
        if supervised:
            self.supervise()

        def progressed() -> bool:
            ends = self.watch.ends(self.site.changelog, asked)
            return ends is not None and all(ends[part] > known[part] for part in partitions)

        self.wait(progressed, f"partitions {sorted(partitions)} are worked on again")
        self.row.recoveries.append(time.monotonic() - began)

    def require_unfinished(self) -> None:
        """A fault after all work is done proves nothing."""
        if self.feed is None or self.feed.ended:
            raise ChaosError(f"{self.row.name}: all events were sent before the last fault: it proves nothing")

    # The end

    def finish(self) -> None:
        """Stop the load, let the workers come to its end, and judge."""
        if self.feed is not None:
            self.feed.stop()
        self.wait(self.outside.done, "all events are committed", 2 * PATIENCE)
        self.row.verdict = verdict(self.outside)
        self.row.notes["events"] = self.row.verdict.events
        if self.endings[RESTART]:
            self.row.notes["ended with 75"] = self.endings[RESTART]

    def close(self) -> None:
        """Leave nothing running."""
        if self.feed is not None:
            self.feed.stop()
        self.watch.stop()
        for worker in [*self.workers, *self.leaving]:
            worker.kill()


def partitions_of(worker: RunningWorker) -> set[int]:
    """The partitions that a worker says it works on."""
    return {int(labels[0]) for (name, labels) in worker.metrics() if name == "streamseg_partition_clock_seconds"}


@dataclass(frozen=True, slots=True)
class Grounds:
    """What rows are run on."""

    kafka: str
    redis_url: str
    directory: Path
    seed: int
    short: bool

    @contextmanager
    def stage(
        self, row: Row, kafka: str | None = None, redis_url: str | None = None, outside: str | None = None, **site: Any
    ) -> Iterator[Stage]:
        """An installation of its own for a row."""
        directory = self.directory / row.name
        directory.mkdir(parents=True, exist_ok=True)
        prefix = f"chaos-{row.name.lower()}-{time.time_ns():x}"
        settings = {"definitions": STARTER, "partitions": 4, **site}
        place = Site(kafka or self.kafka, redis_url or self.redis_url, prefix, directory, **settings)
        Site(outside or place.kafka, place.redis_url, prefix, directory, **settings).create()
        stage = Stage(place, row, self.seed, outside, SHORT_SHARE if self.short else 1.0)
        try:
            yield stage
        finally:
            stage.close()

    def between(self, full: tuple[float, float], short: tuple[float, float]) -> tuple[float, float]:
        """How long to wait at least and at most, by the form of the run."""
        return short if self.short else full

    def times(self, full: int, short: int) -> int:
        """How often, by the form of the run."""
        return short if self.short else full
