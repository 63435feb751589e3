"""A consumer group that does what Kafka's coordinator does: members, generations, sessions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from tests.simulator.broker import Broker
from tests.simulator.worker import PARTITIONS, SESSION_SECONDS, SimulatedWorker

LOOK_SECONDS = 0.5


class SimulatedGroup:
    """Gives partitions out anew whenever a member comes or goes, once all others have given up theirs."""

    def __init__(
        self, broker: Broker, dice: random.Random, trace: Callable[[str], None], gives: Callable[[], None]
    ) -> None:
        self._broker, self._loop, self._dice, self._trace = broker, broker.loop, dice, trace
        self._gives = gives
        self.generation = 0
        self.owners: dict[int, str] = {}
        """Whose the partitions are."""
        self.members: dict[str, SimulatedWorker] = {}
        self._seen: dict[str, float] = {}
        self._preparing = False
        self._awaited: set[str] = set()
        """Members that have not given up their partitions yet."""
        self._asked: set[str] = set()
        self._look()

    # What members say

    def join(self, worker: SimulatedWorker) -> None:
        """Take in a member."""
        self._trace(f"{worker.name} joins the group")
        self.members[worker.name] = worker
        self._seen[worker.name] = self._loop.now
        self.rebalance()

    def left(self, worker: SimulatedWorker) -> None:
        """Let a member go."""
        if self.members.pop(worker.name, None) is not None:
            self._trace(f"{worker.name} leaves the group")
            self._awaited.discard(worker.name)
            self.rebalance()

    def beat(self, worker: SimulatedWorker) -> bool:
        """Take a heartbeat."""
        self._seen[worker.name] = self._loop.now
        return self.members.get(worker.name) is worker

    def commits(self, worker: SimulatedWorker) -> bool:
        """Say whether its generation is the present one."""
        return self.members.get(worker.name) is worker and worker.generation == self.generation

    def joined(self, worker: SimulatedWorker) -> None:
        """Note that a member waits for its share."""
        self._seen[worker.name] = self._loop.now
        self._awaited.discard(worker.name)
        self._go_on()

    def complete(self, running: Mapping[str, SimulatedWorker]) -> bool:
        """Whether those who run are its members, and each has opened its share of the present generation."""
        return (
            not self._preparing
            and self.members.keys() == running.keys()
            and all(worker.opened_generation == self.generation for worker in running.values())
        )

    # What becomes of it

    def rebalance(self) -> None:
        """Begin to give partitions out anew; members that are ready already stay so."""
        if not self._preparing:
            self._preparing, self._asked = True, set()
            self._awaited = set(self.members)
        for name, worker in self.members.items():
            if name not in self._asked:
                self._asked.add(name)
                self._awaited.add(name)
                self._loop.later(self._dice.uniform(0.0, 0.5), self._ask, worker)
        self._go_on()

    def _hears(self, worker: SimulatedWorker) -> bool:
        return self.members.get(worker.name) is worker and worker.name not in self._loop.dead

    def _ask(self, worker: SimulatedWorker) -> None:
        if not self._hears(worker) or worker.name not in self._awaited:
            return
        if worker.name in self._loop.frozen:
            self._loop.later(LOOK_SECONDS, self._ask, worker)
        else:
            self._loop.within(worker.name, worker.spawn, worker.revoke)

    def _go_on(self) -> None:
        if not self._preparing or self._awaited or not self.members:
            return
        self._preparing = False
        self.generation += 1
        names = self._order()
        for place, name in enumerate(names):
            mine = {number for number in range(PARTITIONS) if number % len(names) == place}
            self._trace(f"generation {self.generation}: {name} gets {sorted(mine)}")
            self.owners.update(dict.fromkeys(mine, name))
            heard = self._dice.uniform(0.0, 4.0) if self._dice.random() < 0.1 else self._dice.uniform(0.001, 0.05)
            self._loop.later(heard, self._answer_join, self.members[name], self.generation, mine)

    def _order(self) -> list[str]:
        """Members in the order in which they get partitions; often nobody keeps any."""
        names = list(self.members)
        if self._dice.random() < 0.5:
            self._dice.shuffle(names)
            return names
        names.sort(key=lambda name: min(self.members[name].mine, default=PARTITIONS))
        return names[1:] + names[:1]

    def _answer_join(self, worker: SimulatedWorker, generation: int, mine: set[int]) -> None:
        """The worker hears of the generation; what its share is comes a moment later."""
        if not self._hears(worker) or self.generation != generation:
            return
        if worker.name in self._loop.frozen:
            self._loop.later(LOOK_SECONDS, self._answer_join, worker, generation, mine)
            return
        worker.generation = generation
        later = self._dice.uniform(0.0, 2.0) if self._dice.random() < 0.2 else self._dice.uniform(0.001, 0.05)
        self._loop.later(later, self._answer_sync, worker, generation, mine)

    def _answer_sync(self, worker: SimulatedWorker, generation: int, mine: set[int]) -> None:
        if not self._hears(worker) or self.generation != generation or self._preparing:
            return
        if worker.name in self._loop.frozen:
            self._loop.later(LOOK_SECONDS, self._answer_sync, worker, generation, mine)
            return
        self._loop.within(worker.name, worker.spawn, worker.assign, generation, mine)
        self._gives()

    def _look(self) -> None:
        """Forget who was not heard of for a session's length."""
        self._loop.later(LOOK_SECONDS, self._look)
        for name in [name for name in self.members if self._loop.now - self._seen[name] > SESSION_SECONDS]:
            self._trace(f"the group goes on without {name}")
            del self.members[name]
            self._awaited.discard(name)
            self.rebalance()
