"""What is done to a world, and when: between any two steps of a worker, and rather near what it writes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.simulator.broker import LOADS, TopicPartition
from tests.simulator.redis import REDIS
from tests.simulator.worker import CHANGELOG, NAMES, REKEYED, SESSION_SECONDS, SimulatedWorker

if TYPE_CHECKING:
    from tests.simulator.story import World

WEIGHTS = {
    "kill": 30, "freeze": 26, "stop": 8, "join": 8, "rebalance": 12, "refuse": 5, "lose an ack": 7, "slow acks": 7,
    "detour": 7, "Redis away": 5, "Redis slow": 5, "Redis flushed": 3, "Redis behind": 3, "Redis rebuilt": 3,
    "lose an answer": 5, "slow loads": 5, "handover": 6, "last word": 5,
}  # fmt: skip
TOPICS = (CHANGELOG, CHANGELOG, CHANGELOG, NAMES.changes, NAMES.current, NAMES.dead_letters, REKEYED)
STATES, FENCES = ("states", 0), ("fences", 0)
"""What of the changelog is customers' states, and what begins a take-over, as if each were a partition."""
THEMES = (
    ("rebalance",), ("rebalance",), ("freeze",), ("kill",), ("kill",), ("Redis flushed", "Redis behind"),
    ("Redis slow", "freeze"), ("Redis slow", "freeze"), ("Redis slow", "lose an answer"), ("slow loads", "freeze"),
    ("handover",), ("handover",), ("last word",), ("last word",),
)  # fmt: skip
PATIENCE = 1_500
"""Steps of workers to wait for something to be near to."""


class Faults:
    """Some faults of some kinds, at moments that the dice choose."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world, self._dice = world, dice
        self.injected: Counter[str] = Counter()
        self._left = dice.randrange(1, 12)
        self._kinds = [kind for kind in WEIGHTS if dice.random() < 0.6] or ["kill"]
        if dice.random() < 0.3:  # one thing again and again is what chance alone seldom brings
            self._left, self._kinds = dice.randrange(3, 16), list(dice.choice(THEMES))
            # Whoever comes back is told of again, whatever had the last word of them.
            world.fleeting |= self._kinds == ["last word"] and dice.random() < 0.6
        self._kind = ""
        self._near = "", ""
        self._victim = ""
        self._steps = 0
        self._choose()

    def end(self) -> None:
        """Do nothing any more."""
        self._left = 0

    def _choose(self) -> None:
        """Choose what comes next, and near to what."""
        dice = self._dice
        [self._kind] = dice.choices(self._kinds, [WEIGHTS[kind] for kind in self._kinds])
        self._victim, self._near, self._steps = "", ("", ""), PATIENCE
        if dice.random() < 0.3:
            self._steps = 1 + int(dice.expovariate(1 / 300))
        elif self._kind in ("freeze", "rebalance") and dice.random() < 0.8:
            frozen_near: Sequence[str] = (CHANGELOG, STATES[0], STATES[0], FENCES[0], LOADS[0], REDIS[0])
            if self._kinds == ["Redis slow", "freeze"]:  # what is on its way to Redis is fenced there alone
                frozen_near = STATES[0], REDIS[0], REDIS[0]
            self._near = "sent", dice.choice(frozen_near if self._kind == "freeze" else (CHANGELOG, STATES[0]))
        elif self._kind == "handover":
            self._near = "sent", STATES[0]
        elif self._kind == "last word":
            self._near = "sent", NAMES.current
        else:
            # Who only dies does so near what it sends on: that it is sent twice is seen by the dead alone.
            topic = REKEYED if self._kinds == ["kill"] and dice.random() < 0.6 else dice.choice(TOPICS)
            self._near = dice.choice(("sent", "arrived", "arrived")), topic

    def after_step(self, worker: str) -> None:
        """Take note of a worker's step."""
        if self._left:
            self._steps -= 1
            if self._steps <= 0:
                self._strike(self._victim or worker)

    def met(self, what: str, worker: str, place: TopicPartition) -> None:
        """Take note of what was sent by a worker, or has arrived from it."""
        if self._left and not self._victim and (what, place[0]) == self._near:
            in_flight = (
                place == REDIS
                or self._kind in ("handover", "last word")
                or (self._kind == "freeze" and what == "sent" and place != FENCES)
            )
            most = 3 if in_flight else self._dice.choice([3, 12, 40])
            self._victim, self._steps = worker, self._dice.randrange(1, most)

    def _strike(self, name: str) -> None:
        self._left -= 1
        worker = self._world.running.get(name)
        if worker is not None and self._inject(self._kind, worker):
            self.injected[self._kind] += 1
        self._choose()

    def _inject(self, kind: str, worker: SimulatedWorker) -> bool:
        """Do it, and say whether it could be done."""
        world, dice = self._world, self._dice
        broker, redis, topic = world.broker, world.redis, dice.choice(TOPICS)
        match kind:
            case "kill":
                world.kill(worker, "kill -9")
            case "freeze":
                return self._freeze(worker)
            case "stop":
                return world.stop(worker)
            case "join":
                return world.start_one_more()
            case "rebalance":
                if dice.random() < 0.7:  # when acknowledgements take long, and what they release takes longer
                    self._inject("slow acks", worker)
                    broker.detour = dice.choice([NAMES.current, NAMES.current, topic]), worker.name
                    world.loop.later(dice.uniform(5.0, 15.0), world.straighten)
                world.trace("the group begins anew")
                world.loop.later(dice.uniform(0.0, 0.3), world.begin_anew)
            case "handover":
                world.trace(f"{worker.name} hears late that its states are safe, and its assignments take long")
                broker.late, broker.detour = worker.name, (NAMES.current, worker.name)
                world.loop.later(dice.uniform(8.0, 15.0), world.straighten)
                world.loop.later(dice.uniform(0.0, 0.1), world.begin_anew)
            case "last word":
                seconds = SESSION_SECONDS + dice.uniform(1.0, 14.0)
                if dice.random() < 0.5:
                    world.loop.later(
                        seconds + dice.uniform(0.0, 4.0), self._disturb, dice.choice(["kill", "rebalance"])
                    )
                return world.freeze(worker, seconds)
            case "refuse":
                world.trace(f"the broker will refuse a batch to {topic}")
                broker.refuses = topic
            case "lose an ack":
                world.trace(f"an acknowledgement of {topic} will be lost")
                broker.loses = topic
            case "slow acks":
                broker.slow = dice.choice([1.0, 5.0, 15.0])
                world.trace(f"acknowledgements take up to {broker.slow} s")
                world.loop.later(dice.uniform(1.0, 15.0), world.hurry)
            case "slow loads":
                world.trace("the changelog is read slowly")
                broker.slow_loads = 2.0
                world.loop.later(dice.uniform(5.0, 30.0), world.load_fast)
            case "detour":
                broker.detour = topic, ""
                world.trace(f"what is sent to {topic} takes long")
                world.loop.later(dice.uniform(1.0, 15.0), world.straighten)
            case "Redis away":
                world.trace("Redis is away")
                redis.go(dice.uniform(0.5, 8.0), restart=dice.random() < 0.5)
            case "Redis slow":
                world.trace("Redis is slow")
                redis.slow = 2.0
                world.loop.later(dice.uniform(1.0, 15.0), redis.come_back)
            case "lose an answer":
                world.trace("an answer of Redis will be lost")
                redis.loses = True
            case "Redis flushed":
                world.trace("Redis is flushed")
                redis.flush()
                self._disturb_filling(worker)
            case "Redis behind":
                world.trace("Redis falls back")
                redis.fall_back()
                self._disturb_filling(worker)
            case "Redis rebuilt":
                world.trace("Redis is rebuilt")
                redis.rebuild(dice.uniform(0.01, 2.0))
        return True

    def _disturb_filling(self, worker: SimulatedWorker) -> None:
        """Something else happens while Redis is shown all customers again."""
        dice, world = self._dice, self._world
        if dice.random() < 0.8:
            self._inject("Redis slow", worker)
        if dice.random() < 0.9:
            world.loop.later(dice.uniform(0.0, 4.0), self._disturb, dice.choice(["kill", "freeze", "rebalance"]))

    def _disturb(self, kind: str) -> None:
        workers = [worker for worker in self._world.running.values() if not worker.should_stop]
        if workers and not self._world.good and self._inject(kind, self._dice.choice(workers)):
            self.injected[kind] += 1

    def _freeze(self, worker: SimulatedWorker) -> bool:
        seconds = self._dice.uniform(0.1, 6.0)
        if self._dice.random() < 0.75:
            seconds = SESSION_SECONDS + self._dice.uniform(-1.0, 10.0)
        return self._world.freeze(worker, seconds)
