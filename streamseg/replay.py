"""The evaluator without Kafka: JSON lines in, changes out, one clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streamseg.core.assignment import forecast
from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.errors import RejectedEvent
from streamseg.core.profile import Profile
from streamseg.core.segmenter import Segmenter
from streamseg.core.units import Instant
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.event_json import EventDecoder
from streamseg.formats.messages import assignment, current_data

Sizes = dict[str, dict[str, tuple[int, int]]]
"""Customers and their worth in minor units, by scheme and segment."""


class Reject(NamedTuple):
    """A line that is no event."""

    line: int
    reason: str
    detail: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where lines of what a replay comes to are written; assignments only if they are wanted."""

    changes: Callable[[bytes], object]
    reject: Callable[[Reject], object]
    assignments: Callable[[bytes], object] | None = None


@dataclass(slots=True)
class Tally:
    """What became of all lines, and where customers ended."""

    results: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    """By reason; the first that was met comes first."""
    customers: int = 0
    changes: int = 0
    sizes: Sizes = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Adds the events and customers of a shard; its rejects are counted where they are put in order."""
        self.results.update(other.results)
        self.customers += other.customers
        self.changes += other.changes
        for scheme, segments in other.sizes.items():
            known = self.sizes.setdefault(scheme, {})
            for name, (customers, worth) in segments.items():
                before = known.get(name, (0, 0))
                known[name] = (before[0] + customers, before[1] + worth)


class _Profiles(dict[str, Profile]):
    """All customers, in memory."""

    def put(self, customer: str, profile: Profile) -> None:
        self[customer] = profile


@dataclass(slots=True)
class Replay:
    """One run over a recorded input. `publish` and `reject` are called as things happen, in order."""

    definitions: Definitions
    publish: Callable[[Change], None]
    reject: Callable[[Reject], object] = lambda _: None
    lines: int = 0
    results: Counter[str] = field(default_factory=Counter)
    """Events by what became of them: applied, duplicate, unmatched, rejected."""
    rejects: Counter[str] = field(default_factory=Counter)
    profiles: _Profiles = field(default_factory=_Profiles)
    segmenter: Segmenter = field(init=False)
    _decoder: EventDecoder = field(init=False)

    def __post_init__(self) -> None:
        definitions = self.definitions
        self.segmenter = self._segmenter()
        self._decoder = EventDecoder(definitions.currency, definitions.digits, definitions.rates)

    def _segmenter(self) -> Segmenter:
        return Segmenter(self.definitions, self.profiles, self.publish)

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

    def take(self, lines: Sequence[bytes], numbers: Sequence[int], clocks: Mapping[int, Instant]) -> None:
        """Takes lines with these numbers; the clock is moved before those that are late."""
        for number, line in zip(numbers, lines, strict=True):
            if number in clocks:
                self.segmenter.advance(clocks[number])
            self.lines = number - 1
            self.feed(line)

    # What it came to

    def tally(self, changes: int) -> Tally:
        """The tally as of now, of a replay that has published so many changes."""
        return Tally(self.results, self.rejects, len(self.profiles), changes, self.sizes())

    def sizes(self) -> Sizes:
        """Customers and their worth (minor units) by scheme and segment."""
        schemes = self.definitions.schemes
        found: Sizes = {each.scheme.name: dict.fromkeys(each.scheme.names, (0, 0)) for each in schemes}
        for profile in self.profiles.values():
            worth = worth_of(self.definitions, profile)
            for compiled, segment in zip(schemes, profile.segments, strict=True):
                if segment >= 0:
                    segments, name = found[compiled.scheme.name], compiled.scheme.names[segment]
                    customers, total = segments[name]
                    segments[name] = (customers + 1, total + worth)
        return found

    def assignments(self) -> Iterator[tuple[str, bytes]]:
        """Each customer with its last assignment as a line of JSON, sorted."""
        for customer in sorted(self.profiles):
            yield customer, assignment_line(self.definitions, customer, self.profiles[customer])


def worth_of(definitions: Definitions, profile: Profile) -> int:
    """What a customer is worth, in minor units."""
    value: Any = definitions.value(profile, profile.at) if definitions.value is not None else None
    return 0 if value is None else round(value)


def assignment_line(definitions: Definitions, customer: str, profile: Profile) -> bytes:
    """A customer's assignment as a line of JSON."""
    ahead = forecast(definitions, profile, profile.at, range(len(definitions.schemes)))
    return current_data(customer, profile, definitions, assignment(definitions, profile, ahead)) + b"\n"


def replay_changes(definitions: bytes, lines: Sequence[bytes], until: Instant | None) -> list[dict[str, Any]]:
    """The changes of a recorded input, in order, as they would be published."""
    changes: list[dict[str, Any]] = []
    Replay(load_definitions(definitions), lambda change: changes.append(change.data())).run(lines, until)
    return changes
