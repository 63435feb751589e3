"""What the demo feeds: its lines, the partitions they go to, and when each is due."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from aiokafka.partitioner import DefaultPartitioner

from streamseg import cdnow
from streamseg.core.units import Instant, parse_instant
from streamseg.shop import Shop

PARTITIONS = 4
Line = tuple[str, bytes]
"""Customer id, which is the record's key, and JSON."""

_TIME = re.compile(rb'"time":"([^"]{1,40})"')
_MADE_UP = Shop(seed=1, customers=8_000, events=100_000)
_partition = DefaultPartitioner()


@dataclass(frozen=True, slots=True)
class Source:
    """Events to feed, in order of arrival."""

    title: str
    """The headline of the view."""
    summary: str
    """What it is, to be put into a sentence."""
    lines: Callable[[], Iterator[Line]]
    """The same lines at every call. Raises InputError if they cannot be had."""


SOURCES = {
    "cdnow": Source(
        "real purchases of 1997 and 1998, as they happened",
        f"{cdnow.PURCHASES:,} real purchases of 1997 and 1998 (the CDNOW data set)",
        cdnow.lines,
    ),
    "synthetic": Source(
        "a made-up shop, with late, doubled and malformed events",
        f"{_MADE_UP.events:,} events of a made-up shop, some of them late, doubled or malformed,",
        _MADE_UP.lines,
    ),
}


def partition_of(customer: str) -> int:
    """Tell the partition of a customer's events: by murmur2, as Java's clients do."""
    return int(_partition(customer.encode(), range(PARTITIONS), ()))


def timetable(lines: Sequence[Line]) -> Sequence[float]:
    """Tell when each line is due, as a part (0 to 1) of the whole feed; never going back.

    Half by the events' own time and half by their number: by time alone the busiest months would rush by in
    seconds, by number alone the quiet ones would.
    """
    moments = moments_of(lines)
    first, span = moments[0], max(moments[-1] - moments[0], 1)
    return array("d", ((at - first) / span / 2 + place / len(lines) / 2 for place, at in enumerate(moments)))


def moments_of(lines: Sequence[Line]) -> Sequence[Instant]:
    """Tell the latest event time so far at each line. What has no time takes the one before it."""
    moments, latest = array("q"), 0
    for _, data in lines:
        latest = max(latest, _moment(data))
        moments.append(latest)
    return moments


def _moment(data: bytes) -> Instant:
    found = _TIME.search(data)
    try:
        return parse_instant(found[1].decode()) if found else 0
    except ValueError:
        return 0
