"""Pairs of instants, in microseconds since 1970: when something was due, and when it was seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

LONGEST_US = 3_600_000_000
DIGITS = 3
"""Of which the histogram is exact."""


class Sample(NamedTuple):
    """One thing that was waited for."""

    due: int
    seen: int


class Samples:
    """Samples by what they are of."""

    def __init__(self) -> None:
        self.of: defaultdict[str, list[Sample]] = defaultdict(list)

    def add(self, kind: str, due: int, seen: int) -> None:
        """Takes one."""
        self.of[kind].append(Sample(due, seen))

    def write(self, path: Path) -> None:
        """One line each."""
        with path.open("w") as file:
            file.writelines(f"{kind} {due} {seen}\n" for kind, each in self.of.items() for due, seen in each)

    def read(self, path: Path) -> None:
        """Adds those of a file."""
        with path.open() as file:
            for kind, due, seen in map(str.split, file):
                self.add(kind, int(due), int(seen))


def summary(samples: Iterable[Sample]) -> dict[str, float]:
    """How many there are, and their percentiles in milliseconds, from an HdrHistogram."""
    histogram = HdrHistogram(1, LONGEST_US, DIGITS)
    longest = count = 0
    for due, seen in samples:
        waited = max(1, seen - due)
        histogram.record_value(min(waited, LONGEST_US))
        longest, count = max(longest, waited), count + 1
    percentiles = {name: histogram.get_value_at_percentile(at) for name, at in PERCENTILES.items()} if count else {}
    # A bucket's upper end may be above what is in it.
    told = {name: min(us, longest) / 1000 for name, us in percentiles.items()}
    return {"count": count, **told, "max": longest / 1000}


PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}
