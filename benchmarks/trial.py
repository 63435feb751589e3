"""One load on workers that run, with who sees what comes of it."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import ResponseError

from benchmarks.document import ROOT
from benchmarks.feed import READY, Load
from benchmarks.processes import ENDED, cpu_seconds, program, tree, waited_seconds
from benchmarks.reader import MADE_SECONDS, NOTIFY, Look
from benchmarks.samples import Samples
from benchmarks.worker import Setup, Worker
from streamseg.services.process import Process

POLL_SECONDS = 0.05
READY_SECONDS = 60.0
NAMES = {"java": "kafka", "redis-server": "redis", "valkey-server": "redis"}


@dataclass(frozen=True, slots=True)
class Trial:
    """What was seen, and how many cores each took from the first event to the last that was seen.

    `waits`: how many threads of workers waited for a core, on average; what is much above 0 is in the latencies.
    """

    samples: Samples
    cores: dict[str, float]
    waits: float


@contextmanager
def telling_of_hashes(url: str) -> Iterator[None]:
    """Has Redis tell of changes of hashes, as long as the block. Raises SystemExit if it refuses."""
    name = "notify-keyspace-events"
    with Redis.from_url(url, decode_responses=True) as redis:
        try:
            before = dict(redis.config_get(name))[name]
            redis.config_set(name, NOTIFY)
        except ResponseError as error:
            raise SystemExit(f"this Redis cannot be measured: its {name} cannot be set ({error})") from error
        try:
            yield
        finally:
            redis.config_set(name, before)


def look_for(setup: Setup, load: Load, deadlines: int | None = None) -> Look:
    """What comes of a load: all that is measured, and so many deadlines."""
    expected = dict.fromkeys(("changes", "redis"), load.measured)
    return Look(
        kafka=setup.kafka, topic=setup.names.changes, redis=setup.redis, prefix=setup.names.redis, label=load.label,
        expected=expected if deadlines is None else {**expected, "deadlines": deadlines}, partitions=setup.partitions,
    )  # fmt: skip


class Running:
    """A load under way, and its reader."""

    def __init__(self, setup: Setup, workers: Sequence[Worker], load: Load, look: Look) -> None:
        self._workers, self._look = workers, look
        self._files = [setup.folder / f"{load.label}-{who}.samples" for who in ("feed", "reader")]
        self._reader = _process("reader", look.command(self._files[1]), setup.folder / f"{load.label}-reader.log")
        self._reader.wait_until_ready(lambda: _not_ready(self._reader, "it does not look yet"), READY_SECONDS)
        self._feed = _process("feed", load.command(self._files[0]), setup.folder / f"{load.label}-feed.log")
        self._feed.wait_until_ready(lambda: _not_ready(self._feed, "it makes events yet"), MADE_SECONDS)
        self._began, self._before, self._waited = time.perf_counter(), self._used(), self._waits()

    def result(self) -> Trial:
        """Waits until all is fed and seen. Raises SystemExit if something never came, or somebody ended."""
        ours = {"feed": self._wait(self._feed), "reader": self._wait(self._reader)}
        samples = Samples()
        for path in self._files:
            samples.read(path)
        for kind, count in self._look.expected.items():
            if len(samples.of[kind]) != count:
                raise SystemExit(f"{len(samples.of[kind]):,} of {count:,} {kind} were seen")
        seconds = time.perf_counter() - self._began
        used = {name: cpu - self._before[name] for name, cpu in self._used().items()}
        waits = (self._waits() - self._waited) / seconds
        return Trial(samples, {name: round(cpu / seconds, 3) for name, cpu in (used | ours).items()}, round(waits, 3))

    def _wait(self, process: Process) -> float:
        """Until it has ended; returns its CPU-seconds."""
        while process.running:
            for worker in self._workers:
                worker.require()
            time.sleep(POLL_SECONDS)
        try:
            return float(json.loads(process.tail().splitlines()[-1])["cpu"])
        except (IndexError, ValueError) as error:
            raise SystemExit(f"the {process.name} failed:\n{process.tail()}") from error

    def _waits(self) -> float:
        return sum(waited_seconds(worker.process.pid) for worker in self._workers)

    def _used(self) -> dict[str, float]:
        """CPU-seconds by who used them: the workers and the services."""
        workers = {worker.process.pid for worker in self._workers}
        used = defaultdict[str, float](float)
        for pid in tree(os.getpid())[1:]:
            with suppress(*ENDED):
                name = "worker" if pid in workers else NAMES.get(program(pid))
                if name is not None:
                    used[name] += cpu_seconds(pid)
        return used


def _not_ready(process: Process, what: str) -> str | None:
    return None if process.tail().startswith(READY) else what


def _process(name: str, command: list[str], log: Path) -> Process:
    return Process(name, command, log, directory=ROOT)
