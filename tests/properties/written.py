"""What a replay writes: by one process in Python, which all others have to equal, and by shards."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any
from unittest.mock import patch

from streamseg import shards as sharding
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.messages import change_data
from streamseg.replay import Outputs, Reject, Replay, Tally
from streamseg.shards import Shards, work
from tests.properties.timelines import Story


@dataclass
class Written:
    """What a replay has written."""

    changes: list[bytes] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    assignments: list[bytes] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    @property
    def outputs(self) -> Outputs:
        return Outputs(self.changes.append, self.rejects.append, self.assignments.append)

    @property
    def all(self) -> tuple[Any, ...]:
        tally = self.tally
        counts = (tally.results, tally.rejects.most_common(), tally.customers, tally.changes, tally.sizes)
        return b"".join(self.changes), self.rejects, b"".join(self.assignments), counts


def in_one_process(story: Story) -> Written:
    """What one process makes of it, in Python."""
    written = Written()
    definitions = load_definitions(story.definitions.encode())
    replay = Replay(
        definitions, lambda change: written.changes.append(change_data(change) + b"\n"), written.rejects.append
    )
    replay.run(story.lines, story.until)
    written.assignments = [line for _, line in replay.assignments()]
    written.tally = replay.tally(len(written.changes))
    return written


@contextmanager
def shards_of(definitions: bytes, count: int, plan: bytes | None = None) -> Iterator[Shards]:
    """Shards that are threads: starting processes for each of many stories takes long."""
    connections = []
    for _ in range(count):
        ours, theirs = Pipe()
        Thread(target=shard, args=(theirs, definitions, plan), daemon=True).start()
        connections.append(ours)
    try:
        yield Shards(connections)
    finally:
        for connection in connections:
            connection.close()


def shard(connection: Connection, definitions: bytes, plan: bytes | None) -> None:
    with connection, suppress(EOFError):  # an input that ends with an error
        work(connection.recv, connection.send, definitions, plan)


def in_shards(story: Story, count: int, batch: int, plan: bytes | None = None) -> Written:
    """What so many shards make of it, that are given so many lines at a time."""
    written, source = Written(), story.definitions.encode()
    with (
        patch.object(sharding, "BATCH_LINES", batch),
        patch.object(sharding, "PARCEL", 2),
        shards_of(source, count, plan) as running,
    ):
        written.tally = running.replay(load_definitions(source), story.lines, written.outputs, story.until)
    return written
