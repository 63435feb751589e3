"""What the Faust shell asks of the part that owns the customers of a partition."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from streamseg.worker.fetches import EventRecord, Record

Ack = Callable[[], Awaitable[object]]
"""Acknowledges everything up to the last record it came with; to be called in order within a partition."""


class Loader(Protocol):
    """Takes one partition of the changelog in, oldest record first."""

    def look_ahead(self, last: Sequence[Record]) -> None:
        """Look at the last records, before all of them are taken, the last ones among them."""
        ...

    @property
    def misled(self) -> bool:
        """Whether the look ahead turned out to be wrong: a fresh loader has to take everything, without it."""
        ...

    def take(self, taken: Sequence[Record]) -> None:
        """Take the next changelog records."""
        ...

    def drop(self) -> None:
        """Forget all: another loader takes its place."""
        ...


Loading = TypeVar("Loading", bound=Loader)


class Owner(Protocol[Loading]):
    """Owns the state of the partitions this worker was assigned. Whatever it raises ends the process."""

    async def start(self) -> None:
        """Start what runs beside the partitions; called once, on the app's loop, before any is opened."""
        ...

    async def stop(self) -> None:
        """Stop that; called once, after the last partition was closed."""
        ...

    def loader(self, partition: int) -> Loading:
        """Give a fresh, empty loader for a partition that is about to be taken over."""
        ...

    def loading(self, records: int, left: int) -> None:
        """Hear how a take-over goes on: so many more records were read, and so many offsets are left."""
        ...

    def taken_over(self, seconds: float) -> None:
        """Hear that all partitions that were assigned are open, and how long that took."""
        ...

    async def fence(self, partition: int, loader: Loading, end: int) -> int:
        """Shut out whoever may still write to a partition whose changelog was read up to (excluding) `end`.

        Called before `open`. May append records; returns the offset up to which (excluding) the loader has to be
        given records before the partition is opened, at least `end`.
        """
        ...

    async def open(self, partition: int, loader: Loading, end: int) -> Mapping[str, int]:
        """Start to own a partition whose changelog was read up to (excluding) offset `end`.

        Returns, for each event topic, the offset to start reading from; a topic that is absent starts at the
        committed offset, or at the earliest one. May send records through the log and wait for them.
        """
        ...

    async def close(self, partition: int) -> None:
        """Stop to own a partition: finish what is in flight within 5 seconds, then drop it."""
        ...

    def apply(self, partition: int, key: bytes, value: bytes | None, offset: int) -> None:
        """Take a changelog record of an open partition that was appended after it was opened, by whomever."""
        ...

    def arrived(self, topic: str, partition: int, records: Sequence[EventRecord], ack: Ack) -> None:
        """Take the next events of an open partition, in offset order. Must not block.

        `ack` may be called late, even after `close`: it is harmless then.
        """
        ...

    @property
    def writing(self) -> bool:
        """Whether anything is being written for a partition, or waits to be."""
        ...

    def full(self, partition: int) -> bool:
        """Say whether so many events wait that no more shall be fetched for this partition for now."""
        ...
