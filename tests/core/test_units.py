"""Time goes on for years, and a worker with it."""

from __future__ import annotations

import sys

import pytest

from streamseg.core.units import DAY, MILLISECONDS, Instant, day_of, format_instant, parse_instant

YEAR = 366 * DAY


def live_through(begin: Instant, end: Instant) -> int:
    """Read and write the time of every hour; gives how many blocks of memory are in use then."""
    for instant in range(begin, end, MILLISECONDS["h"]):
        assert parse_instant(format_instant(instant)) == instant
        assert day_of(instant)
    return sys.getallocatedblocks()


def test_three_years_take_no_more_memory_than_one() -> None:
    after_one = live_through(0, YEAR)
    assert live_through(YEAR, 3 * YEAR) < after_one + 15_000


@pytest.mark.parametrize("text", ["2026-11-21T12:00:00Z123Z", "2026-11-21T12:00:00.Z"])
def test_what_was_read_before_makes_no_time_of_what_is_none(text: str) -> None:
    parse_instant("2026-11-21T12:00:00Z")
    parse_instant("2026-11-21T12:00:00.123Z")
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_instant(text)
