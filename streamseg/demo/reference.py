"""What the worker must come to, by the same evaluator without Kafka: one replay for each partition.

A partition has a clock of its own, so its events are replayed by themselves. It runs as a process beside the
demo (`python -m streamseg.demo.reference`) and leaves three files in a folder, the last one when all is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.demo.source import PARTITIONS, SOURCES, partition_of
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.messages import change_data, encode_json
from streamseg.replay import Reject, Replay

_CHANGES, _CUSTOMERS, _TOTALS = "changes.jsonl", "customers.jsonl", "totals.json"
_NICENESS = 10


class Rejected(NamedTuple):
    """A line that is no event."""

    partition: int
    offset: int
    reason: str


class Customer(msgspec.Struct, array_like=True, frozen=True):
    """Where a customer ends."""

    id: str
    version: int
    segments: dict[str, str]
    """By scheme."""


class Totals(msgspec.Struct, frozen=True):
    """Sums over all partitions."""

    changes: int
    rejected: set[Rejected]
    customers: dict[str, dict[str, int]]
    """By scheme and segment."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The files that `write_reference` left in a folder."""

    folder: Path

    @property
    def ready(self) -> bool:
        """Whether all is there."""
        return (self.folder / _TOTALS).exists()

    def changes(self) -> Iterator[bytes]:
        """The bodies of all changes; of each customer in order."""
        with (self.folder / _CHANGES).open("rb") as file:
            for line in file:
                yield line[:-1]

    def customers(self) -> Mapping[str, Customer]:
        """All customers by id."""
        decode = msgspec.json.Decoder(Customer).decode
        with (self.folder / _CUSTOMERS).open("rb") as file:
            return {customer.id: customer for customer in map(decode, file)}

    def totals(self) -> Totals:
        """The sums."""
        return msgspec.json.decode((self.folder / _TOTALS).read_bytes(), type=Totals)


def write_reference(definitions: Definitions, source: str, folder: Path) -> None:
    """Replay a source of `SOURCES` partition by partition, and write the files of a `Reference`."""
    folder.mkdir(parents=True)
    with (folder / _CHANGES).open("wb", buffering=1 << 20) as changes:
        replays, rejected = _replayed(definitions, source, changes)
    with (folder / _CUSTOMERS).open("wb") as customers:
        for replay in replays:
            customers.writelines(encode_json(customer) + b"\n" for customer in _customers(replay))
    totals = Totals(_count_lines(folder / _CHANGES), rejected, _sizes(replays))
    unfinished = folder / f"{_TOTALS}.part"
    unfinished.write_bytes(encode_json(totals))
    unfinished.rename(folder / _TOTALS)


def _replayed(definitions: Definitions, source: str, changes: IO[bytes]) -> tuple[list[Replay], set[Rejected]]:
    rejected: set[Rejected] = set()

    def publish(change: Change) -> None:
        changes.write(change_data(change) + b"\n")

    def reject(partition: int, line: Reject) -> None:
        rejected.add(Rejected(partition, line.line - 1, line.reason))

    replays = [Replay(definitions, publish, partial(reject, partition)) for partition in range(PARTITIONS)]
    for customer, data in SOURCES[source].lines():
        replays[partition_of(customer)].feed(data)
    return replays, rejected


def _customers(replay: Replay) -> Iterator[Customer]:
    schemes = [compiled.scheme for compiled in replay.definitions.schemes]
    for customer, profile in replay.profiles.items():
        places = zip(schemes, profile.segments, strict=True)
        yield Customer(customer, profile.version, {scheme.name: scheme.names[place] for scheme, place in places})


def _sizes(replays: list[Replay]) -> dict[str, dict[str, int]]:
    total: dict[str, dict[str, int]] = {}
    for replay in replays:
        for scheme, segments in replay.sizes().items():
            counts = total.setdefault(scheme, {})
            for segment, (customers, _) in segments.items():
                counts[segment] = counts.get(segment, 0) + customers
    return total


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def main(definitions: str, source: str, folder: str) -> None:
    """Run behind everything else on this machine."""
    os.nice(_NICENESS)
    write_reference(load_definitions(Path(definitions).read_bytes(), definitions), source, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
