"""A Redis that does what the view asks of the real one; `test_simulator.py` compares the two."""

from __future__ import annotations

import asyncio
import copy
import random
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis.exceptions import ConnectionError as RedisAwayError

from streamseg.worker.redis_server import REBUILDING, SCRIPT
from tests.simulator.loop import WORKER, SimulatedLoop

REDIS = "Redis", 0
"""What batches are sent to, as if it were a partition."""


def _counters() -> defaultdict[str, defaultdict[str, int]]:
    return defaultdict(lambda: defaultdict(int))


@dataclass(slots=True)
class Data:
    """What Redis holds."""

    mark: bytes | None = None
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    counts: defaultdict[str, defaultdict[str, int]] = field(default_factory=_counters)
    moves: defaultdict[str, defaultdict[str, int]] = field(default_factory=_counters)
    epochs: dict[int, int] = field(default_factory=dict)

    def run(self, batch: bytes, mark: bytes) -> list[int]:
        """Do what the script does."""
        if mark != self.mark:
            return [-1, 0]
        elements, done = deque(msgspec.msgpack.decode(batch)), []
        while elements:
            customer, version, partition, epoch, *sizes = (elements.popleft() for _ in range(9))
            lists = ([elements.popleft() for _ in range(size)] for size in sizes)
            done.append(self.move(customer, version, partition, epoch, *lists))
        return [sum(done), len(done) - sum(done)]

    def move(
        self, customer: str, version: int, partition: int, epoch: int, moving: list[str], fixed: list[str],
        gone: list[str], segments: list[str], moves: list[Any],
    ) -> bool:  # fmt: skip
        """Move a customer, and the counters with it; says whether that was news."""
        self.epochs[partition] = max(epoch, self.epochs.get(partition, 0))
        if epoch < self.epochs[partition]:
            return False
        held = self.hashes.get(customer, {})
        stored = int(held.get("version", "-1"))
        if version < stored:
            return False
        if version > stored:
            for scheme, segment in zip(segments[::2], segments[1::2], strict=True):
                if held.get(scheme) != segment:
                    if scheme in held:
                        self.counts[scheme][held[scheme]] -= 1
                    self.counts[scheme][segment] += 1
            for moved, day, way in zip(moves[::3], moves[1::3], moves[2::3], strict=True):
                if moved > stored:
                    self.moves[day][way] += 1
        given = moving if version == stored else moving + fixed
        merged = {**held, **dict(zip(given[::2], given[1::2], strict=True))}
        self.hashes[customer] = {name: value for name, value in merged.items() if name not in gone}
        return True


class SimulatedRedis:
    """The client and the server in one; what it was asked may be done though the answer never comes."""

    def __init__(
        self,
        loop: SimulatedLoop,
        dice: random.Random,
        trace: Callable[[str], None],
        sent: Callable[[str, tuple[str, int]], None],
    ) -> None:
        self._loop, self._dice, self._trace, self._sent = loop, dice, trace, sent
        self.data = Data()
        self.runs = 1
        self.lost = False
        """Whether it ever lost something."""
        self._saved = Data()
        self.slow = 0.0
        """How long a way may take, at most, beyond what is usual."""
        self.loses = False
        """Whether the next batch is taken, and nobody hears of it."""
        self._away_until = 0.0

    def go(self, seconds: float, *, restart: bool) -> None:
        """Be away for so long."""
        self._away_until = self._loop.now + seconds
        self.runs += restart

    def come_back(self) -> None:
        """Be there."""
        self._away_until = self.slow = 0.0

    def flush(self) -> None:
        """Forget everything."""
        self.data, self.lost = Data(), True

    def rebuild(self, seconds: float) -> None:
        """Have somebody delete the view, as `streamseg rebuild-redis` does."""
        if self.data.mark != REBUILDING:
            self.data.mark, self.lost = REBUILDING, True
            self._loop.later(seconds * self._dice.random(), self.data.hashes.clear)
            self._loop.later(seconds, self._end_rebuilding, self.data)

    @staticmethod
    def _end_rebuilding(data: Data) -> None:
        data.counts.clear()
        data.epochs.clear()
        data.mark = None

    def save(self) -> None:
        """Keep a copy."""
        if self.data.mark != REBUILDING:
            self._saved = copy.deepcopy(self.data)

    def fall_back(self) -> None:
        """Restart from the last copy, or as a replica that was behind."""
        self.data, self.lost = copy.deepcopy(self._saved), True
        self.runs += 1

    async def _trip(self) -> None:
        slow = self._dice.uniform(0.0, self.slow) if self.slow and self._dice.random() < 0.3 else 0.0
        await asyncio.sleep(slow + self._dice.uniform(0.0005, 0.003))
        if self._loop.now < self._away_until:
            raise RedisAwayError("away")

    async def get(self, key: str) -> bytes | None:
        """Give the view's mark."""
        await self._trip()
        assert key.endswith("view")
        return self.data.mark

    async def set(self, key: str, value: str, *, nx: bool) -> None:
        """Leave a mark where there is none."""
        await self._trip()
        assert key.endswith("view")
        assert nx
        self.data.mark = self.data.mark or value.encode()

    async def info(self, _: str = "") -> dict[str, Any]:
        """Tell which run of the server this is."""
        await self._trip()
        return {"run_id": str(self.runs)}

    def register_script(self, text: str) -> Callable[..., Awaitable[list[int]]]:
        """Give what runs a script; there is one only."""
        assert text == SCRIPT
        return self._script

    async def _script(self, args: list[Any]) -> list[int]:
        """Run the view's script."""
        self._sent(WORKER.get(), REDIS)
        await self._trip()
        batch, _, _, mark = args
        answer = self.data.run(batch, mark)
        self._trace(f"Redis took {answer}")
        if self.loses:
            self.loses = False
            raise RedisAwayError("the answer is lost")
        await self._trip()
        return answer
