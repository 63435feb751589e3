"""A replay on several cores: customers are dealt out to processes, changes come back and are put in order.

Customers know nothing of each other but the clock, and what is published at an instant of it has one order: deadlines
by customer, then events by line. So a shard needs, beside its own events, the clock where one of them is late, and
a batch's changes are in order once the shards' are merged by their `Key`: docs/decisions/0018-a-replay-on-all-cores.md.
"""

from __future__ import annotations

import gc
import heapq
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import msgspec

from streamseg.core.change import Change, Reason
from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError, RejectedEvent, StreamsegError
from streamseg.core.units import Instant, check_instant, format_instant, parse_instant
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.event_json import EventDecoder
from streamseg.formats.messages import change_data
from streamseg.replay import Outputs, Reject, Replay, Tally

if TYPE_CHECKING:
    from streamseg_engine import Replay as Core

BATCH_LINES = 8_192
BATCH_BYTES = 1 << 20
"""Lines are dealt out so many at a time, whichever comes first."""
AHEAD = 3
"""Batches dealt out before the first of them must be back."""
PARCEL = 4_096
"""Changes, or assignments, sent back at a time."""
SWITCH_SECONDS = 0.000_5
"""How long a shard's work may keep its next batch from being received."""


STAMP = len("2026-11-21T10:00:00.000Z")
"""Times written like this are in order as texts: parsing each would take longer than all else that is done to deal."""


class ShardEndedError(StreamsegError):
    """A process of the replay is gone."""


Key = tuple[Instant, bool, int | str]
"""Where the changes of one evaluation stand among all others: the clock, deadlines before events, and among deadlines
the customer, among events the line. No two evaluations have the same."""
Keyed = tuple[Any, bytes]
"""A key and lines to write: changes under their `Key`, assignments under their customer."""
Parcel = tuple[list[Keyed], bool]
"""What is sent back, in order, and whether it is the last of a stretch."""


class Batch(NamedTuple):
    """One shard's share of a stretch of the input."""

    numbers: list[int]
    lines: list[bytes]
    clocks: dict[int, Instant]
    """The clock before an event that is late, by its number."""
    clock: Instant
    """The clock at the end of the stretch."""


class Finish(NamedTuple):
    """The end of the input."""

    until: Instant | None
    assignments: bool


# Dealing out


class _Glance(msgspec.Struct, gc=False):
    """As much of an event as says whose it is, and when. No event is one that has not this much."""

    customer_id: str
    time: str | int


_glance = msgspec.json.Decoder(_Glance).decode


class Dealer:
    """Deals out lines by customer.

    Only an accepted event moves the clock, and whether one is accepted costs a full decode. So a line that would move
    it is a claim, and is examined if something depends on it: at a late event, and at the end of a batch.
    """

    def __init__(self, definitions: Definitions, shards: int) -> None:
        self._decoder = EventDecoder(definitions.currency, definitions.digits, definitions.rates)
        self._shards = shards
        self._known: Instant = 0
        self._claims: list[tuple[int, bytes]] = []

    def deal(self, lines: Iterable[bytes]) -> Iterator[list[Batch]]:
        """The shares of one stretch of lines after the other. An InputError comes after what was read before it."""
        shards, claims, latest = self._shards, self._claims, format_instant(self._known)
        shares = _shares(shards)
        error = None
        number = size = 0
        try:
            for number, line in enumerate(lines, 1):
                try:
                    glance = _glance(line)
                    stamp = glance.time
                    if type(stamp) is not str or len(stamp) != STAMP or stamp[10] != "T" or stamp[23] != "Z":
                        stamp = _stamp(stamp)
                    numbers, own, clocks = shares[crc32(glance.customer_id.encode()) % shards]
                except (msgspec.DecodeError, ValueError, RecursionError):  # rejected, by whichever shard
                    numbers, own, clocks = shares[number % shards]
                else:
                    if stamp < latest:
                        latest = format_instant(self._settle())
                    if stamp < latest:
                        clocks[number] = self._known
                    else:
                        latest = stamp
                        claims.append((number, line))
                numbers.append(number)
                own.append(line)
                size += len(line)
                if size >= BATCH_BYTES or not number % BATCH_LINES:
                    latest = format_instant(self._settle())
                    yield [Batch(*share, self._known) for share in shares]
                    shares, size = _shares(shards), 0
        except InputError as raised:
            error = raised
        yield [Batch(*share, self._settle()) for share in shares]
        if error is not None:
            raise error

    def _settle(self) -> Instant:
        """The clock: the latest claim that is an event, or what it was before."""
        claims = self._claims
        while claims:
            number, line = claims.pop()
            try:
                self._known = self._decoder.decode(line, "line:", number).time
            except RejectedEvent:
                continue
            claims.clear()
        return self._known


def _stamp(time: str | int) -> str:
    """A time as it is usually written. Raises ValueError when it is none."""
    return format_instant(parse_instant(time) if isinstance(time, str) else check_instant(time))


def _shares(shards: int) -> list[tuple[list[int], list[bytes], dict[int, Instant]]]:
    return [([], [], {}) for _ in range(shards)]


# The processes


@dataclass(slots=True)
class _Shard:
    """Replays its customers, in a process of its own."""

    definitions: Definitions
    plan: bytes | None
    """For the compiled core; None if Python applies events."""
    send: Callable[[object], None]
    replay: Replay = field(init=False)
    _keyed: list[Keyed] = field(default_factory=list)
    _rejects: list[Reject] = field(default_factory=list)
    _changes: int = 0

    def __post_init__(self) -> None:
        definitions, reject = self.definitions, self._rejects.append
        if self.plan is None:
            self.replay = Replay(definitions, self._publish, reject)
        else:
            from streamseg.compiled_replay import CompiledReplay

            self.replay = CompiledReplay(definitions, self._publish, reject, self.plan, self._collect)

    def _publish(self, change: Change) -> None:
        self._changes += 1
        by_event = change.reason is Reason.EVENT
        key: Key = (change.at, by_event, self.replay.lines if by_event else change.customer)
        data, keyed = change_data(change) + b"\n", self._keyed
        if keyed and keyed[-1][0] == key:
            keyed[-1] = (key, keyed[-1][1] + data)
            return
        if len(keyed) >= PARCEL:
            self._send(last=False)
        self._keyed.append((key, data))

    def _collect(self, core: Core) -> None:
        keyed = core.drain_keyed()
        if len(self._keyed) + len(keyed) > PARCEL:
            self._send(last=False)
        self._keyed += keyed

    def _send(self, *, last: bool) -> None:
        self.send((self._keyed, last))
        self._keyed = []

    def take(self, batch: Batch) -> None:
        """Replays one batch; sends back its changes, and then its rejects."""
        self.replay.take(batch.lines, batch.numbers, batch.clocks)
        self.replay.segmenter.advance(batch.clock)
        self._send(last=True)
        self.send(self._rejects)
        self._rejects.clear()

    def finish(self, finish: Finish) -> None:
        """Moves the clock to the end; sends back the changes of that, assignments if wanted, and a tally."""
        if finish.until is not None:
            self.replay.segmenter.advance(finish.until)
        self._send(last=True)
        if finish.assignments:
            for customer, data in self.replay.assignments():
                self._keyed.append((customer, data))
                if len(self._keyed) >= PARCEL:
                    self._send(last=False)
            self._send(last=True)
        self.send(self.replay.tally(self._changes))


def work(
    receive: Callable[[], Batch | Finish], send: Callable[[object], None], definitions: bytes, plan: bytes | None
) -> None:
    """The life of a shard: takes what it receives, and sends back what comes of it, to the end of the input."""
    shard = _Shard(load_definitions(definitions), plan, send)
    while isinstance(message := receive(), Batch):
        shard.take(message)
    shard.finish(message)


def _serve(connection: Connection, definitions: bytes, plan: bytes | None) -> None:
    """A shard's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    gc.disable()
    sys.setswitchinterval(SWITCH_SECONDS)
    inbox: SimpleQueue[Batch | Finish] = SimpleQueue()
    Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    work(inbox.get, connection.send, definitions, plan)


def _receive(connection: Connection, inbox: SimpleQueue[Batch | Finish]) -> None:
    """Receives at all times: so the parent can always send, while this process waits for it to take changes."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while True:
        if parent.sentinel in wait([connection, parent.sentinel]):
            os._exit(1)  # killed: nobody takes what would be sent
        try:
            message = connection.recv()
        except (EOFError, OSError):
            return
        inbox.put(message)


# The parent


@contextmanager
def shards(definitions: bytes, count: int, plan: bytes | None) -> Iterator[Shards]:
    """So many processes that wait for their shares. They end with the block.

    `definitions` is the content of the file: what is made of it cannot be sent to a process. `plan` is for the
    compiled core; None if Python applies events.
    """
    # Arrow has threads of its own, and what another thread holds stays locked in a fork.
    fork = sys.platform == "linux" and "pyarrow" not in sys.modules
    context = multiprocessing.get_context("fork" if fork else "spawn")
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, definitions, plan), daemon=True)  # type: ignore[attr-defined]
            process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
            theirs.close()
            connections.append(ours)
        yield Shards(connections)


@dataclass(slots=True)
class Shards:
    """The parent's end: sends shares, and writes what comes back in the order of one process."""

    connections: list[Connection]

    def replay(
        self, definitions: Definitions, lines: Iterable[bytes], outputs: Outputs, until: Instant | None
    ) -> Tally:
        """Replays all lines. Raises an InputError of theirs after all before it is written."""
        out, error = 0, None
        rejects: Counter[str] = Counter()
        try:
            for batches in Dealer(definitions, len(self.connections)).deal(lines):
                self._send(batches)
                out += 1
                if out > AHEAD:
                    self._collect(outputs, rejects)
                    out -= 1
        except InputError as raised:
            error = raised
        for _ in range(out):
            self._collect(outputs, rejects)
        if error is not None:
            raise error
        return self._finish(Finish(until, outputs.assignments is not None), outputs, rejects)

    def _send(self, messages: Sequence[object]) -> None:
        try:
            for connection, message in zip(self.connections, messages, strict=True):
                connection.send(message)
        except OSError as error:
            raise _ended() from error

    def _receive(self, connection: Connection) -> Any:
        try:
            return connection.recv()
        except (EOFError, OSError) as error:
            raise _ended() from error

    def _collect(self, outputs: Outputs, rejects: Counter[str]) -> None:
        """Writes what has come of one batch."""
        self._write_merged(outputs.changes)
        for reject in heapq.merge(*map(self._receive, self.connections)):
            rejects[reject.reason] += 1
            outputs.reject(reject)

    def _finish(self, finish: Finish, outputs: Outputs, rejects: Counter[str]) -> Tally:
        self._send([finish] * len(self.connections))
        self._write_merged(outputs.changes)
        if outputs.assignments is not None:
            self._write_merged(outputs.assignments)
        total = Tally(rejects=rejects)
        for connection in self.connections:
            total.add(self._receive(connection))
        return total

    def _write_merged(self, write: Callable[[bytes], object]) -> None:
        for _, data in heapq.merge(*map(self._parcels, self.connections)):
            write(data)

    def _parcels(self, connection: Connection) -> Iterator[Keyed]:
        last = False
        while not last:
            keyed, last = self._receive(connection)
            yield from keyed


def _ended() -> ShardEndedError:
    return ShardEndedError(
        "a process of the replay has ended before its time (out of memory? its own lines stand above): "
        "--jobs 1 replays in one process"
    )
