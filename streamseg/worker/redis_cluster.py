"""Redis Cluster: a script reaches the keys of one slot only, so customers and counters are written one after the other.

1. Each customer's hash is compared and set by itself, grouped by slot, pipelined to all nodes at once.
2. The counters follow in a step that may be repeated: every partition knows how many of its customers are in which
   segment, so the script of a counter is told that number, as of an offset of the changelog, and adds what differs
   from what the same partition told last. Moves are added unless the partition has told of a later offset.

What a partition told last stands in the slot of the counter it belongs to: they are changed, lost and found together.
The argument stands in docs/decisions/0017.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import RedisCluster
from redis.crc import key_slot
from redis.exceptions import NoScriptError

from streamseg.worker.redis_entry import MOVES_KEPT_SECONDS, Parcel, Piece, unpacked
from streamseg.worker.redis_server import marked

TOPOLOGY_SECONDS = 10.0
"""How often to ask which node has which slots, when no failure tells that it has changed."""


class _Script:
    """A script and its name."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# KEYS: customers of one slot. ARGV: for each of them version, epoch, fields to set, fields to delete (MessagePack).
_SHOW = _Script("""
local written, outdated = 0, 0
for i, c in ipairs(cmsgpack.unpack(ARGV[1])) do
  local stored = redis.call('HMGET', KEYS[i], 'version', 'epoch')
  if c[1] < tonumber(stored[1] or '-1') or c[2] < tonumber(stored[2] or '0') then
    outdated = outdated + 1
  else
    written = written + 1
    redis.call('HSET', KEYS[i], unpack(c[3]))
    redis.call('HSET', KEYS[i], 'epoch', c[2])
    if #c[4] > 0 then redis.call('HDEL', KEYS[i], unpack(c[4])) end
  end
end
return {written, outdated}
""")

# KEYS: the counter, what was told. ARGV: partition, offset, segments and customers in turn (MessagePack).
_COUNT = _Script("""
local told = redis.call('HGET', KEYS[2], ARGV[1])
local before = told and cmsgpack.unpack(told) or {-1, {}}
local at, now, left = tonumber(ARGV[2]), cmsgpack.unpack(ARGV[3]), {}
if at < before[1] then return 0 end
for i = 1, #before[2], 2 do left[before[2][i]] = -before[2][i + 1] end
for i = 1, #now, 2 do left[now[i]] = (left[now[i]] or 0) + now[i + 1] end
for segment, difference in pairs(left) do
  if difference ~= 0 then redis.call('HINCRBY', KEYS[1], segment, difference) end
end
redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack({at, now}))
return 1
""")

# KEYS: the moves of a day, what was told. ARGV: partition, offset behind all, how long they are kept, offsets and moves
# in turn (MessagePack).
_MOVE = _Script("""
local before = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '-1')
local moves = cmsgpack.unpack(ARGV[4])
for i = 1, #moves, 2 do
  if moves[i] >= before then redis.call('HINCRBY', KEYS[1], moves[i + 1], 1) end
end
if tonumber(ARGV[2]) > before then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[3]) end
return 1
""")


class _Call(NamedTuple):
    """A run of a script."""

    script: _Script
    keys: Sequence[str]
    args: Sequence[Any]


def told_key(prefix: str, counter: str) -> str:
    """Where it stands what each partition told a counter: in the counter's slot."""
    return f"{prefix}told:{{{counter}}}"


def mark_key(prefix: str, slot: int) -> str:
    """Where the mark of the node stands that has a slot."""
    return f"{prefix}view:{{{_tag(slot)}}}"


@cache
def _tag(slot: int) -> int:
    """A number whose slot this is."""
    return next(number for number in range(1 << 24) if key_slot(b"%d" % number) == slot)


def slots_to_mark(owners: Iterable[tuple[int, str]]) -> list[int]:
    """One slot of each node, of slots and their nodes.

    Every worker comes to the same, and it is seldom another one when slots move: slots are taken in an order
    that neighbours are far apart in.
    """
    first: dict[str, tuple[int, int]] = {}
    for slot, owner in owners:
        place = (slot * 40_503 & 0xFFFF, slot)
        if place < first.get(owner, (1 << 16, 0)):
            first[owner] = place
    return sorted(slot for _, slot in first.values())


class Cluster:
    """All nodes of a cluster."""

    def __init__(self, redis: RedisCluster, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
        self._marked: list[int] = []
        self._asked = float("-inf")
        self._identity = ""

    async def identify(self) -> str | None:
        """See Store. A node that was flushed, replaced, or failed over to a replica makes it another Redis."""
        await self._redis.initialize()
        if time.monotonic() - self._asked > TOPOLOGY_SECONDS:
            await self._redis.nodes_manager.initialize()
            owners = ((slot, nodes[0].name) for slot, nodes in self._redis.nodes_manager.slots_cache.items())
            self._marked, self._asked = slots_to_mark(owners), time.monotonic()
        try:
            nodes = await asyncio.gather(*map(self._identify_node, self._marked))
            identity = hashlib.sha256(" ".join(sorted(nodes)).encode()).hexdigest()[:32]
            if identity != self._identity:
                await self._load()
        except BaseException:
            self._asked = float("-inf")
            raise
        self._identity = identity
        return identity

    async def _identify_node(self, slot: int) -> str:
        key = mark_key(self._prefix, slot)
        mark = await marked(self._redis, key)
        told: Any = await self._redis.info("server", target_nodes=self._redis.get_node_from_key(key))
        return f"{mark.decode()}@{told['run_id']}"

    async def _load(self) -> None:
        for script in (_SHOW, _COUNT, _MOVE):
            await self._redis.script_load(script.text)

    async def show(self, pieces: Sequence[Piece]) -> tuple[int, int] | None:
        """See Store."""
        slots: defaultdict[int, tuple[list[str], list[Any]]] = defaultdict(lambda: ([], []))
        for entry in chain.from_iterable(map(unpacked, pieces)):
            key = f"{self._prefix}customer:{entry.customer}"
            keys, packed = slots[key_slot(key.encode())]
            keys.append(key)
            moving, fixed, gone = entry.fields()
            packed.append([entry.version, entry.writer.epoch, moving + fixed, gone])
        found = await self._run([_Call(_SHOW, keys, [self._encode(packed)]) for keys, packed in slots.values()])
        return None if found is None else (sum(each[0] for each in found), sum(each[1] for each in found))

    async def count(self, parcels: Sequence[Parcel]) -> bool:
        """See Store."""
        return await self._run([*self._counts(parcels), *self._moves(parcels)]) is not None

    def _counts(self, parcels: Sequence[Parcel]) -> Iterator[_Call]:
        latest = {parcel.partition: parcel for parcel in parcels}
        for partition, parcel in latest.items():
            for scheme, counts in parcel.counts.items():
                packed = self._encode([each for pair in counts.items() for each in pair])
                yield self._call(_COUNT, f"count:{scheme}", partition, parcel.shown.assignments, packed)

    def _moves(self, parcels: Sequence[Parcel]) -> Iterator[_Call]:
        moves: defaultdict[tuple[str, int], list[int | str]] = defaultdict(list)
        ends: dict[int, int] = {}
        for parcel in parcels:
            ends[parcel.partition] = parcel.shown.assignments
            entries = chain.from_iterable(map(unpacked, parcel.pieces))
            for move in (move for entry in entries for move in entry.moves if move.origin):
                offset = parcel.shown.assignments - 1 if move.offset is None else move.offset
                moves[move.day, parcel.partition] += [offset, move.pair]
        for (day, partition), some in moves.items():
            args = [ends[partition], MOVES_KEPT_SECONDS, self._encode(some)]
            yield self._call(_MOVE, f"moves:{day}", partition, *args)

    def _call(self, script: _Script, name: str, *args: Any) -> _Call:
        counter = self._prefix + name
        return _Call(script, [counter, told_key(self._prefix, counter)], args)

    async def _run(self, calls: Iterable[_Call]) -> list[Any] | None:
        """What the scripts gave; None if a node does not know them: it is a new one."""
        pipeline = self._redis.pipeline()
        for call in calls:
            pipeline.execute_command("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args)
        try:
            found: list[Any] = await pipeline.execute()
        except NoScriptError:
            self._identity = ""  # so that they are loaded
            return None
        except BaseException:
            self._asked = float("-inf")
            raise
        return found

    async def close(self) -> None:
        """See Store."""
        await self._redis.aclose()
