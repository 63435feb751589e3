"""What a worker is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from streamseg.core.errors import InputError
from streamseg.engine import Engine
from streamseg.worker.tolerance import Tolerance

MAX_RECORD_BYTES = 4 << 20
"""The largest state record; the changelog is created with room for it."""


class Clock(StrEnum):
    """What moves time: the wall clock (live), or events alone (history, demos, tests)."""

    WALL = "wall"
    STREAM = "stream"


class Keys(StrEnum):
    """What becomes of an event whose key is not its customer, or that came to the wrong partition for it."""

    REKEY = "rekey"
    """It is sent on to the partition where its customer belongs; what its key says does not matter."""
    TRUST = "trust"
    """Any partition is right, for the producers chose it; another key than the customer is rejected."""
    REJECT = "reject"
    """It is rejected."""


class Store(StrEnum):
    """Where the states of customers are kept while the worker owns them."""

    MEMORY = "memory"
    ROCKSDICT = "rocksdict"


@dataclass(frozen=True, slots=True)
class Names:
    """Topics and keys of our own, all with one prefix."""

    prefix: str = "streamseg"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", self.prefix.rstrip(".:"))
        if not self.prefix:
            raise InputError("the prefix is empty: give a name, such as streamseg")

    def topic(self, name: str) -> str:
        """One of our topics: `streamseg.` and the name."""
        return f"{self.prefix}.{name}"

    @property
    def changes(self) -> str:
        """Every change of a segment."""
        return self.topic("segment-changes")

    @property
    def current(self) -> str:
        """Each customer's assignment, compacted."""
        return self.topic("segment-current")

    @property
    def dead_letters(self) -> str:
        """Events that were rejected."""
        return self.topic("dead-letters")

    @property
    def source(self) -> bytes:
        """The `ce_source` of changes."""
        return f"/{self.prefix}/segments".encode()

    @property
    def redis(self) -> str:
        """What stands before Redis keys."""
        return f"{self.prefix}:"

    def changelog(self, group: str) -> str:
        """The state of one consumer group's workers."""
        return self.topic(f"{group}-state-changelog")

    def rekeyed(self, group: str) -> str:
        """The events that came to wrong partitions of a consumer group's topics, on their way to the right ones."""
        return self.topic(f"{group}-rekeyed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a worker."""

    definitions: Path
    kafka: tuple[str, ...]
    redis: str
    events: tuple[str, ...]
    group: str
    names: Names
    clock: Clock
    http_host: str
    http_port: int
    data: Path
    store: Store = Store.MEMORY
    engine: Engine = Engine.AUTO
    max_ahead_ms: int = 300_000
    """How far ahead of the wall clock an event may be."""
    tolerance: Tolerance = field(default_factory=Tolerance)
    log_level: str = "INFO"
    keys: Keys = Keys.REKEY

    @property
    def rekeyed(self) -> str:
        """The topic of events that were sent on."""
        return self.names.rekeyed(self.group)

    @property
    def sources(self) -> tuple[str, ...]:
        """All topics that events are read from."""
        return (*self.events, self.rekeyed)
