"""Current assignments in Redis: a view, written after the state is safe, never a reason to lose an event.

One script moves a batch of customers. It compares versions, so that a late writer never overwrites a newer
assignment, and moves the counters of segments and migrations in the same step: they stay exact.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
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

# ARGV: the batch (MessagePack), the prefix, how long migrations are kept.
# A customer: id, version, fields to set, fields to delete, schemes and segments in turn, moves.
SCRIPT = """
local batch, prefix, kept = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]
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
        self._queue: deque[tuple[int, Shown, list[Entry]]] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._written: dict[int, Shown] = {}
        self._script = self._redis.register_script(SCRIPT)
        self._encode = msgspec.msgpack.Encoder().encode

    def start(self, partition: int, shown: Shown) -> None:
        """Notes how far Redis is when a partition is taken over."""
        self._written[partition] = shown

    def stop(self, partition: int) -> None:
        """Forgets a partition; what is queued of it is still written."""
        self._written.pop(partition, None)

    def written(self, partition: int) -> Shown:
        """How far Redis is."""
        return self._written.get(partition, Shown(0, 0))

    async def put(self, partition: int, shown: Shown, entries: list[Entry]) -> None:
        """Queues entries, after which Redis is so far; waits while too much is queued."""
        self._queue.append((partition, shown, entries))
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
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                await self._write_some()

    async def _write_some(self) -> None:
        taken, entries = 0, list[Entry]()
        for _, _, some in self._queue:
            if taken and len(entries) + len(some) > BATCH:
                break
            entries += some
            taken += 1
        for start in range(0, len(entries), BATCH):
            await self._write(entries[start : start + BATCH])
        for _ in range(taken):
            partition, shown, some = self._queue.popleft()
            self._waiting -= len(some)
            if partition in self._written:
                before = self._written[partition]
                self._written[partition] = Shown(*map(max, before, shown))
        self._metrics.redis_backlog.set(self._waiting)
        if self._waiting <= BACKLOG:
            self._room.set()

    async def _write(self, entries: list[Entry]) -> None:
        packed = self._encode([_packed(entry) for entry in entries])
        while True:
            try:
                written, outdated = await self._script(args=[packed, self._prefix, MOVES_KEPT_SECONDS])
            except (RedisError, OSError) as error:
                self._metrics.redis_up.set(0)
                self._metrics.redis_writes.labels("failed").inc(len(entries))
                logger.warning("Redis does not take assignments (%s): trying again", type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                break
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
