"""Current assignments in Redis: a view, written after the state is safe, never a reason to lose an event.

What events cause is written before what time alone does. How far Redis is, is told by parcels in their order.

Redis may lose its data: flushed, restarted empty or from an old file, failed over to a replica. It is recognised by its
*identity*, a random mark that workers leave in it and the id of the server's run. When that has changed, every
owner of a partition shows all of its customers again; the checkpoint says of which identity the view is whole.

How one server and how a cluster are written to stands in redis_server.py and redis_cluster.py; which of both it is,
Redis says itself.

A worker that lost a partition may still have something to write. Versions keep it from showing an older segment, but
not an older forecast: so Redis remembers the epoch of who wrote, and takes nothing of a lower one. The owner shows all
that the one before it may not have shown.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any, NamedTuple, TypeVar

from redis.asyncio import Redis, RedisCluster, connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from streamseg.worker.metrics import Metrics
from streamseg.worker.redis_cluster import Cluster
from streamseg.worker.redis_entry import Counts, PackedEntries, Parcel, Piece, Shown, Store, causes, customers, size
from streamseg.worker.redis_server import Server
from streamseg.worker.settings import Names

logger = logging.getLogger("streamseg.worker")

SOON = 400
"""Customers in one script at most whom events have moved, before some of the others have their turn."""
LATER = 400
"""Those at most whom only time has moved: some milliseconds, which what events cause may have to wait for. Of fewer in
a script each is dearer."""
BACKLOG = 200_000
"""Assignments that may wait for a Redis that is away; above it, reading of events slows down."""
TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 0.5

PROBE_SECONDS = 1.0
"""How often to ask Redis who it is."""
FAILURES = (RedisError, RedisClusterException, OSError, RuntimeError, AttributeError)
"""When the cluster's client writes to a connection that it is closing itself, uvloop raises RuntimeError, and it raises
AttributeError once that is closed."""

T = TypeVar("T", tuple[int, int], bool)


def is_of_client(error: BaseException) -> bool:
    """Whether it was a connection of the client that met the error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")) == connection.__name__


@dataclass(slots=True)
class Waiting:
    """A parcel that waits, and how many of its pieces are not written yet."""

    parcel: Parcel
    left: int


class Place(NamedTuple):
    """A piece where it waits."""

    number: int
    """Those that came before it have lower ones."""
    piece: Piece
    waiting: Waiting


class Pieces:
    """Pieces that wait: what events caused goes before the rest, each customer's in their order.

    A script that has seen a version counts no move to an earlier one. So what waits of a customer goes along with what
    an event causes, and before all that came later. Only a forecast may be overtaken: the script then leaves it out.
    """

    def __init__(self) -> None:
        self._soon = deque[Place]()
        self._lowest = deque[int]()
        """Of those: the lowest number, the lowest behind it, and so on."""
        self._later = OrderedDict[str, list[Place]]()
        """By customer, or many customers' forecasts under a name that no id has; of a plain dict the first key is found
        behind all that were taken off."""
        self._number = 0

    def add(self, waiting: Waiting) -> None:
        """Takes all of a parcel."""
        for piece in waiting.parcel.pieces:
            self._number += 1
            place = Place(self._number, piece, waiting)
            if causes(piece):
                for hurried in (*self._waiting_of(customers(piece)), place):
                    self._append(hurried)
            elif isinstance(piece, PackedEntries):
                self._later[f"\0{self._number}"] = [place]
            else:
                self._later.setdefault(piece.customer, []).append(place)

    def _waiting_of(self, moved: list[str]) -> Iterator[Place]:
        """Takes off what waits of customers whom an event has moved."""
        for customer in [] if self._later.keys().isdisjoint(moved) else moved:
            yield from self._later.pop(customer, ())

    def _append(self, place: Place) -> None:
        while self._lowest and self._lowest[-1] > place.number:
            self._lowest.pop()
        self._lowest.append(place.number)
        self._soon.append(place)

    def take(self) -> list[tuple[Piece, Waiting]]:
        """Takes off what is to be written next."""
        return [(piece, waiting) for _, piece, waiting in (*self._take_soon(SOON), *self._take_later(LATER))]

    def _take_soon(self, most: int) -> Iterator[Place]:
        """What comes first, of so many customers, about."""
        while self._soon and most > 0:
            place = self._soon.popleft()
            if self._lowest[0] == place.number:
                self._lowest.popleft()
            most -= size(place.piece)
            yield place

    def _take_later(self, most: int) -> Iterator[Place]:
        """The same of the others, behind all that events had caused before."""
        while self._later and most > 0:
            places = next(iter(self._later.values()))
            if self._lowest and self._lowest[0] < places[0].number:
                return
            self._later.popitem(last=False)
            most -= sum(size(place.piece) for place in places)
            yield from places


async def connected(url: str, prefix: str) -> Store:
    """What writes to this kind of Redis. Raises RedisError or OSError if it does not answer."""
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    redis = Redis.from_url(url, decode_responses=False, **options)
    try:
        is_cluster = bool((await redis.info("cluster")).get("cluster_enabled"))
    except BaseException:
        await redis.aclose()
        raise
    if not is_cluster:
        return Server(redis, prefix)
    await redis.aclose()
    return Cluster(RedisCluster.from_url(url, decode_responses=False, retry=Retry(NoBackoff(), 1), **options), prefix)


class RedisView:
    """Writes assignments behind the partitions, in their order, and tells how far it got with each."""

    def __init__(self, url: str, names: Names, metrics: Metrics, *, wall: bool) -> None:
        self._url = url
        self._store: Store | None = None
        self._prefix = names.redis
        self._metrics = metrics
        self._wall = wall
        self._queue: deque[Waiting] = deque()
        self._pieces = Pieces()
        self._asked = float("-inf")
        self._whole: dict[int, str] = {}
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._written: dict[int, Shown] = {}
        self.identity = ""
        """Which Redis is written to; empty while that is not known."""

    def whole(self, partition: int) -> str:
        """The identity of the Redis that knows all customers of a partition; empty if none does."""
        return self._whole.get(partition, "")

    def start(self, partition: int, shown: Shown, whole: str) -> None:
        """Notes how far Redis is when a partition is taken over, and which one knew all of it."""
        self._written[partition] = shown
        self._whole[partition] = whole

    def stop(self, partition: int) -> None:
        """Forgets a partition; what is queued of it is still written."""
        self._written.pop(partition, None)
        self._whole.pop(partition, None)

    def written(self, partition: int) -> Shown:
        """How far Redis is."""
        return self._written.get(partition, Shown(0, 0))

    def put(self, partition: int, shown: Shown, pieces: list[Piece], counts: Counts, whole: str = "") -> None:
        """Queues pieces, after which Redis is so far, and the partition's customers are so many.

        `whole` is the identity of the Redis that then knows all customers of the partition.
        """
        waiting = Waiting(Parcel(partition, shown, pieces, whole, counts), len(pieces))
        self._queue.append(waiting)
        self._pieces.add(waiting)
        self._waiting += sum(map(size, pieces))
        self._metrics.redis_backlog.set(self._waiting)
        self._arrived.set()
        if self._waiting > BACKLOG:
            self._room.clear()

    async def room(self) -> None:
        """Waits while too much is queued."""
        await self._room.wait()

    async def drain(self, seconds: float) -> None:
        """Waits until all is written, but not longer than this."""
        deadline = time.monotonic() + seconds
        while self._queue and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def run(self) -> None:
        """Writes, until cancelled."""
        while True:
            if time.monotonic() - self._asked >= PROBE_SECONDS:
                await self._identify()
            if self._queue:
                await self._write_some()
            else:
                with suppress(TimeoutError):
                    # Not wait_for: of Python 3.11 that forgets that it was cancelled, when something arrives just then.
                    async with asyncio.timeout(PROBE_SECONDS):
                        await self._arrived.wait()
                self._arrived.clear()

    async def _identify(self) -> Store:
        """Asks Redis who it is, until it answers."""
        while True:
            try:
                if self._store is None:
                    self._store = await connected(self._url, self._prefix)
                found = await self._store.identify()
            except FAILURES as error:
                await self._note_failure(error)
            else:
                if found is not None:
                    break
                await asyncio.sleep(RETRY_SECONDS)
        self._metrics.redis_up.set(1)
        self._asked = time.monotonic()
        if self.identity not in ("", found):
            logger.warning("Redis has lost its data, or may have: all customers are shown again")
        self.identity = found
        return self._store

    async def _note_failure(self, error: Exception) -> None:
        """Waits a little after a failure of Redis. Raises the error again if it is a fault of ours."""
        if isinstance(error, AttributeError) and not is_of_client(error):
            raise error
        self._metrics.redis_up.set(0)
        logger.warning("Redis does not answer (%s): trying again", type(error).__name__)
        await asyncio.sleep(RETRY_SECONDS)

    async def _write_some(self) -> None:
        taken = self._pieces.take()
        pieces = [piece for piece, _ in taken]
        entries = sum(map(size, pieces))
        if pieces:
            await self._write(pieces, entries)
        for _, waiting in taken:
            waiting.left -= 1
        self._waiting -= entries
        await self._finish()
        self._metrics.redis_backlog.set(self._waiting)
        if self._waiting <= BACKLOG:
            self._room.set()

    async def _finish(self) -> None:
        """Notes which parcels are written, with all before them."""
        parcels = [each.parcel for each in takewhile(lambda each: not each.left, self._queue)]
        if parcels:
            await self._insist(lambda store: store.count(parcels), 0)
        for parcel in parcels:
            self._queue.popleft()
            self._note_written(parcel)

    def _note_written(self, parcel: Parcel) -> None:
        before = self._written.get(parcel.partition)
        if before is not None:
            self._written[parcel.partition] = Shown(*map(max, before, parcel.shown))
            if parcel.whole and parcel.whole == self.identity:
                self._whole[parcel.partition] = parcel.whole

    async def _write(self, pieces: list[Piece], entries: int) -> None:
        written, outdated = await self._insist(lambda store: store.show(pieces), entries)
        self._metrics.redis_writes.labels("written").inc(written)
        self._metrics.redis_writes.labels("outdated").inc(outdated)
        if self._wall:
            now = time.time() * 1000
            caused = chain.from_iterable(map(causes, pieces))
            self._metrics.event_lag.observe([max(0.0, now - at) / 1000 for at in caused])

    async def _insist(self, act: Callable[[Store], Awaitable[T | None]], entries: int) -> T:
        """Does it until it is done, and asks Redis who it is whenever it was not."""
        store = self._store or await self._identify()
        while True:
            try:
                done = await act(store)
            except FAILURES as error:
                self._metrics.redis_writes.labels("failed").inc(entries)
                await self._note_failure(error)
            else:
                if done:
                    self._metrics.redis_up.set(1)
                    return done
            await self._identify()

    async def close(self) -> None:
        """Closes the connections."""
        if self._store is not None:
            await self._store.close()
