"""Current assignments in Redis: a view, written after the state is safe, never a reason to lose an event.

One script moves a batch of customers. It compares versions, so that a late writer never overwrites a newer
assignment, and moves the counters of segments and migrations in the same step: they stay exact.

Redis may lose its data: flushed, restarted empty or from an old file, failed over to a replica. It is recognised by its
*identity*, a random mark that workers leave in it and the id of the server's run. When that has changed, every
owner of a partition shows all of its customers again; the checkpoint says of which identity the view is whole.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from streamseg.core.units import Instant, day_of
from streamseg.worker.metrics import Metrics
from streamseg.worker.settings import Names

logger = logging.getLogger("streamseg.worker")

BATCH = 500
BACKLOG = 200_000
"""Assignments that may wait for a Redis that is away; above it, reading of events slows down."""
TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 0.5
MOVES_KEPT_SECONDS = 400 * 86_400

PROBE_SECONDS = 1.0
"""How often to ask an idle Redis who it is."""
REBUILDING = b"rebuilding"
"""The mark while somebody deletes the view; it goes by itself if that somebody dies."""

# ARGV: the batch (MessagePack), the prefix, how long migrations are kept, the mark.
# A customer: id, version, fields to set, fields to delete, schemes and segments in turn, moves.
SCRIPT = """
local batch, prefix, kept = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]
if redis.call('GET', prefix .. 'view') ~= ARGV[4] then return {-1, 0} end
local written, outdated, days = 0, 0, {}
for _, c in ipairs(batch) do
  local key = prefix .. 'customer:' .. c[1]
  local stored = tonumber(redis.call('HGET', key, 'version') or '-1')
  if c[2] < stored then
    outdated = outdated + 1
  else
    written = written + 1
    if c[2] > stored then
      for i = 1, #c[5], 2 do
        local before = redis.call('HGET', key, c[5][i])
        if before ~= c[5][i + 1] then
          local count = prefix .. 'count:' .. c[5][i]
          if before then redis.call('HINCRBY', count, before, -1) end
          redis.call('HINCRBY', count, c[5][i + 1], 1)
        end
      end
      for _, m in ipairs(c[6]) do
        if m[1] > stored then
          local day = prefix .. 'moves:' .. m[2]
          redis.call('HINCRBY', day, m[3], 1)
          days[day] = true
        end
      end
    end
    redis.call('HSET', key, unpack(c[3]))
    if #c[4] > 0 then redis.call('HDEL', key, unpack(c[4])) end
  end
end
for day in pairs(days) do redis.call('EXPIRE', day, kept) end
return {written, outdated}
"""


class Move(NamedTuple):
    """A change as the counters see it; no segment is an empty text."""

    version: int
    scheme: str
    origin: str
    target: str
    at: Instant


class Shown(NamedTuple):
    """How far Redis is, as offsets of the changelog: it knows what is in the records before them."""

    assignments: int
    forecasts: int


class Identity(NamedTuple):
    """Which Redis this is, and which of its lives."""

    mark: bytes
    run: str

    def __str__(self) -> str:
        """As a checkpoint keeps it."""
        return f"{self.mark.decode()}@{self.run}"


class Entry(NamedTuple):
    """A customer's assignment to be shown."""

    customer: str
    version: int
    updated_at: str
    schemes: Mapping[str, Mapping[str, Any]]
    moves: list[Move]
    caused: Instant | None
    """The time of the event that changed it, for the lag; None if no event did."""


def _packed(entry: Entry) -> list[Any]:
    fields, gone, segments = ["version", str(entry.version), "updated_at", entry.updated_at], [], []
    for scheme, shown in entry.schemes.items():
        fields += [scheme, shown["segment"], f"{scheme}.since", shown["since"]]
        segments += [scheme, shown["segment"]]
        for name in ("next_change_at", "next_segment"):
            if shown[name] is None:
                gone.append(f"{scheme}.{name}")
            else:
                fields += [f"{scheme}.{name}", shown[name]]
    moves = [
        [move.version, f"{move.scheme}:{day_of(move.at)}", f"{move.origin}>{move.target}"]
        for move in entry.moves
        if move.origin
    ]
    return [entry.customer, entry.version, fields, gone, segments, moves]


class RedisView:
    """Writes assignments behind the partitions, in their order, and tells how far it got with each."""

    def __init__(self, url: str, names: Names, metrics: Metrics, *, wall: bool) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            decode_responses=False,
        )
        self._prefix = names.redis
        self._metrics = metrics
        self._wall = wall
        self._queue: deque[tuple[int, Shown, list[Entry], str]] = deque()
        self._identity: Identity | None = None
        self._whole: dict[int, str] = {}
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._written: dict[int, Shown] = {}
        self._script = self._redis.register_script(SCRIPT)
        self._encode = msgspec.msgpack.Encoder().encode

    @property
    def identity(self) -> str:
        """Which Redis is written to; empty while that is not known."""
        return "" if self._identity is None else str(self._identity)

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

    async def put(self, partition: int, shown: Shown, entries: list[Entry], whole: str = "") -> None:
        """Queues entries, after which Redis is so far; waits while too much is queued.

        `whole` is the identity of the Redis that then knows all customers of the partition.
        """
        self._queue.append((partition, shown, entries, whole))
        self._waiting += len(entries)
        self._metrics.redis_backlog.set(self._waiting)
        self._arrived.set()
        if self._waiting > BACKLOG:
            self._room.clear()
            await self._room.wait()

    async def drain(self, seconds: float) -> None:
        """Waits until all is written, but not longer than this."""
        deadline = time.monotonic() + seconds
        while self._queue and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    async def run(self) -> None:
        """Writes, until cancelled."""
        while True:
            await self._identify()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), PROBE_SECONDS)
            self._arrived.clear()
            while self._queue:
                await self._write_some()

    async def _identify(self) -> None:
        """Asks Redis who it is, and leaves our mark where there is none."""
        while True:
            try:
                mark = await self._mark()
                run = str((await self._redis.info("server"))["run_id"])
            except (RedisError, OSError) as error:
                await self._note_failure(error)
            else:
                if mark != REBUILDING:
                    break
                await asyncio.sleep(RETRY_SECONDS)
        self._metrics.redis_up.set(1)
        found = Identity(mark, run)
        if self._identity is not None and found != self._identity:
            logger.warning("Redis has lost its data, or may have: all customers are shown again")
        self._identity = found

    async def _mark(self) -> bytes:
        mark = await self._redis.get(self._prefix + "view")
        if mark is None:
            await self._redis.set(self._prefix + "view", secrets.token_hex(8), nx=True)
            mark = await self._redis.get(self._prefix + "view")
        return b"" if mark is None else bytes(mark)  # type: ignore[arg-type]

    async def _note_failure(self, error: Exception) -> None:
        self._metrics.redis_up.set(0)
        logger.warning("Redis does not answer (%s): trying again", type(error).__name__)
        await asyncio.sleep(RETRY_SECONDS)

    async def _write_some(self) -> None:
        taken, entries = 0, list[Entry]()
        for _, _, some, _ in self._queue:
            if taken and len(entries) + len(some) > BATCH:
                break
            entries += some
            taken += 1
        for start in range(0, len(entries), BATCH):
            await self._write(entries[start : start + BATCH])
        for _ in range(taken):
            partition, shown, some, whole = self._queue.popleft()
            self._waiting -= len(some)
            if partition in self._written:
                before = self._written[partition]
                self._written[partition] = Shown(*map(max, before, shown))
                if whole and whole == self.identity:
                    self._whole[partition] = whole
        self._metrics.redis_backlog.set(self._waiting)
        if self._waiting <= BACKLOG:
            self._room.set()

    async def _write(self, entries: list[Entry]) -> None:
        packed = self._encode([_packed(entry) for entry in entries])
        while True:
            mark = b"" if self._identity is None else self._identity.mark
            try:
                written, outdated = await self._script(args=[packed, self._prefix, MOVES_KEPT_SECONDS, mark])
            except (RedisError, OSError) as error:
                self._metrics.redis_writes.labels("failed").inc(len(entries))
                await self._note_failure(error)
                await self._identify()
            else:
                if written >= 0:
                    break
                await self._identify()
        self._metrics.redis_up.set(1)
        self._metrics.redis_writes.labels("written").inc(written)
        self._metrics.redis_writes.labels("outdated").inc(outdated)
        if self._wall:
            now = time.time() * 1000
            for entry in entries:
                if entry.caused is not None:
                    self._metrics.event_lag.observe(max(0.0, now - entry.caused) / 1000)

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()
