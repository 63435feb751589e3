"""Keeps the partitions that were assigned to this worker; what the Faust shell drives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from aiokafka.errors import KafkaError

from streamseg.core.definitions import Definitions
from streamseg.core.units import Instant
from streamseg.worker import memory
from streamseg.worker.engine import kind_of_partition
from streamseg.worker.failure import fatal
from streamseg.worker.fetches import EventRecord
from streamseg.worker.http import HttpServer
from streamseg.worker.loading import Loaded
from streamseg.worker.metrics import Metrics
from streamseg.worker.owner import Ack
from streamseg.worker.partition import WAITING_EVENTS, Partition
from streamseg.worker.placement import Placement
from streamseg.worker.redis_view import RedisView
from streamseg.worker.rocks_states import RocksFolder
from streamseg.worker.settings import Clock, Settings, Store
from streamseg.worker.shell import Shell
from streamseg.worker.states import States

logger = logging.getLogger("streamseg.worker")

TICK_SECONDS = 0.1
DRAIN_SECONDS = 2.0
LOOK_SECONDS = 5.0
"""How often to look whether somebody else has written assignments where we have nothing to write."""
GIVE_BACK_SECONDS = 15.0
"""How often memory is given back: a take-over's backlog leaves holes, and what was fetched hangs in cycles."""


class Keeper:
    """The owner of all partitions of this worker."""

    def __init__(self, definitions: Definitions, settings: Settings) -> None:
        self.shell: Shell | None = None
        """Set once the app is built; the app needs its owner first."""
        self._definitions = definitions
        self._settings = settings
        self._metrics = Metrics(definitions)
        self._metrics.observe(self)
        self._partitions: dict[int, Partition] = {}
        self._fenced: dict[int, Partition] = {}
        """Those that are not open yet."""
        self._tasks: list[asyncio.Task[None]] = []
        self._view: RedisView | None = None
        self._placement: Placement | None = None
        self._http: HttpServer | None = None
        self._ticked = 0.0
        self._kind = kind_of_partition(definitions, settings.engine)
        self._folder: RocksFolder | None = None

    @property
    def compiled(self) -> bool:
        """Whether the compiled core applies events."""
        return self._kind.compiled

    # Life

    async def start(self) -> None:
        """Starts what runs beside the partitions: the view's writer, the ticker, the web server."""
        assert self.shell is not None
        self._placement = Placement(self._settings.keys, self.shell.partitions)
        if self._settings.store is Store.ROCKSDICT:
            self._folder = RocksFolder(self._settings.data / "states")
        wall = self._settings.clock is Clock.WALL
        self._view = RedisView(self._settings.redis, self._settings.names, self._metrics, wall=wall)
        self._tasks = [asyncio.create_task(each) for each in (self._run_view(self._view), self._tick(), self._look())]
        self._http = HttpServer(self._metrics.registry, self._problems, self._alive)
        await self._http.start(self._settings.http_host, self._settings.http_port)

    async def stop(self) -> None:
        """Lets the view finish what it can, and stops."""
        if self._view is not None:
            await self._view.drain(DRAIN_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.stop()
        if self._view is not None:
            await self._view.close()

    async def _run_view(self, view: RedisView) -> None:
        with fatal("the Redis view"):
            await view.run()

    async def _tick(self) -> None:
        assert self.shell is not None
        with fatal("the ticker"):
            gave, generation = time.monotonic(), -1
            while True:
                self._ticked = time.monotonic()
                if self._ticked - gave >= GIVE_BACK_SECONDS:
                    # What had been fetched when a rebalance began is dropped behind it, and is old by then.
                    before, generation = generation, self.shell.generation
                    memory.give_back(memory.YOUNG if before == generation else memory.OLD)
                    gave = self._ticked
                for partition in self._partitions.values():
                    partition.tick()
                await asyncio.sleep(TICK_SECONDS)

    async def _look(self) -> None:
        assert self.shell is not None
        with fatal("the look at the assignments"):
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    ends = await self.shell.ends(self._settings.names.current, list(self._partitions))
                except KafkaError as error:
                    logger.warning("no broker says where the assignments end (%s): asking again", error)
                    continue
                for number, end in ends.items():
                    if number in self._partitions:
                        self._partitions[number].assignments_end(end)

    def _alive(self) -> bool:
        return time.monotonic() - self._ticked < 30

    def _problems(self) -> list[str]:
        """Why this worker is not ready; empty if it is."""
        assert self.shell is not None
        if not self.shell.assigned:
            return ["no partitions were assigned yet, or they are being loaded"]
        lost = [number for number in self._partitions if not self.shell.owns(number)]
        return [f"partition {number} is amid a rebalance" for number in lost]

    # What the shell asks

    def loader(self, partition: int) -> Loaded:
        """An empty loader."""
        place = f"{self._settings.names.changelog(self._settings.group)}/{partition}"
        return Loaded(self._states(partition), place)

    def _states(self, partition: int) -> States:
        return self._kind.memory() if self._folder is None else self._folder.open(partition)

    def loading(self, records: int, left: int) -> None:
        """Shows how a take-over goes on."""
        self._metrics.recovery_records.inc(records)
        self._metrics.recovery_remaining.set(left)

    def taken_over(self, seconds: float) -> None:
        """Shows how long a take-over took."""
        self._metrics.recovery_seconds.set(seconds)

    async def fence(self, partition: int, loader: Loaded, end: int) -> int:
        """Shuts out whoever still writes to the partition."""
        assert self.shell is not None
        assert self._view is not None
        assert self._placement is not None
        fenced = self._kind(
            partition, self._definitions, self._settings, self._placement, self.shell, self._view, self._metrics
        )
        self._fenced[partition] = fenced
        return max(end, await fenced.fence(loader) + 1)

    async def open(self, partition: int, loader: Loaded, end: int) -> Mapping[str, int]:
        """Starts to own a partition."""
        started = time.monotonic()
        opened = self._fenced.pop(partition)
        sources = await opened.open(loader, end)
        self._partitions[partition] = opened
        logger.info(
            "partition %d: %d customers, clock %d, opened in %.2f s",
            partition, len(opened.customers), opened.segmenter.clock, time.monotonic() - started,
        )  # fmt: skip
        return sources

    async def close(self, partition: int) -> None:
        """Stops to own a partition."""
        closed = self._partitions.get(partition)
        if closed is not None:
            await closed.close()
            del self._partitions[partition]

    def apply(self, partition: int, key: bytes, value: bytes | None, offset: int) -> None:
        """Takes a changelog record that came after the opening."""
        del offset
        if partition in self._partitions:
            self._partitions[partition].apply(key, value)

    def arrived(self, topic: str, partition: int, records: Sequence[EventRecord], ack: Ack) -> None:
        """Takes events."""
        if partition in self._partitions:
            self._partitions[partition].arrived(topic, records, ack)

    @property
    def writing(self) -> bool:
        """Whether something is being written; asked by the consumer's thread."""
        return any(partition.writing for partition in list(self._partitions.values()))

    def full(self, partition: int) -> bool:
        """Whether too many events wait."""
        return partition in self._partitions and self._partitions[partition].waiting >= WAITING_EVENTS

    # What the metrics show

    def segments(self) -> Iterable[tuple[str, str, int, int]]:
        """Scheme, segment, customers, worth; over all partitions."""
        customers: Counter[tuple[str, str]] = Counter()
        worths: Counter[tuple[str, str]] = Counter()
        for compiled in self._definitions.schemes:
            customers.update({(compiled.scheme.name, segment): 0 for segment in compiled.scheme.names})
        for partition in self._partitions.values():
            for scheme, segment, count, worth in partition.customers.census.rows():
                customers[scheme, segment] += count
                worths[scheme, segment] += worth
        return [(scheme, segment, count, worths[scheme, segment]) for (scheme, segment), count in customers.items()]

    def partitions(self) -> Iterable[tuple[int, Instant, int]]:
        """Partition, clock, deadlines that wait."""
        return [(number, one.segmenter.clock, one.segmenter.pending) for number, one in self._partitions.items()]

    def lags(self) -> Iterable[tuple[str, int, int]]:
        """Topic, partition, records not read yet."""
        assert self.shell is not None
        for number, partition in self._partitions.items():
            for topic in self._settings.sources:
                lag = self.shell.lag(topic, number)
                if lag is not None:
                    yield topic, number, lag + partition.waiting
