"""One Redis server: one script moves a batch of customers, and their counters with them.

It compares versions and epochs, so that a late writer never overwrites a newer assignment or forecast, and moves the
counters of segments and migrations in the same step: they stay exact.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis, RedisCluster

from streamseg.worker.redis_entry import MOVES_KEPT_SECONDS, Entry, Parcel, Piece, array_head

REBUILDING = b"rebuilding"
"""The mark while somebody deletes the view; it goes by itself if that somebody dies."""

# ARGV: the batch (MessagePack), the prefix, how long migrations are kept, the mark.
# Of a customer, one after the other, as tables would cost more than all the rest: id, version, partition, epoch, how
# many elements each list has, and the lists: fields that may move while the version stands, other fields, fields
# to delete, schemes and segments in turn, and moves. Who has no moves has most probably nothing new but forecasts.
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
local at, size = 1, #batch
while at <= size do
  local key, version, partition, epoch = prefix .. 'customer:' .. batch[at], unpack(batch, at + 1, at + 3)
  local fields = at + 9
  local fixed = fields + batch[at + 4]
  local gone = fixed + batch[at + 5]
  local segments = gone + batch[at + 6]
  local moves = segments + batch[at + 7]
  at = moves + batch[at + 8]
  if not epochs[partition] then
    epochs[partition] = tonumber(redis.call('HGET', prefix .. 'epochs', partition) or '0')
  end
  if epoch > epochs[partition] then
    redis.call('HSET', prefix .. 'epochs', partition, epoch)
    epochs[partition] = epoch
  end
  local held, known = nil, nil
  if moves < at then
    local asked = {'version'}
    for i = segments, moves - 1, 2 do asked[#asked + 1] = batch[i] end
    known = redis.call('HMGET', key, unpack(asked))
    held = known[1]
  else
    held = redis.call('HGET', key, 'version')
  end
  local stored = tonumber(held or '-1')
  if version < stored or epoch < epochs[partition] then
    outdated = outdated + 1
  else
    written = written + 1
    if version > stored then
      for i = segments, moves - 1, 2 do
        local scheme, after, before = batch[i], batch[i + 1], false
        if known then
          before = known[(i - segments) / 2 + 2]
        elseif held then
          before = redis.call('HGET', key, scheme)
        end
        if before ~= after then
          local count = of(counts, scheme)
          if before then add(count, before, -1) end
          add(count, after, 1)
        end
      end
      for i = moves, at - 1, 3 do
        if batch[i] > stored then add(of(days, batch[i + 1]), batch[i + 2], 1) end
      end
      redis.call('HSET', key, unpack(batch, fields, gone - 1))
    else
      redis.call('HSET', key, unpack(batch, fields, fixed - 1))
    end
    if held and gone < segments then redis.call('HDEL', key, unpack(batch, gone, segments - 1)) end
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


def _packed(piece: Piece) -> tuple[bytes, int]:
    """What the script is told, and in how many elements."""
    if not isinstance(piece, Entry):
        return piece.data, piece.elements
    segments = [text for scheme, shown in piece.schemes.items() for text in (scheme, shown["segment"])]
    moves = [each for move in piece.moves if move.origin for each in (move.version, move.day, move.pair)]
    lists: list[list[Any]] = [*piece.fields(), segments, moves]
    elements = [piece.customer, piece.version, *piece.writer, *map(len, lists), *chain.from_iterable(lists)]
    return b"".join(map(msgspec.msgpack.encode, elements)), len(elements)


class Server:
    """A single server, with all keys."""

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._mark = b""
        self._script = redis.register_script(SCRIPT)

    async def identify(self) -> str | None:
        """See Store."""
        self._mark = await marked(self._redis, self._prefix + "view")
        run = str((await self._redis.info("server"))["run_id"])
        return None if self._mark == REBUILDING else str(Identity(self._mark, run))

    async def show(self, pieces: Sequence[Piece]) -> tuple[int, int] | None:
        """See Store."""
        packed, elements = zip(*map(_packed, pieces), strict=True)
        batch = array_head(sum(elements)) + b"".join(packed)
        written, outdated = await self._script(args=[batch, self._prefix, MOVES_KEPT_SECONDS, self._mark])
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
