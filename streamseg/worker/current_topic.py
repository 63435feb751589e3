"""The owner's partition of `segment-current`: whether somebody else wrote there, and who is to be told again.

No fence keeps a worker that lost the partition from this topic, and its lease leaves a gap: it may be paused between
the question and the system call that sends. What it sends then is outdated, and stands last for its customers, until
the owner tells of them again. Only the owner appends here otherwise, so it knows which offset comes next; another one
means that somebody else wrote. Where nothing is appended the owner asks for the end every some seconds, and the
checkpoint says up to where all is right, for the next owner to look at what came after.
"""

from __future__ import annotations

from itertools import islice
from typing import Protocol


class Topics(Protocol):
    """What is asked of the shell."""

    async def ends(self, topic: str, partitions: list[int]) -> dict[int, int]:
        """Give the offsets after the last records."""
        ...

    async def read(self, topic: str, partition: int, start: int, end: int) -> list[tuple[bytes, bytes | None]]:
        """Give keys and values of records."""
        ...


class CurrentTopic:
    """One partition of the compacted topic. Not to be asked by two tasks at once, but for `heard` and `take`."""

    def __init__(self, topics: Topics, topic: str, partition: int) -> None:
        self._topics, self._topic, self._partition = topics, topic, partition
        self._end = 0
        """The offset of the next record, as long as nobody else writes."""
        self._heard = 0
        self._met = 0
        """How often somebody else's records were found."""
        self._wrong_from: int | None = None
        self._outdated: dict[str, None] = {}

    def right(self) -> int:
        """What stands before this offset is either right, or followed by what is."""
        return self._end if self._wrong_from is None else self._wrong_from

    async def begin(self, right: int) -> None:
        """Looks at what was written since all was right before an offset; -1 if that is not known of any."""
        ends = await self._topics.ends(self._topic, [self._partition])
        end = ends[self._partition]
        self._end = min(right, end) if right >= 0 else end
        await self._meet(end)

    async def appended(self, last: int, count: int) -> None:
        """Notes that so many records of ours were appended, and where the last of them stands."""
        if last + 1 == self._end + count:
            self._end = last + 1
        else:
            await self._meet(last + 1)

    def heard(self, end: int) -> None:
        """Notes where the topic ends, or ended some time ago; `look` sees to it."""
        self._heard = end

    async def look(self) -> None:
        """Looks at what others wrote, if there is anything; nothing of ours may be on its way."""
        if self._heard > self._end:
            await self._meet(self._heard)

    async def _meet(self, end: int) -> None:
        """Notes whom the records up to an end are of."""
        if end > self._end:
            found = await self._topics.read(self._topic, self._partition, self._end, end)
            if self._wrong_from is None:
                self._wrong_from = self._end
            self._met += 1
            self._outdated.update((key.decode(), None) for key, _ in found)
        self._end = end

    def take(self, most: int) -> tuple[list[str], int | None]:
        """Some customers to be told again, and, if these are the last ones, what to call `mended` with after it."""
        if self._wrong_from is None:
            return [], None
        customers = list(islice(self._outdated, most))
        for customer in customers:
            del self._outdated[customer]
        return customers, None if self._outdated else self._met

    def mended(self, met: int) -> None:
        """Notes that all customers were told again of whom records had been found until then."""
        if met == self._met:
            self._wrong_from = None
