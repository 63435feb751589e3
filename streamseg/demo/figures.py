"""The figures of a running demo: polled from Kafka and the worker, put together for the view."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from streamseg.core.definitions import Definitions
from streamseg.core.units import Instant
from streamseg.demo.changes import Changes
from streamseg.demo.links import Links
from streamseg.demo.source import PARTITIONS
from streamseg.demo_view import DemoState, SchemeFigures, SegmentFigures

CHANGE_SECONDS = 5.0
_POLL_SECONDS = 0.5
_TIP_SECONDS = 7.0

TIPS = (
    "Most changes come from time passing (shown in blue): nobody sent an event, a customer was just quiet.",
    "Everything here is real: a Kafka broker, the streamseg worker as its own process, and Redis.",
    "Segments are those of streamseg/definitions/starter.yaml: a few lines of YAML each, yours to change.",
    "Redis holds every customer's segment too, and exact counters: one script moves the customer and both.",
    "At the end all of this is compared with a replay without Kafka, field by field.",
)

Counts = Mapping[tuple[str, ...], int]
"""By scheme and segment."""


@dataclass(frozen=True, slots=True)
class _Moment:
    """What was known at a time of the monotonic clock."""

    at: float
    events: int
    counts: Counts


class Figures:
    """What is known so far. `poll` keeps it fresh; whoever runs the demo sets the plain attributes."""

    def __init__(self, definitions: Definitions, changes: Changes, title: str, begin: Instant) -> None:
        self.progress = 0.0
        self.restarts = 0
        self.phase = ""
        """What is happening; without it, tips take turns."""
        self.worker_answers = True
        self.finished: float | None = None
        """Seconds until all events were applied, once they are."""
        self.applied = 0
        """Events that the worker has taken in."""
        self._definitions = definitions
        self._changes = changes
        self._title = title
        self._started = time.monotonic()
        self._simulated = begin
        self._values: Counts = {}
        self._counts: Counts = {}
        self._history: deque[_Moment] = deque([_Moment(self._started, 0, {})])

    def start(self) -> None:
        """The feed begins now."""
        self._started = time.monotonic()
        self._history = deque([_Moment(self._started, 0, {})])

    def finish(self, events: int) -> None:
        """All events are applied, so many."""
        self.applied = events
        self.finished = time.monotonic() - self._started

    async def poll(self, links: Links) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look(links)
            await asyncio.sleep(_POLL_SECONDS)

    async def look(self, links: Links) -> None:
        """Look once. A worker that does not answer leaves the last figures standing."""
        arrived = sum((await links.events()).values())
        try:
            self._read(await links.metrics(), arrived)
            self.worker_answers = True
        except (aiohttp.ClientError, TimeoutError):
            self.worker_answers = False
        self._remember()

    def _read(self, metrics: str, arrived: int) -> None:
        """Take over what the metrics say; a worker that has not all partitions yet does not know enough."""
        found = _samples(metrics)
        clocks, lags = found["partition_clock_seconds"], found["consumer_lag_records"]
        if min(len(clocks), len(lags)) < PARTITIONS:
            return
        scale = 10**self._definitions.digits
        self._counts = {place: round(count) for place, count in found["segment_customers"].items()}
        self._values = {place: round(value * scale) for place, value in found["segment_value"].items()}
        self._simulated = max(self._simulated, round(1000 * min(clocks.values())))
        self.applied = max(self.applied, arrived - round(sum(lags.values())))

    def _remember(self) -> None:
        now = time.monotonic()
        self._history.append(_Moment(now, self.applied, self._counts))
        while len(self._history) > 2 and self._history[1].at <= now - CHANGE_SECONDS:
            self._history.popleft()

    def state(self) -> DemoState:
        """Put it together."""
        elapsed = time.monotonic() - self._started if self.finished is None else self.finished
        return DemoState(
            progress=self.progress,
            events=self.applied,
            events_per_second=self._speed(elapsed),
            simulated=self._simulated,
            elapsed=elapsed,
            schemes=tuple(self._scheme(place) for place in range(len(self._definitions.schemes))),
            moves=self._changes.latest(),
            moves_total=self._changes.total,
            migrations=self._changes.migrations(),
            restarts=self.restarts,
            change_seconds=CHANGE_SECONDS,
            currency=self._definitions.currency,
            tip=self.phase or TIPS[int(elapsed / _TIP_SECONDS) % len(TIPS)],
            title=self._title,
        )

    def _speed(self, elapsed: float) -> float:
        """Events a second: of the last seconds while it goes on, of the whole when it is over."""
        if self.finished is not None:
            return self.applied / max(elapsed, 0.001)
        first, last = self._history[0], self._history[-1]
        return (last.events - first.events) / max(last.at - first.at, 0.001)

    def _scheme(self, place: int) -> SchemeFigures:
        scheme = self._definitions.schemes[place].scheme
        before = self._history[0].counts
        segments = (
            SegmentFigures(
                name=name,
                customers=self._counts.get((scheme.name, name), 0),
                value=self._values.get((scheme.name, name), 0),
                change=self._counts.get((scheme.name, name), 0) - before.get((scheme.name, name), 0),
            )
            for name in scheme.names
        )
        return SchemeFigures(name=scheme.name, segments=tuple(segments))


def _samples(metrics: str) -> Mapping[str, Mapping[tuple[str, ...], float]]:
    """Read the samples of all our metrics: by name without prefix, then by the values of the labels."""
    found: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            found[sample.name.removeprefix("streamseg_")][tuple(sample.labels.values())] = sample.value
    return found
