"""What became of everything: the recorded input computed anew, and compared with what was published and shown.

The verifier asks no worker. It reads the event topics as they stand, replays each partition under a clock of its
own, and compares with the changes, the assignments, the dead letters, and Redis.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.worker.comparison import found_schemes, hashes, without_times
from tests.worker.reference import Outcome, expected
from tests.worker.running_worker import Site

SETTLE_SECONDS = 30.0
EXAMPLES = 5


@dataclass(slots=True)
class Verdict:
    """Numbers that must be zero, and what is only told."""

    events: int = 0
    changes: int = 0
    repeats: int = 0
    """Changes published once more than needed, the same bytes."""
    lost: int = 0
    """Changes of the reference that are not on the topic, and rejects without a dead letter."""
    doubled: int = 0
    """Changes that the reference does not have, and ids with different bytes."""
    torn: int = 0
    """Changes out of order or with other content; customers whose assignment, hash or counter is another one."""
    examples: list[str] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.torn)

    def note(self, what: str) -> None:
        """Keep an example of what is wrong."""
        if len(self.examples) < EXAMPLES:
            self.examples.append(what)


def recorded(site: Site) -> dict[int, list[tuple[str, bytes]]]:
    """The events as they stand on the topics, by partition."""
    found: defaultdict[int, list[tuple[str, bytes]]] = defaultdict(list)
    for topic in site.events:
        for record in site.read(topic):
            found[record.partition].append(((record.key or b"").decode(), record.value))
    return dict(found)


def verdict(site: Site) -> Verdict:
    """Compare all that an installation said with what it should have said."""
    lines = recorded(site)
    wanted = expected(site.definitions, lines)
    found = Verdict(events=sum(map(len, lines.values())))
    _judge_changes(site, wanted, found)
    _judge_dead_letters(site, wanted, found)
    _judge_until_right(lambda: _judge_shown(site, wanted), found)
    return found


def _judge_changes(site: Site, wanted: Outcome, found: Verdict) -> None:
    forms: defaultdict[tuple[str, int], set[bytes]] = defaultdict(set)
    last: Counter[str] = Counter()
    for record in site.read(site.own("segment-changes")):
        change = json.loads(record.value)
        customer, version = change["customer_id"], change["version"]
        form = record.value + repr(record.headers).encode()
        if (customer, version) in forms:
            found.repeats += 1
        elif version == last[customer] + 1:
            last[customer] = version
        else:
            found.torn += 1
            found.note(f"{customer}: version {version} came after {last[customer]}")
        forms[customer, version].add(form)
    found.changes = len(forms)
    said: dict[tuple[str, int], dict[str, Any]] = {}
    for record in site.read(site.own("segment-changes")):
        change = json.loads(record.value)
        said[change["customer_id"], change["version"]] = change
    right = {(customer, each["version"]): each for customer, some in wanted.changes.items() for each in some}
    for key, each in right.items():
        if key not in said:
            found.lost += 1
            found.note(f"lost: {each}")
        elif said[key] != each:
            found.torn += 1
            found.note(f"said {said[key]}, should be {each}")
    for key, several in forms.items():
        if key not in right or len(several) > 1:
            found.doubled += 1
            found.note(f"doubled: {key}, {len(several)} forms")


def _judge_dead_letters(site: Site, wanted: Outcome, found: Verdict) -> None:
    letters: dict[tuple[str, ...], str] = {}
    for record in site.read(site.own("dead-letters")):
        told = {name: value.decode() for name, value in record.headers}
        letters[told["topic"], told["partition"], told["offset"]] = told["reason"]
    reasons = Counter(letters.values())
    for reason in reasons | wanted.rejects:
        missing = wanted.rejects[reason] - reasons[reason]
        found.lost += max(0, missing)
        found.doubled += max(0, -missing)
        if missing:
            found.note(f"dead letters for {reason}: {reasons[reason]}, should be {wanted.rejects[reason]}")


def _judge_until_right(look: Callable[[], list[str]], found: Verdict) -> None:
    """What is shown may come some seconds later."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (wrong := look()) and time.monotonic() < deadline:
        time.sleep(0.3)
    found.torn += len(wrong)
    for each in wrong:
        found.note(each)


def _judge_shown(site: Site, wanted: Outcome) -> list[str]:
    return [
        *_different("Redis", without_times(site.shown()), hashes(wanted)),
        *_different("segment-current", found_schemes(site), wanted.schemes),
        *_different("counts", site.counts(), wanted.counts),
    ]


def _different(where: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"{where} {name}: {found.get(name)}, should be {wanted.get(name)}"
        for name in found.keys() | wanted.keys()
        if found.get(name) != wanted.get(name)
    ]
