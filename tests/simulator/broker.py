"""A Kafka that does what the real one promises its producers and consumers, and nothing more."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streamseg.worker.log import Item
from tests.simulator.loop import SimulatedLoop

TopicPartition = tuple[str, int]
LOADS: TopicPartition = "loads", 0
"""What is asked for to load a changelog, as if it were sent to a partition."""
LOOKS: TopicPartition = "looks", 0
"""The same of whoever looks at what somebody else has written to another topic."""


class Record(NamedTuple):
    """A record as a consumer gets it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    arrival: int
    """The how-manieth record it was of all topics: what was there before what."""
    timestamp: int = 0


class RefusedError(Exception):
    """The broker takes a batch neither now nor later."""


class UnansweredError(Exception):
    """Nobody knows whether the broker took a batch."""


class Metadata(NamedTuple):
    """What an acknowledgement says."""

    offset: int


class Batch:
    """Records that go to the broker together: whole or not at all."""

    def __init__(self, most: int) -> None:
        self.items: list[Item] = []
        self._most = most

    def append(self, *, timestamp: int, key: bytes | None, value: bytes | None, headers: Any) -> Any:
        """Take a record, or give None if it is full."""
        del timestamp
        if len(self.items) >= self._most:
            return None
        self.items.append((key, value, headers))
        return self

    def close(self) -> None:
        """Nothing more comes."""

    def record_count(self) -> int:
        """How many records there are."""
        return len(self.items)


@dataclass(slots=True, eq=False)
class Sending:
    """A batch on its way to the broker."""

    items: list[Item]
    due: float
    acknowledged: asyncio.Future[Metadata]
    asked: bool = False
    """The worker was asked already whether it has a lease, and had one."""
    rightful: bool = False
    """The partition was the worker's when it sent."""
    gone: bool = False
    """It has left the machine: it arrives, whatever becomes of the worker."""


@dataclass(slots=True)
class Connection:
    """What one worker sends to one partition: arrives in order."""

    worker: str
    place: TopicPartition
    sendings: deque[Sending] = field(default_factory=deque)
    unanswered: set[asyncio.Future[Metadata]] = field(default_factory=set)
    """Of batches of which the worker does not know yet what became of them."""
    refused: bool = False
    """Something was refused: what follows is out of sequence, so it is refused as well."""


class Broker:
    """Logs by topic and partition, what was committed, and what is on its way."""

    def __init__(
        self,
        loop: SimulatedLoop,
        dice: random.Random,
        trace: Callable[[str], None],
        may_send: Callable[[str], bool],
        owns: Callable[[str, int], bool],
        sent: Callable[[str, TopicPartition, list[Item]], None],
        arrived: Callable[[str, TopicPartition], None],
    ) -> None:
        self.loop, self.dice, self.trace = loop, dice, trace
        self._may_send = may_send
        """Whether a worker has a lease."""
        self._owns = owns
        """Whether a partition is a worker's."""
        self._sent, self._arrived = sent, arrived
        self.logs: defaultdict[TopicPartition, list[Record]] = defaultdict(list)
        self.committed: dict[TopicPartition, int] = {}
        self.commits: list[tuple[int, TopicPartition, int]] = []
        """When (as an arrival), where, up to which offset; each that moved something."""
        self.slipped: set[tuple[TopicPartition, int]] = set()
        """What came late: since it was sent, its worker had lost its partition, its lease, or its life."""
        self.arrivals = 0
        self.slow = 0.0
        """How long acknowledgements may take, at most, beyond what is usual."""
        self.late = ""
        """Who hears late, once, that its batch has arrived."""
        self.slow_loads = 0.0
        """How long whoever loads may wait for what it asks, at most, beyond what is usual."""
        self.detour = "", ""
        """A topic whose batches may take seconds to arrive, and whose batches: of all workers if empty."""
        self.refuses: str = ""
        """A topic of which the next batch is refused."""
        self.loses: str = ""
        """A topic of which the acknowledgement of the next batch is lost."""
        self.busy_until = 0.0
        """When the last of what is on its way arrives, be it a batch or an acknowledgement."""
        self._connections: dict[tuple[str, TopicPartition], Connection] = {}

    # What stands in logs

    def write(self, place: TopicPartition, items: list[Item]) -> int:
        """Append records; returns the offset of the first."""
        log = self.logs[place]
        first = len(log)
        for offset, (key, value, headers) in enumerate(items, first):
            log.append(Record(*place, offset, key, value, headers, self.arrivals))
            self.arrivals += 1
        return first

    def commit(self, place: TopicPartition, offset: int) -> None:
        """Take a committed offset."""
        if offset != self.committed.get(place, 0):
            self.trace(f"committed {place[0]}/{place[1]}: {offset}")
            self.committed[place] = offset
            self.commits.append((self.arrivals, place, offset))

    # What is on its way

    async def trip(self, worker: str, why: TopicPartition = LOADS) -> None:
        """Be asked by a worker that loads, and answer."""
        self._sent(worker, why, [])
        slow = self.dice.uniform(0.0, self.slow_loads) if self.slow_loads else 0.0
        await asyncio.sleep(slow + self.dice.uniform(0.001, 0.01))

    def send(self, worker: str, place: TopicPartition, batch: Batch) -> asyncio.Future[Metadata]:
        """Put a batch on its way."""
        connection = self._connections.setdefault((worker, place), Connection(worker, place))
        delay = self.dice.uniform(0.0005, 0.02)
        topic, whose = self.detour
        if place[0] == topic and whose in ("", worker) and self.dice.random() < 0.5:
            delay += self.dice.uniform(0.0, 5.0)
        sending = Sending(batch.items, self.loop.now + delay, self.loop.create_future())
        sending.rightful = self._owns(worker, place[1])
        self.busy_until = max(self.busy_until, sending.due)
        connection.sendings.append(sending)
        connection.unanswered.add(sending.acknowledged)
        self.loop.later(delay, self._move, connection)
        self._sent(worker, place, batch.items)
        return sending.acknowledged

    def unsent(self, worker: str) -> bool:
        """Whether a worker waits for an answer."""
        return any(each.unanswered for each in self._connections.values() if each.worker == worker)

    async def flush(self, worker: str) -> None:
        """Wait for the answers to what was sent until now."""
        unanswered = [each for connection in self._of(worker) for each in connection.unanswered]
        if unanswered:
            await asyncio.wait(unanswered)

    def die(self, worker: str) -> None:
        """A worker is about to die: what has not left the machine, or may not, never arrives."""
        free = worker not in self.loop.frozen and self._may_send(worker)
        for connection in self._of(worker):
            going = [each for each in connection.sendings if free or each.gone]
            left = max(sum(each.gone for each in going), self.dice.randrange(len(going) + 1))
            connection.sendings = deque(going[:left])
            for sending in connection.sendings:
                sending.gone = True

    def freeze(self, worker: str) -> None:
        """A worker froze: some of what it sends has left the machine, some will as it wakes, not asked again."""
        if not self._may_send(worker):
            return
        for connection in self._of(worker):
            count = len(connection.sendings)
            left = self.dice.choice([0, 0, self.dice.randrange(count + 1)])
            asked = self.dice.choice([count, count, self.dice.randrange(left, count + 1)])
            for place, sending in enumerate(connection.sendings):
                sending.gone |= place < left
                sending.asked |= place < asked

    def wake(self, worker: str) -> None:
        """A worker thawed, or has a lease again."""
        for connection in self._of(worker):
            self._move(connection)

    def _of(self, worker: str) -> list[Connection]:
        return [each for each in self._connections.values() if each.worker == worker]

    def _move(self, connection: Connection) -> None:
        sendings, now = connection.sendings, self.loop.now
        while sendings:
            first = sendings[0]
            if first.due > now:
                self.loop.later(first.due - now, self._move, connection)
                return
            if not first.gone:
                if connection.worker in self.loop.frozen:
                    return
                if not first.asked and not self._may_send(connection.worker):
                    return
            sendings.popleft()
            self._arrive(connection, first)

    def _arrive(self, connection: Connection, sending: Sending) -> None:
        (topic, partition), worker = connection.place, connection.worker
        delay = self.dice.uniform(0.0005, 0.01)
        if self.refuses == topic or connection.refused:
            self.refuses, connection.refused = "", True
            self.trace(f"{worker} → {topic}/{partition}: {len(sending.items)} refused")
            self.loop.later(delay, self._answer, connection, sending, RefusedError("the broker refuses"))
            return
        first = self.write(connection.place, sending.items)
        is_late = sending.rightful and not self._owns(worker, partition)
        if is_late or ((sending.asked or sending.gone) and not self._may_send(worker)):
            self.slipped |= {(connection.place, first + place) for place in range(len(sending.items))}
        self.trace(f"{worker} → {topic}/{partition}: {first} to {first + len(sending.items) - 1}")
        answer: Exception | Metadata = Metadata(first)
        if self.loses == topic:
            self.loses, delay, answer = "", self.dice.uniform(0.1, 6.0), UnansweredError("the broker does not answer")
        elif self.late == worker:
            self.late, delay = "", self.dice.uniform(0.5, 4.0)
        elif self.slow and self.dice.random() < 0.5:
            delay += self.dice.uniform(0.0, self.slow)
        self.busy_until = max(self.busy_until, self.loop.now + delay)
        self.loop.later(delay, self._answer, connection, sending, answer)
        self._arrived(worker, connection.place)

    @staticmethod
    def _answer(connection: Connection, sending: Sending, answer: Exception | Metadata) -> None:
        connection.unanswered.discard(sending.acknowledged)
        if sending.acknowledged.done():
            return
        if isinstance(answer, Exception):
            sending.acknowledged.set_exception(answer)
        else:
            sending.acknowledged.set_result(answer)
