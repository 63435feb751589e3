"""One partition in pure Python and one on the compiled core, side by side, without Kafka and Redis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from prometheus_client import CollectorRegistry

from streamseg.core.definitions import Definitions
from streamseg.formats import state as records
from streamseg.worker.compiled import CompiledPartition
from streamseg.worker.metrics import Metrics
from streamseg.worker.native_plan import plan
from streamseg.worker.partition import Batch, Group, Partition
from streamseg.worker.placement import Placement
from streamseg.worker.redis_entry import unpacked
from streamseg.worker.settings import Clock, Keys, Names, Settings

TOPIC = "events"


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


def make(kind: type[Partition], definitions: Definitions, keys: Keys = Keys.REKEY) -> Partition:
    """A partition of one, that nothing was loaded into."""
    shell = SimpleNamespace(log=None, monotonic=lambda: 0.0, wall_clock=lambda: 0, partitions=1)
    made = kind(
        0, definitions, settings(keys=keys), Placement(keys, 1), cast("Any", shell), cast("Any", None),
        Metrics(definitions),
    )  # fmt: skip
    made.customers.epoch = 7
    made.segmenter.expect(made.customers.load(kind.memory()))
    return made


def compiled(definitions: Definitions, keys: Keys = Keys.REKEY) -> Partition:
    kind = type("Compiled", (CompiledPartition,), {"plan": plan(definitions)})
    return make(kind, definitions, keys)


def pure(definitions: Definitions, keys: Keys = Keys.REKEY) -> Partition:
    return make(Partition, definitions, keys)


def fold(partition: Partition, records: list[Record]) -> Iterator[Group]:
    """The groups that these events come to."""

    async def ack() -> None: ...

    batch = Batch(TOPIC, cast("Any", records), cast("Any", ack))
    partition._batches.append(batch)
    while partition._batches:
        group = Group()
        partition._brimming = False
        while partition._batches and not partition._brimming:
            partition._fold(group, batch)
        partition._complete(group)
        yield group


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
            for entry in map(unpacked, group.entries)
        ),
        "rejects": group.rejects,
        "clock": group.clock,
        "sources": group.sources,
        "counts": group.counts,
        "unforeseen": group.unforeseen,
        "next deadline": partition.segmenter.next_deadline if not group.entries else None,
        "stored": len(partition.customers),
        "census": sorted(partition.customers.census.rows()),
        "metrics": counted(partition),
    }  # fmt: skip


def plain(partition: Partition, data: bytes) -> Any:
    """A state without what is kept of tiles that have left every window: how much that is, depends on its past."""
    layout = partition._definitions.layout
    state = records.decode_state(records.without_outbox(data), layout, layout.fingerprint.encode())
    profile = state.profile
    for series in layout.series:
        gone = profile.positions[series.windows[-1].index]
        for column in profile.rows[series.index]:
            del column[:gone]
        for window in series.windows:
            profile.positions[window.index] -= gone
    return (*records.encode_state(state, b"", 0), records.read_outbox(data), data[records.WRITER])


def counted(partition: Partition) -> list[tuple[str, Any, float]]:
    names = ("streamseg_events", "streamseg_changes", "streamseg_segment_changes")
    registry: CollectorRegistry = partition._metrics.registry
    return sorted(
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for metric in registry.collect()
        if metric.name.startswith(names)
        for sample in metric.samples
        if sample.name.endswith("_total")
    )
