"""One run: events in, the worker watched, all of it awaited and checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from streamseg.core.definitions import Definitions
from streamseg.core.errors import StreamsegError
from streamseg.demo.changes import Changes
from streamseg.demo.check import Finding, check
from streamseg.demo.display import Display
from streamseg.demo.figures import Figures
from streamseg.demo.links import Links, connected
from streamseg.demo.reference import Reference
from streamseg.demo.source import Line, partition_of, timetable
from streamseg.demo.stage import Stage, Worker
from streamseg.services.process import Process

_FEED_TICK = 0.02
_FEED_BURST = 200
"""Events fed before everything else has its turn."""
_DRAW_SECONDS = 0.25
_WATCH_SECONDS = 0.1
_SETTLE_POLL_SECONDS = 0.3
_STALLED_SECONDS = 90.0
_READ_RECORDS = 2_000


class StalledError(StreamsegError):
    """The worker runs, and does not get on. Exit code 70: a fault of ours."""


@dataclass(slots=True)
class Performance:
    """A run on a stage that is set up; `play` may be called once."""

    stage: Stage
    worker: Worker
    definitions: Definitions
    lines: Sequence[Line]
    reference: Reference
    replaying: Process
    """Writes the reference."""
    figures: Figures
    changes: Changes
    display: Display
    seconds: float
    """How long the feed takes; 0: as fast as possible."""
    kill: bool
    """Whether the worker is killed in the middle."""
    _fed: list[int] = field(default_factory=list)

    async def play(self) -> list[Finding]:
        """Run it, and tell what the check found. Raises StreamsegError when it cannot come to an end."""
        async with connected(self.stage) as links:
            self.figures.start()
            try:
                async with asyncio.TaskGroup() as tasks:
                    beside = [
                        tasks.create_task(each)
                        for each in (self._follow(links), self.figures.poll(links), self._watch(), self._draw())
                    ]
                    findings = await self._acts(links)
                    for task in beside:
                        task.cancel()
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None  # one message: the first fault is the cause
            await self.figures.look(links)
            return findings

    async def _acts(self, links: Links) -> list[Finding]:
        await asyncio.gather(self._feed(links), *([self._kill()] if self.kill else []))
        self.figures.phase = "Everything is fed. Waiting until the worker has applied it …"
        await self._settle(links)
        self.figures.finish(len(self.lines))
        self.figures.phase = "Done. Comparing it with a replay of the same events without Kafka …"
        await self._drain(links)
        await self._await_reference()
        return await check(links, self.definitions, self.changes, self.reference)

    async def _feed(self, links: Links) -> None:
        """Produce all lines when they are due, in order, each customer's to its partition."""
        due, started = timetable(self.lines), time.monotonic()
        for place, (customer, data) in enumerate(self.lines):
            ahead = due[place] * self.seconds - (time.monotonic() - started)
            if ahead > 0:
                await asyncio.sleep(max(ahead, _FEED_TICK))
            elif place % _FEED_BURST == 0:
                await asyncio.sleep(0)
            self.figures.progress = due[place]
            await links.producer.send(
                self.stage.events, key=customer.encode(), value=data, partition=partition_of(customer)
            )
        await links.producer.flush()
        self.figures.progress = 1.0
        await self._require_all(links)

    async def _require_all(self, links: Links) -> None:
        arrived = sum((await links.events()).values())
        if arrived != len(self.lines):
            raise StalledError(f"{len(self.lines):,} events were sent to Kafka and {arrived:,} arrived there")

    async def _kill(self) -> None:
        """Kill the worker in the middle of the feed, when it has begun to work."""
        while self.figures.progress < 0.5 or not self.changes.total:
            await asyncio.sleep(_WATCH_SECONDS / 2)
        self.worker.kill()

    async def _watch(self) -> None:
        """Start the worker again whenever it has died."""
        while True:
            if self.worker.keep_running():
                self.figures.restarts = self.worker.restarts
                self.figures.worker_answers = False
                self.figures.phase = (
                    "The worker was killed (kill -9). A new one takes over from Kafka: nothing is lost …"
                )
            elif self.figures.worker_answers and self.figures.phase.startswith("The worker was killed"):
                self.figures.phase = ""
            await asyncio.sleep(_WATCH_SECONDS)

    async def _follow(self, links: Links) -> None:
        """Take all changes as they come."""
        while True:
            batches = await links.changes.getmany(timeout_ms=200, max_records=_READ_RECORDS)
            for records in batches.values():
                for record in records:
                    self.changes.take(record.key.decode(), record.value)
            await asyncio.sleep(0)

    async def _draw(self) -> None:
        while True:
            self.display.show(self.figures.state())
            await asyncio.sleep(_DRAW_SECONDS)

    async def _settle(self, links: Links) -> None:
        """Wait until the worker has committed all events. Raises StalledError if it does not get on."""
        done, since = -1, time.monotonic()
        while (applied := sum((await links.committed()).values())) < len(self.lines):
            if applied > done:
                done, since = applied, time.monotonic()
            elif time.monotonic() - since > _STALLED_SECONDS:
                raise StalledError(
                    f"the worker stands at {applied:,} of {len(self.lines):,} events for {_STALLED_SECONDS:.0f} s. "
                    f"The end of its log:\n{self.worker.tail()}"
                )
            await asyncio.sleep(_SETTLE_POLL_SECONDS)

    async def _drain(self, links: Links) -> None:
        """Wait until all changes have come here: what is committed was published before."""
        while await links.unread_changes():
            await asyncio.sleep(_SETTLE_POLL_SECONDS)

    async def _await_reference(self) -> None:
        while not self.reference.ready:
            if not self.replaying.running and not self.reference.ready:
                raise StalledError(f"{self.replaying.name} ended without a result:\n{self.replaying.tail()}")
            await asyncio.sleep(_SETTLE_POLL_SECONDS)
