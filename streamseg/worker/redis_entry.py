"""What Redis is told of customers, whichever kind of Redis it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, repeat
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

    def fields(self) -> tuple[list[str], list[str], list[str]]:
        """Fields of the customer's hash and their values in turn, and the fields that it must not have.

        Those first that may move while the version stands, then those that may not.
        """
        moving, fixed, gone = ["updated_at", self.updated_at], ["version", str(self.version)], []
        for scheme, shown in self.schemes.items():
            fixed += [scheme, shown["segment"], f"{scheme}.since", shown["since"]]
            for name in ("next_change_at", "next_segment"):
                if shown[name] is None:
                    gone.append(f"{scheme}.{name}")
                else:
                    moving += [f"{scheme}.{name}", shown[name]]
        return moving, fixed, gone


class PackedEntry(NamedTuple):
    """The same of whom time alone has moved, as the compiled core packs it for the script of a single server."""

    data: bytes
    elements: int
    customer: str


class PackedEntries(NamedTuple):
    """Many of them, one after another: of customers whom events have moved, or nothing but a forecast."""

    data: bytes
    elements: int
    customers: list[str]
    caused: Sequence[Instant] = ()
    """The times of these events; none if there were none."""


Piece = Entry | PackedEntry | PackedEntries
"""What waits as one."""


def customers(piece: Piece) -> list[str]:
    """Whom a piece shows."""
    return piece.customers if isinstance(piece, PackedEntries) else [piece.customer]


def size(piece: Piece) -> int:
    """How many customers a piece shows."""
    return len(customers(piece))


def causes(piece: Piece) -> Sequence[Instant]:
    """The times of the events that moved them."""
    if isinstance(piece, PackedEntry):
        return ()
    if isinstance(piece, PackedEntries):
        return piece.caused
    return () if piece.caused is None else (piece.caused,)


def unpacked(piece: Piece) -> list[Entry]:
    """Entries for another kind of Redis."""
    if isinstance(piece, Entry):
        return [piece]
    elements = iter(msgspec.msgpack.decode(array_head(piece.elements) + piece.data))
    return [_entry(elements, caused) for caused in causes(piece) or repeat(None, size(piece))]


def array_head(length: int) -> bytes:
    """What stands before the elements of a MessagePack array."""
    return b"\xdd" + length.to_bytes(4, "big")


def _entry(elements: Iterator[Any], caused: Instant | None) -> Entry:
    customer, version, partition, epoch, *sizes = islice(elements, 9)
    moving, fixed, _, segments, moves = (list(islice(elements, size)) for size in sizes)
    texts = dict(_pairs(moving + fixed))
    schemes = {
        scheme: {
            "segment": segment,
            "since": texts[f"{scheme}.since"],
            "next_change_at": texts.get(f"{scheme}.next_change_at"),
            "next_segment": texts.get(f"{scheme}.next_segment"),
        }
        for scheme, segment in _pairs(segments)
    }
    told = [_move(*move) for move in zip(*[iter(moves)] * 3, strict=True)]
    return Entry(customer, version, texts["updated_at"], schemes, told, caused, Writer(partition, epoch))


def _pairs(texts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(texts[::2], texts[1::2], strict=True)


def _move(version: int, day: str, pair: str) -> Move:
    scheme, _, date = day.rpartition(":")
    origin, _, target = pair.partition(">")
    return Move(version, scheme, origin, target, parse_instant(f"{date}T00:00:00Z"))


class Parcel(NamedTuple):
    """What one group of a partition has for Redis; parcels of a partition stand in the order of the changelog."""

    partition: int
    shown: Shown
    """How far Redis is after it."""
    pieces: list[Piece]
    whole: str
    """The identity of the Redis that then knows all customers of the partition; empty if none does."""
    counts: Counts
    """The customers of the partition, after it."""


class Store(Protocol):
    """A kind of Redis. Every method may raise what RedisView takes for a failure, and may be repeated."""

    async def identify(self) -> str | None:
        """Which Redis it is, and which of its lives; None while somebody deletes the view."""

    async def show(self, pieces: Sequence[Piece]) -> tuple[int, int] | None:
        """Shows assignments; returns how many were written, and for how many a newer one was there.

        None: it is not the Redis that was identified; nothing, or not all, was written.
        """

    async def count(self, parcels: Sequence[Parcel]) -> bool:
        """Brings the counters to where they must be after these, which were shown; False as None above."""

    async def close(self) -> None:
        """Closes the connections."""
