"""One Redis server: one script moves a batch of customers, and their counters with them.

It compares versions and epochs, so that a late writer never overwrites a newer assignment or forecast, and moves the
counters of segments and migrations in the same step: they stay exact.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis, RedisCluster

from streamseg.worker.redis_entry import MOVES_KEPT_SECONDS, Entry, PackedEntry, Parcel

REBUILDING = b"rebuilding"
"""The mark while somebody deletes the view; it goes by itself if that somebody dies."""

# ARGV: the batch (MessagePack), the prefix, how long migrations are kept, the mark.
# A customer: id, version, fields to set, fields to delete, schemes and segments in turn, moves, partition, epoch.
SCRIPT = """
local batch, prefix, kept = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]
if redis.call('GET', prefix .. 'view') ~= ARGV[4] then return {-1, 0} end
local written, outdated, counts, days, epochs = 0, 0, {}, {}, {}
local function add(counters, field, by)
  counters[field] = (counters[field] or 0) + by
end
local function of(all, name)
  if not all[name] then all[name] = {} end
  return all[name]
end
for _, c in ipairs(batch) do
  if not epochs[c[7]] then epochs[c[7]] = tonumber(redis.call('HGET', prefix .. 'epochs', c[7]) or '0') end
  if c[8] > epochs[c[7]] then
    redis.call('HSET', prefix .. 'epochs', c[7], c[8])
    epochs[c[7]] = c[8]
  end
  local key, asked = prefix .. 'customer:' .. c[1], {'version'}
  for i = 1, #c[5], 2 do asked[#asked + 1] = c[5][i] end
  local known = redis.call('HMGET', key, unpack(asked))
  local stored = tonumber(known[1] or '-1')
  if c[2] < stored or c[8] < epochs[c[7]] then
    outdated = outdated + 1
  else
    written = written + 1
    if c[2] > stored then
      for i = 2, #asked do
        local before, after = known[i], c[5][2 * i - 2]
        if before ~= after then
          local count = of(counts, asked[i])
          if before then add(count, before, -1) end
          add(count, after, 1)
        end
      end
      for _, m in ipairs(c[6]) do
        if m[1] > stored then add(of(days, m[2]), m[3], 1) end
      end
    end
    redis.call('HSET', key, unpack(c[3]))
    if known[1] and #c[4] > 0 then redis.call('HDEL', key, unpack(c[4])) end
  end
end
for scheme, count in pairs(counts) do
  for segment, by in pairs(count) do redis.call('HINCRBY', prefix .. 'count:' .. scheme, segment, by) end
end
for day, moves in pairs(days) do
  for pair, by in pairs(moves) do redis.call('HINCRBY', prefix .. 'moves:' .. day, pair, by) end
  redis.call('EXPIRE', prefix .. 'moves:' .. day, kept)
end
return {written, outdated}
"""


class Identity(NamedTuple):
    """Which Redis this is, and which of its lives."""

    mark: bytes
    run: str

    def __str__(self) -> str:
        """As a checkpoint keeps it."""
        return f"{self.mark.decode()}@{self.run}"


def _packed(entry: Entry | PackedEntry) -> Any:
    if isinstance(entry, PackedEntry):
        return msgspec.Raw(entry.data)
    fields, gone = entry.fields()
    segments = [text for scheme, shown in entry.schemes.items() for text in (scheme, shown["segment"])]
    moves = [[move.version, move.day, move.pair] for move in entry.moves if move.origin]
    return [entry.customer, entry.version, fields, gone, segments, moves, *entry.writer]


class Server:
    """A single server, with all keys."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._mark = b""
        self._script = redis.register_script(SCRIPT)
        self._encode = msgspec.msgpack.Encoder().encode

    async def identify(self) -> str | None:
        """See Store."""
        self._mark = await marked(self._redis, self._prefix + "view")
        run = str((await self._redis.info("server"))["run_id"])
        return None if self._mark == REBUILDING else str(Identity(self._mark, run))

    async def show(self, entries: Sequence[Entry | PackedEntry]) -> tuple[int, int] | None:
        """See Store."""
        packed = self._encode([_packed(entry) for entry in entries])
        written, outdated = await self._script(args=[packed, self._prefix, MOVES_KEPT_SECONDS, self._mark])
        return None if written < 0 else (written, outdated)

    async def count(self, parcels: Sequence[Parcel]) -> bool:
        """See Store: the script has counted."""
        del parcels
        return True

    async def close(self) -> None:
        """See Store."""
        await self._redis.aclose()


async def marked(redis: Redis | RedisCluster, key: str) -> bytes:
    """The mark that stands there; leaves a new one where there is none."""
    mark = await redis.get(key)
    if mark is None:
        await redis.set(key, secrets.token_hex(8), nx=True)
        mark = await redis.get(key)
    return b"" if mark is None else bytes(mark)  # type: ignore[arg-type]
