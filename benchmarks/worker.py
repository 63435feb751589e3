"""Workers of streamseg: how they are started, what they tell of themselves, and what they take to drain a topic."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ClientError, ClientSession

from benchmarks.processes import status_mb, tree_cpu_seconds
from benchmarks.writer import PARTITIONS
from streamseg.services.process import Process
from streamseg.services.service import free_port
from streamseg.worker.settings import Names

LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 300.0
"""How long workers may take to be ready, or do nothing that can be seen."""


def command(
    definitions: Path, kafka: str, redis: str, events: str, name: str, port: int, data: Path, clock: str = "stream"
) -> list[str]:
    """The arguments of a worker whose group and prefix have one name; on the clock of its events by default."""
    return [
        sys.executable, "-m", "streamseg", "worker", "--definitions", str(definitions), "--kafka", kafka, "--redis",
        redis, "--events", events, "--group", name, "--prefix", name, "--clock", clock, "--http",
        f"127.0.0.1:{port}", "--data", str(data),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setup:
    """What the workers of one group are given."""

    definitions: Path
    kafka: str
    redis: str
    folder: Path
    name: str = "bench"
    """Of the group, and before topics and keys."""
    clock: str = "stream"
    partitions: int = PARTITIONS
    options: tuple[str, ...] = ("--log-level", "WARNING")

    @property
    def events(self) -> str:
        """The event topic."""
        return f"{self.name}-events"

    @property
    def names(self) -> Names:
        """Our topics."""
        return Names(self.name)

    @property
    def changelog(self) -> str:
        """The topic of the states."""
        return self.names.changelog(self.name)

    def command(self, port: int, data: Path) -> list[str]:
        """The arguments of a worker."""
        given = (self.definitions, self.kafka, self.redis, self.events, self.name, port, data, self.clock)
        return [*command(*given), *self.options]


@dataclass(frozen=True, slots=True)
class Worker:
    """One process."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        """Of its metrics."""
        return f"http://127.0.0.1:{self.port}/metrics"

    @property
    def cpu(self) -> float:
        """The CPU-seconds it has used."""
        return tree_cpu_seconds(self.process.pid)

    def mb(self, name: str = "VmRSS") -> float:
        """A figure of its status."""
        return status_mb(self.process.pid, name)

    def require(self) -> None:
        """Raises SystemExit if it has ended."""
        if not self.process.running:
            raise SystemExit(f"{self.process.name} has ended:\n{self.process.tail()}")


@contextmanager
def running(setup: Setup, count: int = 1) -> Iterator[list[Worker]]:
    """So many workers, until the end of the block; not ready yet."""
    with ExitStack() as stack:
        workers = []
        for number in range(count):
            port, name = free_port(), f"{setup.name}-{number}"
            given = setup.command(port, setup.folder / f"{name}.data")
            process = Process(f"the worker {name}", given, setup.folder / f"{name}.log", directory=Path.cwd())
            stack.callback(process.stop)
            workers.append(Worker(process, port))
        yield workers


async def page(session: ClientSession, url: str) -> tuple[int, str]:
    """Status and text of a page; 0 if nobody answers."""
    try:
        async with session.get(url) as response:
            return response.status, await response.text()
    except ClientError:
        return 0, ""


async def progress(session: ClientSession, url: str) -> tuple[int, float]:
    """Events taken so far, and assignments that wait for Redis."""
    _, text = await page(session, url)
    return int(_total(text, "streamseg_events_total")), _total(text, "streamseg_redis_backlog")


def _total(text: str, name: str) -> float:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(name))
    return sum(float(value) for _, value in lines)


async def wait_until_ready(workers: Sequence[Worker], partitions: int) -> None:
    """Until every worker is ready and has its share of the partitions."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    async with ClientSession() as session:
        while not await _all_ready(session, workers, partitions):
            for worker in workers:
                worker.require()
            if time.monotonic() > deadline:
                raise SystemExit(f"the workers were not ready within {PATIENCE_SECONDS:.0f} s")
            await asyncio.sleep(LOOK_SECONDS)


async def _all_ready(session: ClientSession, workers: Sequence[Worker], partitions: int) -> bool:
    shares = []
    for worker in workers:
        status, _ = await page(session, worker.url.replace("/metrics", "/readyz"))
        if status != 200:
            return False
        _, text = await page(session, worker.url)
        shares.append(sum(line.startswith("streamseg_partition_clock_seconds{") for line in text.splitlines()))
    return sum(shares) == partitions and min(shares) >= partitions // len(workers)


@dataclass(frozen=True, slots=True)
class Drain:
    """What workers took to do the events that waited, from the first that was seen to be done."""

    events: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / max(self.seconds, LOOK_SECONDS)

    @property
    def microseconds(self) -> float:
        """CPU of an event."""
        return self.cpu * 1e6 / max(self.events, 1)


async def drained(workers: Sequence[Worker], events: int, before: int = 0) -> Drain:
    """Waits until so many events, after those before them, are done and in Redis."""
    first = last = done = before
    started = moved = time.perf_counter()
    cpu = 0.0
    async with ClientSession() as session:
        while True:
            for worker in workers:
                worker.require()
            looks = [await progress(session, worker.url) for worker in workers]
            now, done = time.perf_counter(), sum(each for each, _ in looks)
            if done > before and first == before:
                first, started, cpu = done, now, sum(worker.cpu for worker in workers)
            if done >= before + events and not any(waiting for _, waiting in looks):
                return Drain(done - first, now - started, sum(worker.cpu for worker in workers) - cpu)
            if done != last:
                last, moved = done, now
            if now - moved > PATIENCE_SECONDS:
                raise SystemExit(f"{done - before:,} of {events:,} events are done, and nothing moves")
            await asyncio.sleep(LOOK_SECONDS)
