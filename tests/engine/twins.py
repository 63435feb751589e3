"""One partition in pure Python and one on the compiled core, side by side, without Kafka and Redis."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar, cast

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import reject
from prometheus_client import CollectorRegistry
from streamseg_engine import Fetched

from streamseg.core.definitions import Definitions
from streamseg.formats import state as records
from streamseg.formats.native_plan import plan
from streamseg.worker.apart import here
from streamseg.worker.compiled import WATCHED_EVENTS, CompiledPartition
from streamseg.worker.memory_states import MemoryStates
from streamseg.worker.metrics import Metrics
from streamseg.worker.partition import Batch, Group, Partition
from streamseg.worker.placement import Placement
from streamseg.worker.redis_entry import unpacked
from streamseg.worker.settings import Clock, Keys, Names, Settings
from streamseg.worker.states import States

TOPIC = "events"
T = TypeVar("T")


class Record(NamedTuple):
    """As aiokafka gives them, as far as a partition looks."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def settings(**given: Any) -> Settings:
    return Settings(
        definitions=Path("definitions.yaml"), kafka=(), redis="", events=(TOPIC,), group="g", names=Names(),
        clock=Clock.STREAM, http_host="", http_port=0, data=Path(), **given,
    )  # fmt: skip


def make(kind: type[Partition], definitions: Definitions, keys: Keys = Keys.REKEY, partitions: int = 1) -> Partition:
    """The first partition of so many, that nothing was loaded into."""
    shell = SimpleNamespace(log=None, monotonic=lambda: 0.0, wall_clock=lambda: 0, partitions=partitions, apart=here)
    made = kind(
        0, definitions, settings(keys=keys), Placement(keys, partitions), cast("Any", shell), cast("Any", None),
        Metrics(definitions),
    )  # fmt: skip
    load(made, kind.memory(), 7)
    return made


def load(partition: Partition, states: States, epoch: int) -> None:
    """Has a partition take over what another one had written."""
    partition.customers.epoch = epoch
    partition.segmenter.expect(partition.customers.load(states))


class Watched(CompiledPartition):
    """Notes what the core leaves to Python."""

    def __init__(self, *given: Any) -> None:
        self.noted = Counter[str]()
        super().__init__(*given)

    def _fold_one(self, group: Group, topic: str, record: Any, *rest: Any) -> int:
        self.noted["events for Python"] += 1
        return super()._fold_one(group, topic, record, *rest)

    def _take_over(self, customer: str, told: Any) -> None:
        self.noted["customers taken over with changes"] += 1
        super()._take_over(customer, told)

    def _state(self) -> Any:
        customers, segmenter = super()._state()
        fire, state = segmenter.fire, customers.state

        def noted_fire(due: int, key: bytes) -> None:
            self.noted["deadlines for Python"] += 1
            fire(due, key)

        def noted_state(customer: str) -> Any:
            self.noted["states for Python"] += customer not in customers._young
            return state(customer)

        segmenter.fire, customers.state = noted_fire, noted_state  # type: ignore[method-assign]
        return customers, segmenter


def compiled(definitions: Definitions, keys: Keys = Keys.REKEY, partitions: int = 1) -> Watched:
    kind = type("Compiled", (Watched,), {"plan": plan(definitions)})
    return cast("Watched", make(kind, definitions, keys, partitions))


def pure(definitions: Definitions, keys: Keys = Keys.REKEY, partitions: int = 1) -> Partition:
    return make(Partition, definitions, keys, partitions)


def fetched(records: Sequence[Record]) -> Sequence[Any]:
    """Records as the core reads them from what a broker sends; as they are if their offsets are in no order."""
    if not records or any(one.offset >= following.offset for one, following in pairwise(records)):
        return records
    builder, base = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30), records[0].offset
    for record in records:
        builder.append(record.offset - base, 0, record.key, record.value, list(record.headers))
    batch = bytearray(builder.build())
    struct.pack_into(">q", batch, 0, base)
    read = Fetched.read(bytes(batch), base, [])
    assert read is not None
    assert len(read) == len(records)
    return read


def fold(partition: Partition, records: Sequence[Any], topic: str = TOPIC) -> Iterator[Group]:
    """The groups that these events come to; what the core reads itself comes in several batches."""

    async def ack() -> None: ...

    parts = (
        [records.part(start, 3) for start in range(0, len(records), 3)] if isinstance(records, Fetched) else [records]
    )
    partition._batches.extend(Batch(topic, part, [cast("Any", ack)]) for part in parts)
    while partition._batches and partition._refusal is None:
        group = Group()
        partition._brimming = False
        while partition._batches and not partition._brimming:
            partition._join()
            at_once(partition._fold(group, partition._batches[0]))
        at_once(partition._complete(group))
        yield group


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine comes to that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    raise AssertionError("it waits")


def without_time(assignment: bytes) -> dict[str, Any]:
    """An assignment as it is told, but for the instant it is of."""
    found: dict[str, Any] = json.loads(assignment)
    del found["time"]
    return found


def stored(partition: Partition) -> dict[bytes, bytes]:
    """All state records that a partition keeps."""
    return dict(partition.customers._states.items())


def same(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str = "") -> None:
    """Asserts that two views are equal, and shows only what differs."""
    different = [name for name in theirs if ours[name] != theirs[name]]
    assert [(name, ours[name]) for name in different] == [(name, theirs[name]) for name in different], where


class Pair:
    """Both of them; whatever is done is done to both, and has to come to the same."""

    def __init__(self, definitions: Definitions, keys: Keys = Keys.REKEY, partitions: int = 1) -> None:
        self._made = definitions, keys, partitions
        self.pure, self.compiled = pure(*self._made), compiled(*self._made)
        self.noted = Counter[str]()
        self._told: tuple[dict[bytes, bytes], ...] = ({}, {})
        """By either, of each customer."""

    @property
    def both(self) -> tuple[Partition, Partition]:
        return self.pure, self.compiled

    def fold(self, records: Sequence[Record], topic: str = TOPIC, *, behind: bool = False) -> None:
        """Folds events, behind which many wait or none, and compares group by group."""
        for one in self.both:
            one.watched_events, one.waiting = WATCHED_EVENTS, len(records) + (WATCHED_EVENTS if behind else 0)
        expected = [self._seen(self.pure, group) for group in fold(self.pure, records, topic)]
        got = [self._seen(self.compiled, group) for group in fold(self.compiled, fetched(records), topic)]
        for number, (theirs, ours) in enumerate(zip(expected, got, strict=False)):
            same(ours, theirs, f"group {number}")
        assert len(got) == len(expected)

    def _seen(self, partition: Partition, group: Group) -> Mapping[str, Any]:
        found = seen(partition, group)
        self._told[partition is self.compiled].update(found["current"])
        return found

    def advance(self, now: int) -> None:
        """Passes time."""
        assert all(one.segmenter.advance(now) for one in self.both)
        self.complete()

    def advance_some(self, now: int, limit: int) -> bool:
        """Passes time by so many deadlines; whether none is left."""
        expected, got = (one.segmenter.advance(now, limit) for one in self.both)
        self.complete()
        assert got == expected
        return expected

    def advance_by(self, now: int, limit: int) -> None:
        """Passes time by so many deadlines a group.

        How many come to nothing, and so where groups end, depends on what is in memory; and where they end, how far
        in time a state is written of whom nothing has moved any more. Such a story is not told any further: what
        it comes to is the same, but not the deadlines on the way.
        """
        expected, got = (self._advanced(one, now, limit) for one in self.both)
        assert got == expected
        plains = [{key: plain(one, data) for key, data in stored(one).items()} for one in self.both]
        if plains[0] != plains[1]:
            reject()
        worths = [sorted(one.customers.census.rows()) for one in self.both]  # what states say, when they were written
        assert worths[0] == worths[1]

    def _advanced(self, partition: Partition, now: int, limit: int) -> Any:
        made: list[Any] = []
        done = False
        while not done:
            done, group = partition.segmenter.advance(now, limit), Group()
            at_once(partition._complete(group))
            made += self._seen(partition, group)["changes"]
        states = {key: standing(partition, data) for key, data in stored(partition).items()}
        counts = sorted((scheme, name, count) for scheme, name, count, _ in partition.customers.census.rows())
        return sorted(made), states, partition.segmenter.clock, counts

    def complete(self) -> None:
        expected, got = Group(), Group()
        at_once(self.pure._complete(expected))
        at_once(self.compiled._complete(got))
        same(self._seen(self.compiled, got), self._seen(self.pure, expected))

    def show(self, customers: Iterable[str], *, told: bool) -> None:
        """Shows customers to Redis, as their states say: what only time has changed is not in them."""
        self._shown(lambda one, group: one._show(group, list(customers), told=told))

    def refresh(self, before: float) -> list[tuple[bytes, bytes]]:
        """Tells of forecasts that have moved; returns the assignments."""
        return self._shown(lambda one, group: at_once(one._show_stale(group, before)))

    def _shown(self, show: Callable[[Partition, Group], object]) -> list[tuple[bytes, bytes]]:
        self.pure.customers._young.clear()
        self.pure.customers._old.clear()
        found = []
        for one in self.both:
            group = Group()
            show(one, group)
            at_once(one._complete(group))
            found.append(self._seen(one, group))
        same(found[1], found[0])
        current: list[tuple[bytes, bytes]] = found[0]["current"]
        return current

    def settle(self) -> None:
        """Tells of all forecasts that may have moved; then what was told of everybody last has to be true."""
        self.refresh(float("inf"))
        told = self._all_told()
        self.show(self.pure.customers, told=True)
        same(told, self._all_told())

    def _all_told(self) -> dict[str, Any]:
        return {
            f"{key.decode()}, {which}": without_time(value)
            for which, told in zip(("pure", "compiled"), self._told, strict=True)
            for key, value in told.items()
        }

    def at(self, seconds: float, offset: int) -> None:
        """Sets the monotonic clock, and how far the changelog is published."""
        for one in self.both:
            cast("Any", one._shell).monotonic = lambda: seconds
            one._published = offset

    def swap(self, states: type[States] = MemoryStates) -> None:
        """Lets each take over what the other one has written, as after a restart."""
        self.settle()
        before = self.both
        self.noted += self.compiled.noted
        self.pure, self.compiled = pure(*self._made), compiled(*self._made)
        for one, other in zip(self.both, reversed(before), strict=True):
            given = states()
            given.put(stored(other))
            load(one, given, 8)
            one.segmenter.clock, one.segmenter.observed_from = other.segmenter.clock, other.segmenter.observed_from
            one._sources, one._settled_sources = dict(other._sources), dict(other._sources)
            one._tallies, one._observed = other._tallies, dict(other._observed)


def items(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list) else list(given.items())


def seen(partition: Partition, group: Group) -> Mapping[str, Any]:
    """All that a group has for the world, as far as it does not depend on the order of customers."""
    return {
        "states": {key: plain(partition, value) for key, value, _ in items(group.states)},
        "changes": sorted((key, value, tuple(headers)) for key, value, headers in items(group.changes)),
        "current": sorted((key, value) for key, value, _ in items(group.current)),
        "entries": sorted(
            (entry.customer, entry.version, entry.updated_at, repr(entry.schemes), entry.caused, entry.writer,
             [(move.version, move.day, move.pair) for move in entry.moves if move.origin])
            for entry in chain.from_iterable(map(unpacked, group.pieces))
        ),
        "rejects": group.rejects,
        "sent on": group.sent_on,
        "rejections": group.rejections,
        "clock": group.clock,
        "sources": group.sources,
        "counts": group.counts,
        "unforeseen": group.unforeseen,
        "next deadline": partition.segmenter.next_deadline if not group.pieces else None,
        "stored": len(partition.customers),
        "census": sorted(partition.customers.census.rows()),
        "metrics": counted(partition),
    }  # fmt: skip


def plain(partition: Partition, data: bytes) -> Any:
    """A state without what is kept of tiles that have left every window: how much that is, depends on its past."""
    layout = partition._definitions.layout
    state = records.decode_state(records.without_outbox(data), layout)
    profile = state.profile
    for series in layout.series:
        gone = profile.positions[series.windows[-1].index]
        for column in profile.rows[series.index]:
            del column[:gone]
    return (*records.encode_state(state, layout, 0), records.read_outbox(data), data[records.WRITER])


def standing(partition: Partition, data: bytes) -> Any:
    """The segments of a state, and since when."""
    profile = records.decode_state(records.without_outbox(data), partition._definitions.layout).profile
    return profile.version, profile.segments, profile.entered


def counted(partition: Partition) -> list[tuple[str, Any, float]]:
    names = ("streamseg_events", "streamseg_changes", "streamseg_segment_changes", "streamseg_rekeyed")
    registry: CollectorRegistry = partition._metrics.registry
    return sorted(
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for metric in registry.collect()
        if metric.name.startswith(names)
        for sample in metric.samples
        if sample.name.endswith("_total")
    )
