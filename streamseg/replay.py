"""The evaluator without Kafka: JSON lines in, changes out, one clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.errors import RejectedEvent
from streamseg.core.profile import Profile
from streamseg.core.segmenter import Segmenter
from streamseg.core.units import Instant
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.event_json import EventDecoder


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that is no event."""

    line: int
    reason: str
    detail: str
    data: bytes


class _Profiles(dict[str, Profile]):
    """All customers, in memory."""

    def put(self, customer: str, profile: Profile) -> None:
        self[customer] = profile


@dataclass(slots=True)
class Replay:
    """One run over a recorded input. `publish` and `reject` are called as things happen, in order."""

    definitions: Definitions
    publish: Callable[[Change], None]
    reject: Callable[[Reject], None] = lambda _: None
    lines: int = 0
    results: Counter[str] = field(default_factory=Counter)
    """Events by what became of them: applied, duplicate, unmatched, rejected."""
    rejects: Counter[str] = field(default_factory=Counter)
    profiles: _Profiles = field(default_factory=_Profiles)
    segmenter: Segmenter = field(init=False)
    _decoder: EventDecoder = field(init=False)

    def __post_init__(self) -> None:
        definitions = self.definitions
        self.segmenter = Segmenter(definitions, self.profiles, self.publish)
        self._decoder = EventDecoder(definitions.currency, definitions.digits, definitions.rates)

    def feed(self, data: bytes) -> None:
        """Takes the next line. Blank ones are counted, but are no events."""
        self.lines += 1
        try:
            event = self._decoder.decode(data, "line:", self.lines)
        except RejectedEvent as error:
            if data and not data.isspace():
                self.results["rejected"] += 1
                self.rejects[error.reason] += 1
                self.reject(Reject(self.lines, error.reason, error.detail, data.rstrip(b"\r\n")))
            return
        self.results[self.segmenter.take(event)] += 1

    def run(self, lines: Iterable[bytes], until: Instant | None = None) -> None:
        """Takes all lines, then moves the clock to `until`."""
        for line in lines:
            self.feed(line)
        if until is not None:
            self.segmenter.advance(until)


def replay_changes(definitions: bytes, lines: Sequence[bytes], until: Instant | None) -> list[dict[str, Any]]:
    """The changes of a recorded input, in order, as they would be published."""
    changes: list[dict[str, Any]] = []
    Replay(load_definitions(definitions), lambda change: changes.append(change.data())).run(lines, until)
    return changes
