"""How far each partition of the event topics was fetched, handed to the owner, and acknowledged."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from faust.types import TP

from streamseg.core.errors import StreamsegError, TryAgainError


class StartOffsetError(StreamsegError):
    """A partition cannot be read from where its state says it must be."""


class StuckError(TryAgainError):
    """A partition is open and not read."""


class OffsetHoleError(TryAgainError):
    """Records were lost between the consumer and the owner: only a restart can read them again."""


class Reading:
    """One partition of an event topic from its opening to its closing; offsets are of what comes next."""

    __slots__ = ("acked", "epoch", "fetched", "next", "placed", "positioned", "since", "start", "tp")

    def __init__(self, tp: TP, start: int | None) -> None:
        self.tp = tp
        self.start = start
        """The offset the owner asked for; None leaves it to the committed one."""
        self.placed = False
        """Whether the consumer was moved to `fetched`."""
        self.positioned = False
        """Whether what the consumer fetches is what comes next: it was placed, and the flow goes on."""
        self.since = time.monotonic()
        self.epoch = 0
        """Counts the positionings: a batch from before the last one is fetched again, so it is void."""
        self.next: int | None = None
        """The next offset to hand to the owner; None before the first positioning."""
        self.fetched = -1
        self.acked = -1

    @property
    def waited(self) -> float:
        """For how many seconds it was not read; 0 while it is."""
        return 0.0 if self.positioned else time.monotonic() - self.since

    @property
    def in_flight(self) -> bool:
        """Whether the owner has records that it did not acknowledge yet."""
        return self.next is not None and self.acked < self.next

    @property
    def committable(self) -> int | None:
        """The offset that may be committed: everything below it was acknowledged. None before any was."""
        return self.acked if self.acked >= 0 else None

    def begin(self, committed: int | None, earliest: int, end: int) -> int:
        """Choose where to start: the owner's offset, else the committed one, else the earliest.

        Raises StartOffsetError when that lies beyond the end of the partition.
        """
        wanted = self.start if self.start is not None else committed
        if wanted is not None and wanted > end:
            raise StartOffsetError(
                f"{self.tp.topic}/{self.tp.partition} was read up to offset {wanted} but ends at {end}: the "
                "topic was deleted and created again, or it lost its tail. Start with a new group and a "
                "new changelog"
            )
        self.next = max(earliest, wanted if wanted is not None else earliest)
        self.acked = self.next
        return self.next

    def place(self) -> None:
        """Say that the consumer was moved to the next offset to hand over."""
        assert self.next is not None
        self.fetched = self.next
        self.epoch += 1
        self.placed = True

    def resume(self) -> None:
        """Say that the flow goes on; counts only where the consumer was placed."""
        self.positioned = self.placed

    def suspend(self) -> None:
        """Say that the consumer may move: nothing it fetches counts until it is placed and resumed again."""
        self.placed = self.positioned = False
        self.since = time.monotonic()

    def hand(self, start: int, end: int) -> None:
        """Note that a batch is handed over that was fetched at `start` and ends before `end`.

        Raises OffsetHoleError when the batch before it never arrived.
        """
        if start != self.next:
            raise OffsetHoleError(
                f"{self.tp.topic}/{self.tp.partition}: expected the batch at offset {self.next}, got the one "
                f"at {start}: batches were lost inside the worker. It stops, and a restart reads them again"
            )
        self.next = end

    def skip_to(self, position: int) -> None:
        """Follow the consumer over offsets that hold no records for us (markers of transactions)."""
        if not self.positioned or self.next != self.fetched or position <= self.fetched:
            return
        if self.acked == self.next:
            self.acked = position
        self.next = self.fetched = position

    def acknowledge(self, end: int) -> None:
        """Note that everything below `end` is done."""
        self.acked = max(self.acked, end)


class Readings:
    """The readings of all partitions that are open."""

    def __init__(self, topics: Iterable[str]) -> None:
        self.topics = frozenset(topics)
        self._readings: dict[TP, Reading] = {}

    def __iter__(self) -> Iterator[Reading]:
        return iter(list(self._readings.values()))

    def __contains__(self, tp: object) -> bool:
        return tp in self._readings

    def get(self, tp: TP) -> Reading | None:
        """Give the reading of a partition of an event topic; None when it is not open."""
        return self._readings.get(tp)

    def open(self, partition: int, starts: Mapping[str, int]) -> None:
        """Begin to read a partition of every event topic; `starts` as the owner's `open` gave it.

        Raises StartOffsetError for a topic that is not read.
        """
        if unknown := set(starts) - self.topics:
            raise StartOffsetError(f"start offsets for topics that are not read: {', '.join(sorted(unknown))}")
        for topic in self.topics:
            tp = TP(topic, partition)
            self._readings[tp] = Reading(tp, starts.get(topic))

    def close(self, partition: int) -> None:
        """Forget a partition: what is still acknowledged for it later has no effect."""
        for topic in self.topics:
            self._readings.pop(TP(topic, partition), None)

    @property
    def in_flight(self) -> bool:
        """Whether the owner has records that it did not acknowledge yet, in any partition."""
        return any(reading.in_flight for reading in self._readings.values())
