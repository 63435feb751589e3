"""Whether what workers published and show is what the reference says."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.worker.reference import Outcome, assert_contiguous, by_version
from tests.worker.running_worker import Site

SETTLED_SECONDS = 15.0
LOOK_SECONDS = 0.3


def assert_same(site: Site, wanted: Outcome) -> list[dict[str, Any]]:
    """Changes, assignments, Redis and its counters are those of the reference, customer by customer.

    Gives the changes as they were published, repeated ones among them.
    """
    # Events are acknowledged before all is published that time changed up to the last of them.
    wait_for_equality(site.changes, wanted.changes)
    published = site.published()
    changes = by_version(published)
    assert_equal(changes, wanted.changes)
    assert_contiguous(changes)
    # What only moved a forecast comes to the compacted topic, and then to Redis, within some seconds.
    wait_for_equality(lambda: without_times(site.shown()), hashes(wanted))
    # Whoever has lost a partition may have had the last word there, until the owner notices.
    wait_for_equality(lambda: found_schemes(site), wanted.schemes)
    assert site.counts() == wanted.counts
    assert site.moves() == wanted.moves
    return published


def assert_equal(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Equal customer by customer; tells only the first that differs."""
    assert found.keys() == wanted.keys()
    for customer, each in wanted.items():
        assert found[customer] == each, f"{customer}: found {found[customer]}, wanted {each}"


def found_schemes(site: Site) -> dict[str, Any]:
    """Each customer's last assignment on the compacted topic."""
    return {customer: each["schemes"] for customer, each in site.current().items()}


def wait_for_equality(look: Callable[[], Mapping[str, Any]], wanted: Mapping[str, Any]) -> None:
    """Look again and again until all is as wanted; fails with the first customer that is not."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    assert_equal(found, wanted)


def without_times(shown: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Hashes of Redis without the instant they are of."""
    return {
        customer: {name: value for name, value in each.items() if name != "updated_at"}
        for customer, each in shown.items()
    }


def hashes(wanted: Outcome) -> dict[str, dict[str, str]]:
    """The hashes that Redis must hold."""
    versions = wanted.versions
    return {customer: _hash(versions[customer], schemes) for customer, schemes in wanted.schemes.items()}


def _hash(version: int, schemes: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    fields = {"version": str(version)}
    for scheme, shown in schemes.items():
        fields[scheme] = shown["segment"]
        fields |= {f"{scheme}.{name}": shown[name] for name in ("since", "next_change_at", "next_segment")}
    return {name: value for name, value in fields.items() if value is not None}


def repeats(site: Site) -> dict[str, set[tuple[bytes, bytes]]]:
    """Every change on the topic by its id: the different bytes, headers among them, that it was published as."""
    found: dict[str, set[tuple[bytes, bytes]]] = {}
    for record in site.read(site.own("segment-changes")):
        headers = json.dumps([(name, value.decode()) for name, value in record.headers]).encode()
        found.setdefault(dict(record.headers)["ce_id"].decode(), set()).add((record.value, headers))
    return found
