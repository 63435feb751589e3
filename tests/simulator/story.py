"""One seed, one story: customers' events, workers that come, die and freeze, and what must be true in the end."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from streamseg.core import profile
from streamseg.core.errors import TryAgainError
from streamseg.core.event import FINGERPRINT_BYTES
from streamseg.core.units import Instant
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.state import FENCE_KEY, FIRST_CUSTOMER
from streamseg.worker import (
    app,
    batches,
    compiled,
    failure,
    keeper,
    log,
    memory,
    partition,
    reading,
    redis_server,
    redis_view,
    store,
)
from streamseg.worker.log import Item
from streamseg.worker.metrics import Metrics
from streamseg.worker.placement import partition_of
from streamseg.worker.settings import Clock, Keys
from tests.simulator.broker import LOOKS, Broker, RefusedError, TopicPartition, UnansweredError
from tests.simulator.faults import FENCES, STATES, Faults
from tests.simulator.group import SimulatedGroup
from tests.simulator.judge import Judge, WrongError, lost_by_compaction
from tests.simulator.loop import WORKER, SimulatedLoop
from tests.simulator.redis import SimulatedRedis
from tests.simulator.worker import (
    BEGAN_MS,
    CHANGELOG,
    ENGINE,
    EVENTS,
    MAX_AHEAD_SECONDS,
    NAMES,
    PARTITIONS,
    REKEYED,
    SimulatedConsumer,
    SimulatedProducer,
    SimulatedWorker,
    settings,
)

DEFINITIONS = load_definitions(b"""\
version: 1
currency: EUR
refund_window: 1s
features:
  orders: count(purchase, 2m)
  ever: sum(purchase.amount, all)
  spend: sum(purchase.amount, 1h)
schemes:
  value:
    default: nobody
    segments:
      - name: top
        when: orders >= 3
        stay_when: orders >= 2
        min_stay: 30s
      - name: buyer
        when: orders >= 1 and spend > 5
  seen:
    default: away
    segments:
      - name: here
        when: since(any) <= 45s
""")
CUSTOMERS = 6
REMEMBERED_BYTES = FINGERPRINT_BYTES, 3 * FINGERPRINT_BYTES
"""Of the ids of a customer's latest events: so few that they do not hide events that come again, as orders would that
are remembered for longer."""
REFRESH_AFTER = 2.0
"""Sooner than in the product: a story is short, and a zombie's forecasts shall come into it."""
MOST_WORKERS = 3
QUIET_SECONDS = {Clock.STREAM: 8.0, Clock.WALL: 60.0}
LIMIT_SECONDS = 600.0
GRACE_SECONDS = 30.0
"""From SIGTERM to SIGKILL."""
EXPECTED_DEATHS = (TryAgainError, RefusedError, UnansweredError)
METRICS = Metrics(DEFINITIONS)


class Killed(BaseException):
    """Ends the step of a worker that has died."""


@dataclass(slots=True)
class World:
    """All that is in a story."""

    seed: int
    traced: bool = False
    lines: list[str] = field(default_factory=list)
    """The trace."""
    dice: random.Random = field(init=False)
    loop: SimulatedLoop = field(init=False)
    broker: Broker = field(init=False)
    redis: SimulatedRedis = field(init=False)
    group: SimulatedGroup = field(init=False)
    faults: Faults = field(init=False)
    clock: Clock = field(init=False)
    keys: Keys = field(init=False)
    mess: float = field(init=False)
    """Of how many events key and partition are anything."""
    customers: int = field(init=False)
    fleeting: bool = field(init=False)
    """Whether customers come for a while only: what is wrong of them is not soon put right by chance."""
    paces: tuple[int, ...] = field(init=False)
    """How many milliseconds may lie between events, if these move the clock."""
    running: dict[str, SimulatedWorker] = field(default_factory=dict)
    """Those that live, frozen ones among them."""
    gone: list[SimulatedWorker] = field(default_factory=list)
    """The dead: kept, so that nothing of them is collected amid the story."""
    frozen: set[str] = field(default_factory=set)
    """Those that ever were: nothing of theirs need have come in time."""
    seen: Counter[str] = field(default_factory=Counter)
    """What came of faults."""
    started: int = 0
    ended: bool = False
    good: bool = False
    """Nothing bad happens any more."""
    looks_left: int = 2
    """How many workers may still die of having looked at assignments."""
    wrong: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    """The id of each customer's last event."""

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.clock = Clock.STREAM if self.dice.random() < 0.6 else Clock.WALL
        self.keys = Keys.REJECT if self.dice.random() < 0.6 else Keys.REKEY
        self.mess = 0.03 if self.keys is Keys.REJECT else self.dice.choice([0.1, 0.5, 1.0])
        # Of few customers, several events are sent on at once: the first is forgotten when all are sent on again.
        self.customers = 2 if self.mess >= 0.5 and self.dice.random() < 0.6 else CUSTOMERS
        self.fleeting = self.dice.random() < 0.3
        self.paces = self.dice.choice([(0, 500, 1_000), *[(0, 1_000, 20_000, 60_000)] * 3])
        self.loop = SimulatedLoop()
        self.loop.set_exception_handler(lambda *_: None)
        self.broker = Broker(self.loop, self.dice, self.trace, self._may_send, self._owns, self._sent, self._arrived)
        self.redis = SimulatedRedis(self.loop, self.dice, self.trace, self._sent)
        self.group = SimulatedGroup(self.broker, self.dice, self.trace, self._gives)
        self.faults = Faults(self, self.dice)
        self.loop.after_step = self.faults.after_step

    def trace(self, what: str) -> None:
        """Note what happened."""
        if self.traced:
            self.lines.append(f"{self.loop.now:9.4f} {self.loop.steps:6d} {what}")

    def _may_send(self, name: str) -> bool:
        return name in self.running and self.running[name].lease.valid

    def _owns(self, name: str, number: int) -> bool:
        return self.group.owners.get(number) == name

    def _sent(self, worker: str, place: TopicPartition, items: Sequence[Item] = ()) -> None:
        self.faults.met("sent", worker, place)
        if place == LOOKS and self.broker.slipped and self.dice.random() < 0.8:
            self.loop.later(self.dice.uniform(0.01, 0.06), self._kill_looking, worker)
        if place[0] == CHANGELOG:
            keys = {key or b"" for key, _, _ in items}
            if any(key >= FIRST_CUSTOMER for key in keys):
                self.faults.met("sent", worker, STATES)
            if FENCE_KEY in keys:
                self.faults.met("sent", worker, FENCES)

    def _arrived(self, worker: str, place: TopicPartition) -> None:
        self.faults.met("arrived", worker, place)
        if place[0] == CHANGELOG and worker not in self.group.members:
            self.seen["records of zombies"] += 1
            if not self.good and self.dice.random() < 0.5:
                self.loop.later(self.dice.uniform(0.0, 0.3), self._kill_owner, place[1])

    def _gives(self) -> None:
        """Partitions are about to be taken over: the best moment for zombies to wake."""
        for worker in self.running.values():
            if worker.name in self.loop.frozen and worker.name not in self.group.members and self.dice.random() < 0.5:
                self.loop.later(self.dice.uniform(0.0, 0.2), self._thaw, worker)

    def _kill_owner(self, number: int) -> None:
        """The worst moment for an owner to die: a zombie has just written."""
        for worker in list(self.running.values()):
            if number in worker.store._open and worker.name in self.group.members and not self.good:
                self.faults.injected["kill"] += 1
                self.kill(worker, "kill -9, behind a zombie")

    def _kill_looking(self, name: str) -> None:
        """As bad: an owner dies that has just found what a zombie had written."""
        if name in self.running and self.looks_left:
            self.looks_left -= 1
            self.faults.injected["kill"] += 1
            self.kill(self.running[name], "kill -9, after a look at assignments")

    # Workers

    def start_worker(self) -> None:
        """Start a process."""
        self.started += 1
        name = f"w{self.started}"
        self.trace(f"{name} starts")
        worker = SimulatedWorker(name, self.broker, self.group, DEFINITIONS, settings(self.clock, self.keys))
        self.running[name] = worker
        self.loop.within(name, worker.start)

    def start_one_more(self) -> bool:
        """Start another process, if there are not too many."""
        if len(self.running) < MOST_WORKERS:
            self.start_worker()
            return True
        return False

    def begin_anew(self) -> None:
        """Have partitions given out anew, among two workers at least."""
        if len(self.running) > 1 or not self.start_one_more():
            self.group.rebalance()

    def _start_again(self) -> None:
        if not self.good or not self.running:
            self.start_one_more()

    def kill(self, worker: SimulatedWorker, how: str) -> None:
        """End a process between two of its steps."""
        self.trace(f"{worker.name} dies: {how}")
        self.broker.die(worker.name)
        self.loop.kill(worker.name)
        del self.running[worker.name]
        self.gone.append(worker)
        self.loop.later(self.dice.uniform(0.1, 3.0), self._start_again)

    def freeze(self, worker: SimulatedWorker, seconds: float) -> bool:
        """Stop a process for some time."""
        if worker.name in self.loop.frozen:
            return False
        self.trace(f"{worker.name} freezes for {seconds:.1f} s")
        self.loop.freeze(worker.name)
        self.frozen.add(worker.name)
        self.broker.freeze(worker.name)
        self.loop.later(seconds, self._thaw, worker)
        if len(self.running) == 1:  # somebody has to become the owner meanwhile
            self.loop.later(self.dice.uniform(0.0, 8.0), self.start_one_more)
        return True

    def _thaw(self, worker: SimulatedWorker) -> None:
        if worker.name in self.running and worker.name in self.loop.frozen:
            zombie = worker.name not in self.group.members
            sending = self.broker.unsent(worker.name)
            self.trace(f"{worker.name} wakes{', a zombie' if zombie else ''}{', sending' if sending else ''}")
            self.seen["zombies"] += zombie
            self.seen["zombies with sends in flight"] += zombie and sending
            self.loop.thaw(worker.name)
            self.broker.wake(worker.name)

    def stop(self, worker: SimulatedWorker) -> bool:
        """Tell a process to stop; another one may take its place."""
        if worker.should_stop:
            return False
        self.trace(f"{worker.name} is told to stop")
        self.loop.within(worker.name, worker.spawn, self._stop, worker)
        self.loop.later(GRACE_SECONDS, self._lose_patience, worker)
        return True

    def _lose_patience(self, worker: SimulatedWorker) -> None:
        """As whoever told it to stop would."""
        if worker.name in self.running:
            self.kill(worker, "kill -9, it did not stop")

    async def _stop(self, worker: SimulatedWorker) -> None:
        await worker.stop()
        self.trace(f"{worker.name} has stopped")
        self.loop.kill(worker.name)
        del self.running[worker.name]
        self.gone.append(worker)
        if not self.running or self.dice.random() < 0.7:
            self.loop.later(self.dice.uniform(0.1, 2.0), self._start_again)

    def die(self, what: str, error: BaseException) -> None:
        """What `failure.die` does in a story."""
        worker = self.running.get(WORKER.get())
        if self.ended or worker is None:
            raise Killed
        late = isinstance(error, TimeoutError) and worker.name in self.frozen
        if not late and not isinstance(error, EXPECTED_DEATHS):
            self.wrong.append(f"{worker.name}: {what} failed: {error!r}")
        self.seen[f"ended by {type(error).__name__}"] += 1
        self.kill(worker, f"{what}: {error}")
        raise Killed

    async def connected(self, url: str, prefix: str) -> redis_server.Server:
        """What `redis_view.connected` does in a story."""
        del url
        await self.redis.info("cluster")
        return redis_server.Server(cast(Any, self.redis), prefix)

    # The broker, for a while

    def hurry(self) -> None:
        """Have acknowledgements come as usual."""
        self.broker.slow = 0.0

    def load_fast(self) -> None:
        """Have the changelog be read as usual."""
        self.broker.slow_loads = 0.0

    def straighten(self) -> None:
        """Have batches go their usual way."""
        self.broker.detour = "", ""

    # The story

    async def tell(self) -> None:
        """Live through it, and judge."""
        for _ in range(self.dice.randrange(1, MOST_WORKERS + 1)):
            self.start_worker()
        await self._send_events()
        self._be_good()
        await self._settle()
        self.seen["rebalances"] += self.group.generation
        self.seen["sent without a lease"] += len(self.broker.slipped)
        self.seen["outdated assignments sent without a lease"] += _outdated(self.broker)
        if self.wrong:
            raise WrongError(self.wrong[0])
        now = BEGAN_MS + int(self.loop.now * 1000)
        Judge(DEFINITIONS, self.broker, self.redis, self.keys, self.clock, now).judge()

    async def _send_events(self) -> None:
        count, now = self.dice.randrange(20, 70), BEGAN_MS
        saved = self.dice.randrange(count)
        for number in range(count):
            await asyncio.sleep(self.dice.choice([0.0, 0.0, 0.01, 0.3, 2.0]))
            if self.clock is Clock.STREAM:
                now += self.dice.choice(self.paces)
            else:
                now = BEGAN_MS + int(self.loop.now * 1000)
            self._send_event(number, now)
            if number == saved:
                self.redis.save()
        self.trace("all events are sent")
        await asyncio.sleep(self.dice.uniform(0.0, 12.0))

    def _send_event(self, number: int, now: Instant) -> None:
        dice, name = self.dice, f"e{number}"
        customer = f"c{number // 9 + dice.randrange(3) if self.fleeting else dice.randrange(self.customers)}"
        if dice.random() < 0.1:  # the id of any event, or the customer's last one
            name = self._names.get(customer, name) if dice.random() < 0.5 else f"e{dice.randrange(number + 1)}"
        self._names[customer] = name
        key: bytes | None = customer.encode()
        target = partition_of(customer, PARTITIONS)
        if dice.random() < self.mess:
            key, target = dice.choice([key, key, None, b"somebody"]), dice.randrange(PARTITIONS)
        event = _event(dice, name, customer, now, self.clock)
        value = b"no event" if dice.random() < 0.05 else json.dumps(event).encode()
        self.broker.write((EVENTS, target), [(key, value, [])])

    def _be_good(self) -> None:
        self.trace("the world is good from now on")
        self.good = True
        self.faults.end()
        self.redis.come_back()
        self.redis.loses = False
        self.hurry()
        self.load_fast()
        self.straighten()
        self.broker.refuses = self.broker.loses = self.broker.late = ""

    def _said(self) -> int:
        return sum(len(told) for (topic, _), told in self.broker.logs.items() if topic != CHANGELOG)

    def _done(self) -> bool:
        """Whether everybody is at work, nothing is late, and all events are committed."""
        return (
            self.group.complete(self.running)
            and not self.loop.frozen
            and self.broker.busy_until <= self.loop.now + 0.1
            and all(
                self.broker.committed.get((topic, number), 0) == len(self.broker.logs[topic, number])
                for number in range(PARTITIONS)
                for topic in (EVENTS, REKEYED)
            )
        )

    async def _settle(self) -> None:
        """Wait until all is committed, and nobody has had anything to say for a while."""
        limit, quiet, said = self.loop.now + LIMIT_SECONDS, 0.0, -1
        while quiet < QUIET_SECONDS[self.clock]:
            await asyncio.sleep(1.0)
            before, said = said, self._said()
            quiet = quiet + 1.0 if self._done() and (before == said or self.clock is Clock.WALL) else 0.0
            if self.loop.now > limit:
                raise WrongError("the story does not come to an end: something is not committed, or never quiet")
        limit = self.loop.now + 2 * partition.CHECKPOINT_ANYWAY
        while self.loop.now < limit and any(self._shadowed(number) for number in range(PARTITIONS)):
            await asyncio.sleep(1.0)
        while any(worker.owner.writing or worker.view._queue for worker in self.running.values()):
            await asyncio.sleep(0.1)  # by the wall clock there may always be a deadline just now

    def _shadowed(self, number: int) -> bool:
        return bool(lost_by_compaction(self.broker.logs[CHANGELOG, number]))


def _outdated(broker: Broker) -> int:
    """How many assignments came behind newer ones."""
    found, last = 0, dict[bytes | None, int]()
    for number in range(PARTITIONS):
        for record in broker.logs[NAMES.current, number]:
            version = json.loads(record.value or b"")["version"]
            found += version < last.get(record.key, 0)
            last[record.key] = version
    return found


def _event(dice: random.Random, name: str, customer: str, time: Instant, clock: Clock) -> dict[str, Any]:
    amount = dice.randrange(900) / 100
    event: dict[str, Any] = {"id": name, "type": "purchase", "customer_id": customer, "time": time, "amount": amount}
    if dice.random() < 0.3:
        event |= {"type": "page_view"}
    if dice.random() < (0.1 if clock is Clock.STREAM else 0.4):
        event |= {"time": time - dice.randrange(50_000)}
    elif clock is Clock.WALL and dice.random() < 0.25:  # it is rejected, unless it is taken late enough
        event |= {"time": time + dice.randrange(2_000 * MAX_AHEAD_SECONDS), "props": {"ahead": True}}
    return event


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Have the product's clocks, chance and deaths be the story's."""

    def now() -> float:
        return world.loop.now

    clock = SimpleNamespace(monotonic=now, perf_counter=now, time=now)
    chance = SimpleNamespace(token_hex=lambda size: f"{world.dice.randrange(1 << 8 * size):x}")
    engine = os.environ.get(ENGINE, ("auto", "python")[world.seed % 2])  # every other story without the compiled core
    with ExitStack() as patches:
        patches.enter_context(mock.patch.dict(os.environ, {ENGINE: engine}))
        for module in (batches, keeper, log, partition, reading, redis_view, store):
            patches.enter_context(mock.patch.object(module, "time", clock))
        patches.enter_context(mock.patch.object(redis_server, "secrets", chance))
        patches.enter_context(mock.patch.object(redis_view, "connected", world.connected))
        patches.enter_context(mock.patch.object(store, "fetched", SimulatedConsumer.fetched))
        patches.enter_context(mock.patch.object(store, "LOOK_AHEAD", world.dice.choice([8, 30, 10_000])))
        at_once = world.dice.choice([1, 2, partition.REFRESHED])
        for module in (compiled, partition):
            patches.enter_context(mock.patch.object(module, "REFRESHED", at_once))
        patches.enter_context(mock.patch.object(partition, "REFRESH_AFTER", REFRESH_AFTER))
        # With an event forecasts are compared always, seldom, or never.
        watched = world.dice.choice([0, 3, partition.WATCHED_EVENTS])
        for kind in (compiled.CompiledPartition, partition.Partition):
            patches.enter_context(mock.patch.object(kind, "watched_events", watched))
        patches.enter_context(mock.patch.object(compiled, "ROOMS", 2))
        patches.enter_context(mock.patch.object(compiled, "SMALL", 12))
        # Work apart, during which others have a turn, may be as short as one event.
        least = world.dice.choice([1, compiled.APART_EVENTS])
        patches.enter_context(mock.patch.object(compiled, "APART_EVENTS", least))
        patches.enter_context(mock.patch.object(memory, "give_back"))
        patches.enter_context(mock.patch.object(profile, "RING_BYTES", world.dice.choice(REMEMBERED_BYTES)))
        patches.enter_context(mock.patch.object(keeper, "Metrics", return_value=METRICS))
        patches.enter_context(mock.patch.object(METRICS, "observe"))
        for module in (app, failure):
            patches.enter_context(mock.patch.object(module, "die", world.die))
        patches.enter_context(mock.patch.object(app, "unsent", SimulatedProducer.unsent))
        yield


@dataclass(slots=True)
class Told:
    """What is left of a story."""

    seed: int
    wrong: str = ""
    """What was not true; empty if all was."""
    trace: list[str] = field(default_factory=list)
    injected: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    steps: int = 0


def tell(seed: int, *, traced: bool = False) -> Told:
    """Live through the story of a seed, and judge it."""
    told = Told(seed)
    collecting = gc.isenabled()
    gc.disable()  # what is left of dead workers would do something in the midst of the story
    try:
        with silenced():
            _live(World(seed, traced), told)
            gc.collect(0)  # here, where nothing of it does any harm; all of the story is young
    finally:
        if collecting:
            gc.enable()
    return told


def _live(world: World, told: Told) -> None:
    try:
        with simulated(world):
            world.loop.run_until_complete(world.tell())
    except Exception as error:  # noqa: BLE001 (whatever it is, the story did not end as it must)
        told.wrong = f"{type(error).__name__}: {error}"
    finally:
        world.ended = True
        world.loop.close()
    told.trace, told.steps = world.lines, world.loop.steps
    told.injected, told.seen = world.faults.injected, world.seen


@contextmanager
def silenced() -> Iterator[None]:
    """Have workers that were killed amid something leave without a word, when they are collected."""
    loggers = [logging.getLogger(name) for name in ("asyncio", "streamseg.worker")]
    before, hook = [each.level for each in loggers], sys.unraisablehook
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    sys.unraisablehook = lambda _: None

    def die(what: str, error: BaseException) -> None:
        raise Killed(what) from error

    try:
        with mock.patch.object(failure, "die", die), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)
