"""What the events in the logs demand: found by replaying them, or by counting where their order is not determined."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.formats import messages
from streamseg.replay import Replay
from streamseg.worker.placement import partition_of
from streamseg.worker.settings import Clock, Keys
from tests.simulator.broker import Record, TopicPartition
from tests.simulator.worker import EVENTS, NAMES, PARTITIONS

Form = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]
"""A record's key, value and headers."""
Logs = defaultdict[TopicPartition, list[Record]]


class Sent(NamedTuple):
    """An event as it stands in a log; nobody's customer if it cannot be read."""

    record: Record
    customer: str | None
    name: str = ""
    worth: int = 0
    """What it adds to its customer's worth."""
    ahead: bool = False
    """Whether it may have been too far in the future, when it was taken."""

    @property
    def target(self) -> int:
        """Where its customer belongs."""
        return partition_of(self.customer or "", PARTITIONS)

    @property
    def misplaced(self) -> bool:
        """Whether it came to another partition."""
        return self.target != self.record.partition


def read(record: Record) -> Sent:
    """Give an event of a log."""
    try:
        event = json.loads(record.value or b"")
        worth = round(100 * event["amount"]) if event["type"] == "purchase" else 0
        return Sent(record, event["customer_id"], event["id"], worth, "ahead" in event.get("props", {}))
    except (ValueError, KeyError):
        return Sent(record, None)


@dataclass(slots=True)
class Demanded:
    """What the events demand of one partition."""

    replay: Replay
    """Of the customers who belong there; what it says holds where the order of events is determined."""
    changes: dict[bytes, Form] = field(default_factory=dict)
    """By id, in order."""
    due: dict[bytes, int] = field(default_factory=dict)
    """The offset of the event by which a change came about."""
    rejected: dict[int, Sent] = field(default_factory=dict)
    """Events that came there and must be rejected, by offset."""
    doubtful: dict[int, Sent] = field(default_factory=dict)
    """Those that must be rejected or else applied."""
    applied: dict[int, Sent] = field(default_factory=dict)
    """Those that move a state there."""
    sent_on: dict[int, Sent] = field(default_factory=dict)
    """Those that must be sent on, by offset."""
    worths: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The least and the most that customers who belong there may be worth."""


class Demands:
    """Reads all events, and says what follows."""

    def __init__(self, definitions: Definitions, logs: Logs, keys: Keys, clock: Clock) -> None:
        self._definitions, self._logs, self._rekeys = definitions, logs, keys is Keys.REKEY
        self.determined = clock is Clock.STREAM and keys is Keys.REJECT
        """Whether each change follows from the logs, to the byte."""
        events = [read(record) for number in range(PARTITIONS) for record in logs[EVENTS, number]]
        self._events = sorted(events, key=lambda event: event.record.arrival)
        self._names = Counter((event.customer, event.name) for event in events)

    def of(self, number: int) -> Demanded:
        """Say what is demanded of a partition."""
        made: list[Change] = []
        demanded = Demanded(Replay(self._definitions, made.append))
        for event in self._events:
            if event.record.partition == number:
                self._place(demanded, event)
            if event.customer is None or event.target != number or self._refuses(event):
                continue
            before = demanded.replay.results["applied"]
            demanded.replay.feed(event.record.value or b"")
            if self.determined:
                if demanded.replay.results["applied"] > before:
                    demanded.applied[event.record.offset] = event
                _note(demanded, made, event.record.offset)
            made.clear()
        demanded.worths = self._exact(demanded) if self.determined else dict(self._bounds(number))
        return demanded

    def _refuses(self, event: Sent) -> bool:
        """Whether it must be rejected, though it can be read."""
        return not self._rekeys and (event.misplaced or event.record.key != (event.customer or "").encode())

    def _place(self, demanded: Demanded, event: Sent) -> None:
        """Say what becomes of an event where it came to."""
        offset = event.record.offset
        if event.customer is None or self._refuses(event):
            demanded.rejected[offset] = event
        elif event.ahead:
            demanded.doubtful[offset] = event
        elif event.misplaced:
            demanded.sent_on[offset] = event
        elif not self.determined and not self.repeated(event):
            demanded.applied[offset] = event

    def _exact(self, demanded: Demanded) -> dict[str, tuple[int, int]]:
        worth = self._definitions.value
        assert worth is not None
        found = {customer: round(worth(each, each.at) or 0) for customer, each in demanded.replay.profiles.items()}
        return {customer: (each, each) for customer, each in found.items()}

    def _bounds(self, number: int) -> Iterator[tuple[str, tuple[int, int]]]:
        """An id that comes twice may count once or twice; what was too early may be taken when it is not."""
        worths: defaultdict[str, defaultdict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for event in self._events:
            if event.customer is not None and event.target == number and not self._refuses(event):
                least = 0 if event.ahead and self.letters(event) else event.worth
                worths[event.customer][event.name].append((least, event.worth))
        for customer, names in worths.items():
            least = sum(min(low for low, _ in each) for each in names.values())
            yield customer, (least, sum(high for each in names.values() for _, high in each))

    def repeated(self, event: Sent) -> bool:
        """Whether the customer has another event with its id: one of them may be a duplicate, which moves nothing."""
        return self._names[event.customer, event.name] > 1

    def letters(self, event: Sent) -> list[Record]:
        """Give the dead letters of an event."""
        place = event.record.partition
        return [each for each in self._logs[NAMES.dead_letters, place] if origin_of(each) == event.record.offset]


def origin_of(letter: Record) -> int:
    """Give the offset of the event that a dead letter is of."""
    return int(dict(letter.headers)["offset"])


def _note(demanded: Demanded, made: list[Change], offset: int) -> None:
    for change in made:
        key = change.customer.encode()
        headers = messages.change_headers(key, change.version, change.at, NAMES.source)
        name = dict(headers)["ce_id"]
        demanded.changes[name] = key, messages.change_data(change), tuple(headers)
        demanded.due[name] = offset
