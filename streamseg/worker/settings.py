"""What a worker is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from streamseg.core.errors import InputError
from streamseg.worker.tolerance import Tolerance

MAX_RECORD_BYTES = 4 << 20
"""The largest state record; the changelog is created with room for it."""


class Clock(StrEnum):
    """What moves time: the wall clock (live), or events alone (history, demos, tests)."""

    WALL = "wall"
    STREAM = "stream"


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
    max_ahead_ms: int = 300_000
    """How far ahead of the wall clock an event may be."""
    tolerance: Tolerance = field(default_factory=Tolerance)
    log_level: str = "INFO"
