"""What Redis is told of customers, whichever kind of Redis it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from streamseg.core.units import Instant, day_of, parse_instant

MOVES_KEPT_SECONDS = 400 * 86_400

Counts = Mapping[str, Mapping[str, int]]
"""Customers by segment, for each scheme."""


class Move(NamedTuple):
    """A change as the counters see it; no segment is an empty text."""

    version: int
    scheme: str
    origin: str
    target: str
    at: Instant
    offset: int | None = None
    """Where in the changelog it stands; None if at the end of what it is told with."""

    @property
    def day(self) -> str:
        """The scheme and the day (UTC), as the key of the day's moves has them."""
        return f"{self.scheme}:{day_of(self.at)}"

    @property
    def pair(self) -> str:
        """From where to where."""
        return f"{self.origin}>{self.target}"


class Shown(NamedTuple):
    """How far Redis is, as offsets of the changelog: it knows what is in the records before them."""

    assignments: int
    forecasts: int


class Writer(NamedTuple):
    """Who shows an assignment: the owner of a partition, since the epoch in which it took it over."""

    partition: int
    epoch: int


class Entry(NamedTuple):
    """A customer's assignment to be shown."""

    customer: str
    version: int
    updated_at: str
    schemes: Mapping[str, Mapping[str, Any]]
    moves: list[Move]
    caused: Instant | None
    """The time of the event that changed it, for the lag; None if no event did."""
    writer: Writer

    def fields(self) -> tuple[list[str], list[str]]:
        """The fields of the customer's hash and their values in turn, and the fields that it must not have."""
        given, gone = ["version", str(self.version), "updated_at", self.updated_at], []
        for scheme, shown in self.schemes.items():
            given += [scheme, shown["segment"], f"{scheme}.since", shown["since"]]
            for name in ("next_change_at", "next_segment"):
                if shown[name] is None:
                    gone.append(f"{scheme}.{name}")
                else:
                    given += [f"{scheme}.{name}", shown[name]]
        return given, gone


class PackedEntry(NamedTuple):
    """The same as the compiled core makes it: packed for the script of a single server (redis_server.py)."""

    data: bytes
    caused: Instant | None
    customer: str


def unpacked(entry: Entry | PackedEntry) -> Entry:
    """An entry for another kind of Redis."""
    if isinstance(entry, Entry):
        return entry
    customer, version, fields, _, segments, moves, *writer = msgspec.msgpack.decode(entry.data)
    texts = dict(zip(fields[::2], fields[1::2], strict=True))
    schemes = {
        scheme: {
            "segment": segment,
            "since": texts[f"{scheme}.since"],
            "next_change_at": texts.get(f"{scheme}.next_change_at"),
            "next_segment": texts.get(f"{scheme}.next_segment"),
        }
        for scheme, segment in zip(segments[::2], segments[1::2], strict=True)
    }
    told = [_move(*move) for move in moves]
    return Entry(customer, version, texts["updated_at"], schemes, told, entry.caused, Writer(*writer))


def _move(version: int, day: str, pair: str) -> Move:
    scheme, _, date = day.rpartition(":")
    origin, _, target = pair.partition(">")
    return Move(version, scheme, origin, target, parse_instant(f"{date}T00:00:00Z"))


class Parcel(NamedTuple):
    """What one group of a partition has for Redis; parcels of a partition stand in the order of the changelog."""

    partition: int
    shown: Shown
    """How far Redis is after it."""
    entries: list[Entry | PackedEntry]
    whole: str
    """The identity of the Redis that then knows all customers of the partition; empty if none does."""
    counts: Counts
    """The customers of the partition, after it."""


class Store(Protocol):
    """A kind of Redis. Every method may raise what RedisView takes for a failure, and may be repeated."""

    async def identify(self) -> str | None:
        """Which Redis it is, and which of its lives; None while somebody deletes the view."""

    async def show(self, entries: Sequence[Entry | PackedEntry]) -> tuple[int, int] | None:
        """Shows assignments; returns how many were written, and for how many a newer one was there.

        None: it is not the Redis that was identified; nothing, or not all, was written.
        """

    async def count(self, parcels: Sequence[Parcel]) -> bool:
        """Brings the counters to where they must be after these, which were shown; False as None above."""

    async def close(self) -> None:
        """Closes the connections."""
