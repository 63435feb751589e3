"""What a worker must come to: the same events through `Replay`, one clock for each partition."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

from streamseg.core.assignment import forecast
from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.messages import assignment
from streamseg.replay import Replay

Change = dict[str, Any]
Lines = Iterable[tuple[str, bytes]]
"""Keys and values of events."""


@dataclass(slots=True)
class Outcome:
    """What is published and shown of all customers once all events are done."""

    changes: dict[str, list[Change]] = field(default_factory=dict)
    """By customer, by version."""
    schemes: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """By customer: each scheme's segment, since when, and what comes next."""
    results: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)

    @property
    def versions(self) -> dict[str, int]:
        return {customer: changes[-1]["version"] for customer, changes in self.changes.items()}

    @property
    def counts(self) -> dict[str, Counter[str]]:
        """Customers by segment, for each scheme."""
        counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for schemes in self.schemes.values():
            for scheme, shown in schemes.items():
                counted[scheme][shown["segment"]] += 1
        return dict(counted)

    @property
    def moves(self) -> dict[str, Counter[str]]:
        """Migrations `from>to`, for each scheme and day; a first assignment is none."""
        counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for changes in self.changes.values():
            for change in changes:
                if change["from"] is not None:
                    counted[f"{change['scheme']}:{change['time'][:10]}"][f"{change['from']}>{change['to']}"] += 1
        return dict(counted)


def expected(definitions: Path, partitions: Mapping[int, Lines]) -> Outcome:
    """Replay each partition's events under a clock of its own."""
    outcome = Outcome()
    for lines in partitions.values():
        _add(outcome, load_definitions(definitions.read_bytes()), [value for _, value in lines])
    return outcome


def _add(outcome: Outcome, definitions: Definitions, lines: list[bytes]) -> None:
    changes: list[Change] = []
    replay = Replay(definitions, lambda change: changes.append(json.loads(json.dumps(change.data()))))
    replay.run(lines)
    outcome.changes.update(by_customer(changes))
    outcome.schemes.update({name: _shown(definitions, profile) for name, profile in replay.profiles.items()})
    outcome.results.update(replay.results)
    outcome.rejects.update(replay.rejects)


def _shown(definitions: Definitions, profile: Profile) -> dict[str, dict[str, Any]]:
    return assignment(definitions, profile, forecast(definitions, profile, profile.at, range(len(definitions.schemes))))


def by_customer(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Changes by customer, in the order they came in."""
    ordered = sorted(changes, key=itemgetter("customer_id"))
    return {customer: list(each) for customer, each in groupby(ordered, itemgetter("customer_id"))}


def by_version(published: Iterable[Change]) -> dict[str, list[Change]]:
    """The changes of each customer by version; one that was published again counts once."""
    once = {(change["customer_id"], change["version"]): change for change in published}
    return by_customer(once[key] for key in sorted(once))


def assert_contiguous(changes: Mapping[str, list[Change]]) -> None:
    """Versions begin at 1 and rise by one; each change of a scheme begins where the one before it ended."""
    for customer, each in changes.items():
        assert [change["version"] for change in each] == list(range(1, len(each) + 1)), customer
        for scheme in {change["scheme"] for change in each}:
            chain = [change for change in each if change["scheme"] == scheme]
            assert chain[0]["from"] is None
            assert all(before["to"] == after["from"] for before, after in pairwise(chain)), customer
