"""What waits for Redis, and in which order it is written."""

from __future__ import annotations

from streamseg.worker.redis_entry import PackedEntry, Parcel, Shown
from streamseg.worker.redis_view import Entries, Waiting


def waiting(*entries: tuple[str, bytes, int | None]) -> Waiting:
    packed = [PackedEntry(data, caused, customer) for customer, data, caused in entries]
    return Waiting(Parcel(0, Shown(0, 0), list(packed), "", {}), len(packed))


def taken(entries: Entries) -> list[bytes]:
    found = []
    while some := entries.take():
        found += [entry.data for entry, _ in some if isinstance(entry, PackedEntry)]
    return found


def test_whom_an_event_has_moved_is_shown_before_those_whom_only_time_has_moved() -> None:
    entries = Entries()
    entries.add(waiting(*((f"c{number}", b"time", None) for number in range(1_000))))
    entries.add(waiting(("anna", b"event", 5)))
    assert taken(entries) == [b"event", *[b"time"] * 1_000]


def test_what_waits_of_a_customer_overtakes_with_it_and_keeps_its_order() -> None:
    entries = Entries()
    entries.add(waiting(("berta", b"b1", None), ("anna", b"a1", None)))
    entries.add(waiting(("anna", b"a2", 5)))
    entries.add(waiting(("anna", b"a3", None)))
    assert taken(entries) == [b"a1", b"a2", b"a3", b"b1"]


def test_whom_only_time_has_moved_are_shown_though_events_go_on() -> None:
    entries = Entries()
    entries.add(waiting(("late", b"time", None)))
    entries.add(waiting(*((f"c{number}", b"event", 5) for number in range(10_000))))
    assert b"time" in [entry.data for entry, _ in entries.take() if isinstance(entry, PackedEntry)]
