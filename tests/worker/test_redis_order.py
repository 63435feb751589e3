"""What waits for Redis, and in which order it is written."""

from __future__ import annotations

from streamseg.worker.redis_entry import PackedEntries, PackedEntry, Parcel, Piece, Shown
from streamseg.worker.redis_view import Pieces, Waiting


def moved_by_time(data: bytes, *customers: str) -> Waiting:
    return parcel(*(PackedEntry(data, 1, customer) for customer in customers))


def moved_by_events(data: bytes, *customers: str) -> Waiting:
    return parcel(PackedEntries(data, 1, list(customers), [5] * len(customers)))


def some(count: int) -> list[str]:
    return [f"c{number}" for number in range(count)]


def parcel(*pieces: Piece) -> Waiting:
    return Waiting(Parcel(0, Shown(0, 0), list(pieces), "", {}), len(pieces))


def forecasts(data: bytes, *customers: str) -> Waiting:
    """Of customers whom nothing has moved."""
    return parcel(PackedEntries(data, 1, list(customers)))


def taken(entries: Pieces) -> list[bytes]:
    found = []
    while some := entries.take():
        found += [piece.data for piece, _ in some if isinstance(piece, PackedEntry | PackedEntries)]
    return found


def test_whom_an_event_has_moved_is_shown_before_those_whom_only_time_has_moved() -> None:
    entries = Pieces()
    entries.add(moved_by_time(b"time", *some(1_000)))
    entries.add(moved_by_events(b"event", "anna"))
    assert taken(entries) == [b"event", *[b"time"] * 1_000]


def test_what_waits_of_a_customer_overtakes_with_it_and_keeps_its_order() -> None:
    entries = Pieces()
    entries.add(moved_by_time(b"b1", "berta"))
    entries.add(moved_by_time(b"a1", "anna"))
    entries.add(moved_by_events(b"a2", "clara", "anna"))
    entries.add(moved_by_time(b"a3", "anna"))
    assert taken(entries) == [b"a1", b"a2", b"b1", b"a3"]


def test_whom_only_time_has_moved_are_shown_though_events_go_on() -> None:
    entries = Pieces()
    entries.add(moved_by_time(b"time", "late"))
    for customer in some(10_000):
        entries.add(moved_by_events(b"event", customer))
    assert b"time" in [entry.data for entry, _ in entries.take() if isinstance(entry, PackedEntry)]


def test_whom_only_time_has_moved_waits_for_what_events_had_moved_before() -> None:
    entries = Pieces()
    for customer in some(1_000):
        entries.add(moved_by_events(b"event", customer))
    entries.add(moved_by_events(b"a1", "anna"))
    entries.add(moved_by_time(b"a2", "anna"))
    for customer in some(1_000):
        entries.add(moved_by_events(b"event", customer))
    found = taken(entries)
    assert found.index(b"a1") < found.index(b"a2") < 1_500


def test_forecasts_are_shown_after_the_changes_that_wait_of_their_customers() -> None:
    entries = Pieces()
    for customer in some(1_000):
        entries.add(moved_by_events(b"event", customer))
    entries.add(moved_by_events(b"a1", "anna"))
    entries.add(forecasts(b"ahead", "anna", "berta"))
    found = taken(entries)
    assert found.index(b"a1") < found.index(b"ahead")


def test_forecasts_are_shown_after_a_change_by_time_that_an_event_takes_along() -> None:
    entries = Pieces()
    for customer in some(1_000):
        entries.add(moved_by_events(b"event", customer))
    entries.add(moved_by_time(b"a1", "anna"))
    for customer in some(1_000):
        entries.add(moved_by_events(b"event", customer))
    entries.add(forecasts(b"ahead", "anna", "berta"))
    entries.add(moved_by_events(b"a2", "anna"))
    assert [data for data in taken(entries) if data != b"event"] == [b"a1", b"a2", b"ahead"]


def test_a_later_forecast_is_never_shown_before_an_earlier_one() -> None:
    entries = Pieces()
    entries.add(moved_by_time(b"time", *some(1_000)))
    entries.add(forecasts(b"ahead 1", "berta"))
    entries.add(moved_by_events(b"a1", "anna"))
    entries.add(forecasts(b"ahead 2", "anna", "berta"))
    assert [data for data in taken(entries) if data != b"time"] == [b"a1", b"ahead 1", b"ahead 2"]


def test_many_forecasts_wait_for_their_turn_as_customers_whom_time_has_moved_do() -> None:
    entries = Pieces()
    for number in range(3):
        entries.add(forecasts(b"ahead %d" % number, *(f"c{number}-{other}" for other in range(300))))
    entries.add(moved_by_events(b"event", "anna"))
    assert [len(entries.take()) for _ in range(3)] == [3, 1, 0]
