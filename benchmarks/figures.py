"""What a run has measured, and what several runs of one name come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

CLOCK_TICK = 0.01


@dataclass(frozen=True, slots=True)
class Figures:
    """One run. Memory in MB: the peaks of the resident sets of all its processes, brokers not among them."""

    events_per_second: float
    events_per_cpu_second: float
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a whole run took. Seconds by the clock, and of CPU."""

    events: int
    seconds: float
    cpu: float
    peak_mb: float

    def beyond(self, start: Cost) -> Figures:
        """Figures of what it did more than a run that ended soon: what both take to start drops out."""
        events = self.events - start.events
        return figures(events, self.seconds - start.seconds, self.cpu - start.cpu, self.peak_mb)


def figures(events: float, seconds: float, cpu: float, peak_mb: float) -> Figures:
    """Figures of so many events."""
    return Figures(events / max(seconds, CLOCK_TICK), events / max(cpu, CLOCK_TICK), peak_mb)


def middle(runs: Sequence[Figures]) -> dict[str, int]:
    """The median of each figure."""
    columns = zip(*(asdict(run).values() for run in runs), strict=True)
    return {name: round(median(column)) for name, column in zip(asdict(runs[0]), columns, strict=True)}


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times ours: median, least and greatest of the rounds."""

    middle: float
    least: float
    greatest: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """The ratio in each round; machines drift, and what runs side by side drifts together."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return Ratio(median(ratios), min(ratios), max(ratios))
