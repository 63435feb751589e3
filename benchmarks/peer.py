"""Who takes part: the programs that do the job, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import classes, java_classes, peers_python
from benchmarks.worker import command
from streamseg.services.java import find_java
from streamseg.worker.settings import Names

DEFINITIONS = Path(__file__).with_name("job.yaml")
COMMIT_MS = 3_000
"""How often the peers commit, or take a checkpoint: between the defaults of Faust (2.8 s) and Quix Streams (5 s).
Kafka Streams would wait for 30 s, and after a crash do so much again. A worker of streamseg commits every second."""
FLOOR_COMMIT_MS = 100
HEAP = "-Xmx2g"
FLINK_NEEDS = ("--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED")
"""What Flink's own start scripts give to its JVMs."""
SLOW_EVENTS = 50_000


@dataclass(frozen=True, slots=True)
class Run:
    """Where one run of a peer reads and writes. `name` is its consumer group, and in the names of all its topics."""

    name: str
    kafka: str
    redis: str
    events: str
    folder: Path
    port: int
    """Of streamseg's metrics."""

    def common(self, commit_ms: int = COMMIT_MS) -> list[str]:
        """The arguments of every peer."""
        return [self.kafka, self.events, f"{self.name}-changes", self.name, str(self.folder), str(commit_ms)]


@dataclass(frozen=True, slots=True)
class Peer:
    """One who does the job."""

    title: str
    command: Callable[[Run], list[str]]
    most: int | None = None
    """The most events it is given: the slow ones would take hours."""
    changes: Callable[[Run], str] | None = lambda run: f"{run.name}-changes"
    """The topic of its changes."""
    ours: bool = False
    needs: Callable[[], object] = lambda: None
    """Fetches and builds what it is made of, if need be."""


def _python(module: str, commit_ms: int = COMMIT_MS) -> Callable[[Run], list[str]]:
    return lambda run: [sys.executable, "-m", f"benchmarks.peers.{module}", *run.common(commit_ms)]


def _quix(run: Run) -> list[str]:
    return [str(peers_python()), "-m", "benchmarks.peers.quix", *run.common()]


def _kafka_streams(*options: str) -> Callable[[Run], list[str]]:
    main = "streamseg.peers.kafkastreams.Main"
    return lambda run: [*_java("kafka-streams"), main, *run.common(), *options]


def _flink(run: Run) -> list[str]:
    return [*_java("flink", *FLINK_NEEDS), "streamseg.peers.flink.Main", *run.common()]


def _java(module: str, *options: str) -> list[str]:
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return [str(find_java()), HEAP, quiet, *options, "-cp", classes(module)]


def _streamseg(run: Run) -> list[str]:
    given = command(DEFINITIONS, run.kafka, run.redis, run.events, run.name, run.port, run.folder)
    return [*given, "--log-level", "WARNING"]


PEERS = {
    "floor": Peer("the floor: Faust's consumer and JSON decoding", _python("floor", FLOOR_COMMIT_MS), changes=None),
    "streamseg": Peer("**streamseg worker**", _streamseg, changes=lambda run: Names(run.name).changes, ours=True),
    "faust": Peer("Faust 0.15, one event at a time", _python("plain_faust"), most=SLOW_EVENTS),
    "quix": Peer("Quix Streams 3.28", _quix, needs=peers_python),
    "kafka-streams-memory": Peer("Kafka Streams 4.1, in memory", _kafka_streams(), needs=java_classes),
    "kafka-streams-memory-cached": Peer("the same with a cache", _kafka_streams("cached"), needs=java_classes),
    "kafka-streams-rocksdb": Peer("Kafka Streams 4.1, RocksDB", _kafka_streams("rocksdb"), needs=java_classes),
    "kafka-streams-rocksdb-cached": Peer(
        "the same with a cache", _kafka_streams("rocksdb", "cached"), needs=java_classes
    ),
    "flink": Peer("Flink 2.2, state on the heap", _flink, needs=java_classes),
}
