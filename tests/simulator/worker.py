"""A simulated worker: all of the product that decides something, between a simulated group, Kafka and Redis.

Real are the store that opens and closes partitions, the keeper, the partitions, loading, readings, the log, the lease,
the view. Simulated are Faust and aiokafka, hence who calls these, and when.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, Self, TypeVar, cast

from aiokafka import TopicPartition
from faust.types import TP

from streamseg.core.definitions import Definitions
from streamseg.core.units import Instant
from streamseg.engine import Engine
from streamseg.worker.apart import Work
from streamseg.worker.app import ShellApp
from streamseg.worker.batches import BatchConsumer, RecordBatch
from streamseg.worker.failure import fatal
from streamseg.worker.keeper import DRAIN_SECONDS as VIEW_DRAIN_SECONDS
from streamseg.worker.keeper import Keeper
from streamseg.worker.lease import Lease
from streamseg.worker.log import Log
from streamseg.worker.placement import Placement
from streamseg.worker.reading import Reading, Readings
from streamseg.worker.redis_view import RedisView
from streamseg.worker.settings import Clock, Keys, Names, Settings
from streamseg.worker.shell import Shell
from streamseg.worker.store import PartitionStore
from streamseg.worker.tolerance import Tolerance
from tests.simulator.broker import LOADS, LOOKS, Batch, Broker, Metadata, Record
from tests.simulator.loop import WORKER, SimulatedLoop

T = TypeVar("T")

EVENTS = "events"
ENGINE = "STREAMSEG_ENGINE"
"""The variable that chooses it."""
NAMES = Names("sim")
GROUP = "g"
CHANGELOG, REKEYED = NAMES.changelog(GROUP), NAMES.rekeyed(GROUP)
PARTITIONS = 2
TICK_SECONDS, COMMIT_SECONDS, HEARTBEAT_SECONDS, SESSION_SECONDS = 0.2, 1.0, 2.0, 9.0
MAX_AHEAD_SECONDS = 5
BEGAN_MS: Instant = 1_767_225_600_000


def settings(clock: Clock, keys: Keys) -> Settings:
    """What a simulated worker is told."""
    return Settings(
        definitions=Path("simulated.yaml"), kafka=(), redis="redis://nowhere/0", events=(EVENTS,), group=GROUP,
        names=NAMES, clock=clock, http_host="", http_port=0, data=Path(), keys=keys, tolerance=Tolerance(1, 0),
        max_ahead_ms=1000 * MAX_AHEAD_SECONDS, engine=Engine(os.environ.get(ENGINE, Engine.AUTO)),
    )  # fmt: skip


class Group(Protocol):
    """The group's coordinator, as a member sees it."""

    def joined(self, worker: SimulatedWorker) -> None:
        """Take a member's word that it has given up all and waits for its share."""

    def beat(self, worker: SimulatedWorker) -> bool:
        """Take a heartbeat; says whether it comes from a member."""

    def join(self, worker: SimulatedWorker) -> None:
        """Take in a new member, or one that had been forgotten."""

    def left(self, worker: SimulatedWorker) -> None:
        """Let a member go that has stopped."""

    def commits(self, worker: SimulatedWorker) -> bool:
        """Say whether a commit of the generation that a worker believes to be in is taken."""


class SimulatedConsumer:
    """Reads the changelog for the loader."""

    def __init__(self, broker: Broker, dice: random.Random) -> None:
        self._broker, self._dice = broker, dice
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        """Connect."""
        await self._trip()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def _trip(self) -> None:
        await self._broker.trip(WORKER.get())

    def _log(self, tp: TopicPartition) -> list[Record]:
        return self._broker.logs[tp.topic, tp.partition]

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Give the ends."""
        await self._trip()
        return {tp: len(self._log(tp)) for tp in tps}

    def assign(self, tps: list[TopicPartition]) -> None:
        """Read these."""
        self._positions = dict.fromkeys(tps, 0)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read on from there."""
        self._positions[tp] = offset

    def pause(self, tp: TopicPartition) -> None:
        """Read no more of it."""
        del self._positions[tp]

    async def fetched(self, seconds: float) -> AsyncIterator[tuple[TopicPartition, Sequence[Record], int]]:
        """Give some records of each, as `streamseg.worker.fetches` does."""
        del seconds
        looks = any(tp.topic == NAMES.current for tp in self._positions)
        await self._broker.trip(WORKER.get(), LOOKS if looks else LOADS)
        for tp, start in list(self._positions.items()):
            some = self._log(tp)[start : start + self._dice.choice([20, 1000])]
            if some:
                self._positions[tp] = start + len(some)
                yield tp, some, start + len(some)


class SimulatedProducer:
    """Sends batches, of sizes that nobody expects."""

    def __init__(self, broker: Broker, worker: str, dice: random.Random) -> None:
        self._broker, self._worker, self._dice = broker, worker, dice

    def create_batch(self) -> Batch:
        """Give an empty batch."""
        return Batch(self._dice.choice([1, 2, 3, 100, 100]))

    def unsent(self) -> bool:
        """Whether something was not answered."""
        return self._broker.unsent(self._worker)

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[Metadata]:
        """Queue a batch."""
        if self._dice.random() < 0.3:
            await asyncio.sleep(0)
        return self._broker.send(self._worker, (topic, partition), batch)


async def apart(work: Work[T]) -> T:
    """Does work while others have a turn."""
    await asyncio.sleep(0)
    return work()


class SimulatedShell(Shell):
    """The shell on the story's clock."""

    _app: SimulatedWorker

    def __init__(self, readings: Readings, log: Log, app: Any) -> None:
        super().__init__(readings, log, app, apart)

    @property
    def generation(self) -> int:
        return self._app.generation

    def monotonic(self) -> float:
        return self._app.loop.now

    def wall_clock(self) -> Instant:
        return BEGAN_MS + int(self._app.loop.now * 1000)

    def _end(self, tp: TP) -> tuple[int, float] | None:
        return len(self._app.broker.logs[tp.topic, tp.partition]), 0.0


class _Stream:
    """Acknowledges as Faust's stream and our consumer do."""

    async def ack(self, event: Any) -> None:
        batch: RecordBatch = event.value
        batch.reading.acknowledge(batch.end)


class SimulatedWorker:
    """One process: joins the group, takes partitions over, works. To the product's parts it is the Faust app."""

    def __init__(self, name: str, broker: Broker, group: Group, definitions: Definitions, told: Settings) -> None:
        self.name, self.broker, self.loop, self.group = name, broker, broker.loop, group
        self.dice = random.Random(broker.dice.randrange(1 << 40))
        self.generation = -1
        """The one that it believes to be in."""
        self.tasks: list[asyncio.Task[None]] = []
        self.mine: set[int] = set()
        self.pausing = False
        self._turn = asyncio.Lock()
        self._stream = _Stream()
        self._watch(self.loop)
        self._build(definitions, told)

    def _watch(self, loop: SimulatedLoop) -> None:
        self.lease = Lease(SESSION_SECONDS, lambda: loop.now)
        self.lease.renew(loop.now)

    def _build(self, definitions: Definitions, told: Settings) -> None:
        # What the product's parts look for in the app.
        self.owner = keeper = Keeper(definitions, told)
        self.readings = Readings(told.sources)
        self.assigned_generation = self.opened_generation = -1
        self.kept: frozenset[int] = frozenset()
        self.recovered = 0
        self.should_stop = self.revoking = False
        self.settings = SimpleNamespace(partitions=PARTITIONS)
        self.app = self.assignor = self
        producer = SimulatedProducer(self.broker, self.name, self.dice)
        self.producer = SimpleNamespace(_producer=producer)
        self.shell = keeper.shell = SimulatedShell(self.readings, Log(lambda: producer, 1 << 20), self)
        self.view = keeper._view = RedisView(told.redis, NAMES, keeper._metrics, wall=False)
        keeper._placement = Placement(told.keys, PARTITIONS)
        self.store = PartitionStore.__new__(PartitionStore)
        self.store.app, self.store.table = self, SimpleNamespace(changelog_topic_name=CHANGELOG)
        self.store.__post_init__()

    # What the product's parts ask of the app

    def assigned_actives(self) -> set[TP]:
        """Give the partitions of the changelog that go with our share."""
        return {TP(CHANGELOG, number) for number in self.mine}

    def client(self, kind: type[Any], **settings: Any) -> SimulatedConsumer:
        """Give a consumer."""
        del kind, settings
        return SimulatedConsumer(self.broker, self.dice)

    async def maybe_start_producer(self) -> None:
        """It runs."""

    # Life

    def start(self) -> None:
        """Begin to work; called within the worker."""
        for each in (self._run_view, self._tick, self._look, self._commit, self._beat, self._fetch):
            self.spawn(each)
        self.group.join(self)

    def spawn(self, what: Callable[..., Any], *given: Any) -> None:
        """Start a task that may only end well."""
        self.tasks.append(asyncio.create_task(_guarded(what, *given)))

    async def _run_view(self) -> None:
        await self.view.run()

    async def _tick(self) -> None:
        while True:
            for partition in self.owner._partitions.values():
                partition.tick()
            await asyncio.sleep(TICK_SECONDS)

    async def _look(self) -> None:
        await self.owner._look()

    async def _beat(self) -> None:
        while True:
            asked = self.loop.now
            await asyncio.sleep(self.dice.uniform(0.001, 0.05))
            member = self.group.beat(self)
            await asyncio.sleep(self.dice.uniform(0.001, 0.05))
            if member and self.generation != -1:
                self.lease.renew(asked)
                self.broker.wake(self.name)
            elif not member and not self.should_stop:
                self.generation = -1
                ShellApp.kicked_out(cast(Any, self))
                self.group.join(self)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    # Reading

    async def _fetch(self) -> None:
        """Poll, and hand over, as the consumer and the agent do."""
        batches: list[RecordBatch] = []
        while True:
            await asyncio.sleep(self.dice.uniform(0.005, 0.1) if batches else self.dice.uniform(0.05, 0.25))
            batches = [batch for reading in sorted(self.readings, key=_place) if (batch := self._poll(reading))]
            if self.dice.random() < 0.3:
                await asyncio.sleep(self.dice.uniform(0.0, 0.05))
            for batch in batches:
                ShellApp.hand_over(cast(Any, self), self._stream, SimpleNamespace(value=batch))

    def _poll(self, reading: Any) -> RecordBatch | None:
        if not reading.positioned or self.owner.full(reading.tp.partition):
            return None
        some = self.broker.logs[reading.tp][reading.fetched : reading.fetched + self.dice.choice([1, 2, 3, 8, 30])]
        if not some:
            return None
        batch = RecordBatch(reading, cast(Any, some), reading.fetched, some[-1].offset + 1)
        reading.fetched = batch.end
        return batch

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(0.3, COMMIT_SECONDS))
            await self.commit()

    async def commit(self) -> bool:
        """Commit what was acknowledged."""
        if self.group.commits(self):
            for reading in sorted(self.readings, key=_place):
                if reading.committable is not None:
                    self.broker.commit(reading.tp, reading.committable)
        return True

    # Rebalances, as Faust and our consumer do them: all of it in one coroutine, one rebalance after the other

    async def revoke(self) -> None:
        """Stop to read, let what is in flight come to an end, commit, and tell the group that we are ready."""
        async with self._turn:
            for reading in sorted(self.readings, key=_place):
                reading.suspend()
            self.revoking = True
            await BatchConsumer.wait_empty(cast(Any, self))
            await self.broker.flush(self.name)
            self.revoking = False
            self.group.joined(self)

    async def assign(self, generation: int, mine: set[int]) -> None:
        """Take our share."""
        self.generation = generation
        async with self._turn:
            if self.should_stop:
                return
            self.mine = mine
            await self.store.on_rebalance(set(), set(), set(), generation)
            for reading in sorted(self.readings, key=_place):
                if reading.next is None:
                    committed = self.broker.committed.get(reading.tp)
                    reading.begin(committed, 0, len(self.broker.logs[reading.tp]))
                reading.place()
                reading.resume()

    async def stop(self) -> None:
        """End in good order, as at a SIGTERM."""
        self.should_stop = True
        async with self._turn:
            for reading in sorted(self.readings, key=_place):
                reading.suspend()
            await self.store._close(set(self.store._open))
            await self.commit()
            await self.view.drain(VIEW_DRAIN_SECONDS)
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self.group.left(self)


async def _guarded(what: Callable[..., Any], *given: Any) -> None:
    with suppress(asyncio.CancelledError), fatal(what.__name__.strip("_")):
        await what(*given)


def _place(reading: Reading) -> TP:
    """An order of readings that does not depend on hashes."""
    return reading.tp
