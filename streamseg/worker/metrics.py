"""Every metric of the product: name, labels, meaning. Base units; no customer id is ever a label."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from streamseg import __version__
from streamseg.core.definitions import Definitions
from streamseg.core.units import Instant
from streamseg.formats.rejection import REASONS

LAGS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600)
SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)

METRIC_NAMES = frozenset(
    f"streamseg_{name}"
    for name in (
        "events_total", "dead_letters_total", "batch_seconds", "event_lag_seconds", "segment_customers",
        "segment_changes_total", "segment_value", "deadline_lateness_seconds", "deadlines_pending",
        "consumer_lag_records", "partition_clock_seconds", "recovery_seconds", "redis_up", "redis_writes_total",
        "redis_backlog", "definitions_info", "build_info", "republished_changes_total", "large_states_total",
        "stale_records_total", "rekeyed_events_total", "recovery_records_total", "recovery_remaining_records",
    )
)  # fmt: skip


class Observed(Protocol):
    """What is read off the partitions when somebody looks."""

    def segments(self) -> Iterable[tuple[str, str, int, int]]:
        """Scheme, segment, customers, worth in minor units; over all partitions of this worker."""

    def partitions(self) -> Iterable[tuple[int, Instant, int]]:
        """Partition, clock, deadlines that wait."""

    def lags(self) -> Iterable[tuple[str, int, int]]:
        """Topic, partition, records not read yet."""


class Lags(Collector):
    """A histogram that takes many seconds at once: a herd's hundred thousand, each by itself, would take a second."""

    def __init__(self, name: str, meaning: str, registry: CollectorRegistry) -> None:
        self._name, self._meaning = name, meaning
        self._counts = [0] * (len(LAGS) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, lags: list[float]) -> None:
        """Takes lags, in seconds."""
        counts = self._counts
        for lag in lags:
            counts[bisect_left(LAGS, lag)] += 1
        self._sum += sum(lags)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family: each bucket counts what is as much as its bound or less."""
        bounds = map(floatToGoString, (*LAGS, float("inf")))
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._meaning, buckets, self._sum)


class Metrics:
    """The metrics of one worker, on a registry of their own."""

    def __init__(self, definitions: Definitions) -> None:
        self.registry = registry = CollectorRegistry()
        self.events = Counter(
            "streamseg_events_total",
            "Events read, by what became of them.",
            ["topic", "type_class", "result"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "streamseg_dead_letters_total", "Events rejected, by reason.", ["reason"], registry=registry
        )
        for reason in sorted(REASONS):
            self.dead_letters.labels(reason)
        self.batch_seconds = Histogram(
            "streamseg_batch_seconds", "Time to fold one group of events.", buckets=SHORT, registry=registry
        )
        self.event_lag = Lags(
            "streamseg_event_lag_seconds", "From an event's time to its customer's new segment in Redis.", registry
        )
        self.changes = Counter(
            "streamseg_segment_changes_total",
            "Changes of segments; a first one has an empty from.",
            ["scheme", "from", "to", "reason"],
            registry=registry,
        )
        self.deadline_lateness = Lags(
            "streamseg_deadline_lateness_seconds",
            "From the instant time changed a segment to its evaluation.",
            registry,
        )
        self.recovery_seconds = Gauge(
            "streamseg_recovery_seconds", "How long the last take-over of partitions took.", registry=registry
        )
        self.recovery_records = Counter(
            "streamseg_recovery_records_total", "Changelog records read at take-overs.", registry=registry
        )
        self.recovery_remaining = Gauge(
            "streamseg_recovery_remaining_records",
            "Offsets of the changelog that a take-over still has to read; compaction has emptied some.",
            registry=registry,
        )
        self.redis_up = Gauge("streamseg_redis_up", "Whether Redis took the last write.", registry=registry)
        self.redis_writes = Counter(
            "streamseg_redis_writes_total",
            "Assignments sent to Redis: written, outdated (a newer one was there), failed (tried again).",
            ["result"],
            registry=registry,
        )
        for result in ("written", "outdated", "failed"):
            self.redis_writes.labels(result)
        self.redis_backlog = Gauge("streamseg_redis_backlog", "Assignments that wait for Redis.", registry=registry)
        self.republished = Counter(
            "streamseg_republished_changes_total",
            "Changes published again at a take-over.",
            registry=registry,
        )
        self.large_states = Counter(
            "streamseg_large_states_total", "State records close to the limit of a record.", registry=registry
        )
        self.stale_records = Counter(
            "streamseg_stale_records_total",
            "State records of workers that had lost their partition; they do not count.",
            registry=registry,
        )
        self.rekeyed = Counter(
            "streamseg_rekeyed_events_total",
            "Events sent on to the partition of their customer, by what was wrong: no key, another key, the partition.",
            ["topic", "why"],
            registry=registry,
        )
        info = Gauge("streamseg_definitions_info", "The active definitions.", ["hash"], registry=registry)
        info.labels(definitions.hash).set(1)
        build = Gauge("streamseg_build_info", "The running version.", ["version"], registry=registry)
        build.labels(__version__).set(1)
        self._scale = 10**definitions.digits

    def observe(self, observed: Observed) -> None:
        """Adds what is read off the partitions at each scrape."""
        self.registry.register(_Observer(observed, self._scale))


class _Observer(Collector):
    def __init__(self, observed: Observed, scale: int) -> None:
        self._observed = observed
        self._scale = scale

    def describe(self) -> Iterable[Metric]:
        """Nothing: the families are only known when asked."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """One family after the other."""
        customers = GaugeMetricFamily(
            "streamseg_segment_customers",
            "Customers of this worker, by segment.",
            labels=["scheme", "segment"],
        )
        value = GaugeMetricFamily(
            "streamseg_segment_value", "Sum of their spend, major units.", labels=["scheme", "segment"]
        )
        for scheme, segment, count, worth in self._observed.segments():
            customers.add_metric([scheme, segment], count)
            value.add_metric([scheme, segment], worth / self._scale)
        clock = GaugeMetricFamily(
            "streamseg_partition_clock_seconds", "The clock of a partition.", labels=["partition"]
        )
        pending = 0
        for partition, instant, deadlines in self._observed.partitions():
            clock.add_metric([str(partition)], instant / 1000)
            pending += deadlines
        lag = GaugeMetricFamily(
            "streamseg_consumer_lag_records", "Records not read yet.", labels=["topic", "partition"]
        )
        for topic, partition, records in self._observed.lags():
            lag.add_metric([topic, str(partition)], records)
        deadlines_pending = GaugeMetricFamily("streamseg_deadlines_pending", "Deadlines that wait.", value=pending)
        yield from (customers, value, clock, lag, deadlines_pending)
