"""What waits for Redis, and in which order it is written."""

from __future__ import annotations

from streamseg.worker.redis_entry import PackedEntries, PackedEntry, Parcel, Piece, Shown
from streamseg.worker.redis_view import Pieces, Waiting


def waiting(*entries: tuple[str, bytes, int | None]) -> Waiting:
    return parcel(*(PackedEntry(data, 1, caused, customer) for customer, data, caused in entries))


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
    entries.add(waiting(*((f"c{number}", b"time", None) for number in range(1_000))))
    entries.add(waiting(("anna", b"event", 5)))
    assert taken(entries) == [b"event", *[b"time"] * 1_000]


def test_what_waits_of_a_customer_overtakes_with_it_and_keeps_its_order() -> None:
    entries = Pieces()
    entries.add(waiting(("berta", b"b1", None), ("anna", b"a1", None)))
    entries.add(waiting(("anna", b"a2", 5)))
    entries.add(waiting(("anna", b"a3", None)))
    assert taken(entries) == [b"a1", b"a2", b"a3", b"b1"]


def test_whom_only_time_has_moved_are_shown_though_events_go_on() -> None:
    entries = Pieces()
    entries.add(waiting(("late", b"time", None)))
    entries.add(waiting(*((f"c{number}", b"event", 5) for number in range(10_000))))
    assert b"time" in [entry.data for entry, _ in entries.take() if isinstance(entry, PackedEntry)]


def test_forecasts_are_shown_after_the_changes_that_wait_of_their_customers() -> None:
    entries = Pieces()
    entries.add(waiting(*((f"c{number}", b"event", 5) for number in range(1_000)), ("anna", b"a1", 5)))
    entries.add(forecasts(b"ahead", "anna", "berta"))
    found = taken(entries)
    assert found.index(b"a1") < found.index(b"ahead")


def test_a_later_forecast_is_never_shown_before_an_earlier_one() -> None:
    entries = Pieces()
    entries.add(waiting(*((f"c{number}", b"time", None) for number in range(1_000))))
    entries.add(forecasts(b"ahead 1", "berta"))
    entries.add(waiting(("anna", b"a1", 5)))
    entries.add(forecasts(b"ahead 2", "anna", "berta"))
    assert taken(entries)[-3:] == [b"ahead 1", b"a1", b"ahead 2"]


def test_many_forecasts_wait_for_their_turn_as_customers_whom_time_has_moved_do() -> None:
    entries = Pieces()
    for number in range(3):
        entries.add(forecasts(b"ahead %d" % number, *(f"c{number}-{other}" for other in range(300))))
    entries.add(waiting(("anna", b"event", 5)))
    assert [len(entries.take()) for _ in range(3)] == [3, 1, 0]
