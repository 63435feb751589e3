"""Watches a peer from outside, the same way for all: by its topics, its group's offsets and its processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import ClientSession
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from benchmarks.figures import Cost
from benchmarks.peer import Peer, Run
from benchmarks.processes import status_mb, tree, tree_cpu_seconds
from benchmarks.worker import progress
from benchmarks.writer import PARTITIONS
from streamseg.services.process import Process

LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 120.0
"""How long a peer may do nothing that can be seen."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is seen at one moment."""

    at: float
    cpu: float
    committed: int
    """Events."""
    changes: int
    """Records on the topic of changes."""
    written: int
    """Records on all the topics that are the run's own, such as changelogs."""
    waiting: float
    """What Redis has not been told yet, of ours. Asked for when all is committed: to tell costs a worker time."""

    @property
    def work(self) -> tuple[int, float]:
        """What moves as long as it works."""
        return (self.written or self.committed), self.waiting


@dataclass(frozen=True, slots=True)
class Watch:
    """Watches one run."""

    peer: Peer
    run: Run
    events: int
    process: Process
    admin: AIOKafkaAdminClient
    consumer: AIOKafkaConsumer
    session: ClientSession

    async def cost(self) -> Cost:
        """From the start of the process to the last event, committed and with its changes on the topic.

        How long the last commit let wait does not count, the CPU until then does.
        """
        first = look = last = await self._look()
        while look.committed < self.events or look.waiting:
            look = await self._next(look, last)
            if look.work != last.work:
                last = look
        peak = sum(status_mb(pid, "VmHWM") for pid in tree(self.process.pid))
        return Cost(self.events, last.at - first.at, look.cpu, peak)

    async def _next(self, before: Look, last: Look) -> Look:
        await asyncio.sleep(max(0.0, before.at + LOOK_SECONDS - time.perf_counter()))
        if not self.process.running:
            raise SystemExit(f"{self.run.name} has ended:\n{self.process.tail()}")
        if before.at - last.at > PATIENCE_SECONDS:
            raise SystemExit(f"{self.run.name} does not go on ({before}):\n{self.process.tail()}")
        return await self._look()

    async def _look(self) -> Look:
        committed = await self._committed()
        mine = [topic for topic in await self.consumer.topics() if self.run.name in topic]
        ends = await self._ends(mine)
        changes = ends.get(self.peer.changes(self.run), 0) if self.peer.changes else 0
        waiting = 0.0
        if self.peer.ours and committed >= self.events:
            _, waiting = await progress(self.session, f"http://127.0.0.1:{self.run.port}/metrics")
        cpu = tree_cpu_seconds(self.process.pid) if self.process.running else 0.0
        return Look(time.perf_counter(), cpu, committed, changes, sum(ends.values()), waiting)

    async def _committed(self) -> int:
        try:
            offsets = await self.admin.list_consumer_group_offsets(self.run.name)
        except GroupCoordinatorNotAvailableError:  # the first group of this Kafka is not there yet
            return 0
        return sum(max(0, each.offset) for tp, each in offsets.items() if tp.topic == self.run.events)

    async def _ends(self, topics: list[str]) -> dict[str, int]:
        tps = [TopicPartition(topic, partition) for topic in topics for partition in range(PARTITIONS)]
        found = dict.fromkeys(topics, 0)
        for tp, end in (await self.consumer.end_offsets(tps) if tps else {}).items():
            found[tp.topic] += end
        return found


@asynccontextmanager
async def watching(peer: Peer, run: Run, events: int, process: Process) -> AsyncIterator[Watch]:
    """A watch with its clients."""
    admin = AIOKafkaAdminClient(bootstrap_servers=run.kafka)
    consumer = AIOKafkaConsumer(bootstrap_servers=run.kafka, enable_auto_commit=False)
    async with ClientSession() as session:
        try:
            await admin.start()
            await consumer.start()
            yield Watch(peer, run, events, process, admin, consumer, session)
        finally:
            await consumer.stop()
            await admin.close()
