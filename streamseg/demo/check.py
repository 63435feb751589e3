"""Whether the worker came to what it must: what Kafka and Redis hold, beside a replay without them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from streamseg.core.definitions import Definitions
from streamseg.demo.changes import Changes
from streamseg.demo.links import Links
from streamseg.demo.reference import Customer, Reference, Totals
from streamseg.formats.messages import decode_json

_VIEW_SECONDS = 20.0
_VIEW_POLL_SECONDS = 0.5
_SHOWN = 5
"""Differences told of one finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    claim: str
    """What holds, if it passed."""
    differences: Sequence[str] = ()
    """What is otherwise; some of it."""

    @property
    def passed(self) -> bool:
        """Whether the claim holds."""
        return not self.differences


async def check(links: Links, definitions: Definitions, changes: Changes, reference: Reference) -> list[Finding]:
    """Compare everything. The worker must have applied all events, and all changes must have been taken."""
    totals = await asyncio.to_thread(reference.totals)
    compared = await asyncio.to_thread(compare_changes, changes, reference)
    findings = [await _events(links), compared, _once(changes)]
    findings += await _view(links, definitions, await asyncio.to_thread(reference.customers), totals)
    return [*findings, await _dead_letters(links, totals)]


async def _events(links: Links) -> Finding:
    committed, ends = await links.committed(), await links.events()
    left = [
        f"partition {partition}: {committed.get(partition, 0):,} of {end:,} are applied"
        for partition, end in ends.items()
        if committed.get(partition, 0) != end
    ]
    return Finding(f"all {sum(ends.values()):,} events applied, committed to the end of every partition", left)


def compare_changes(changes: Changes, reference: Reference) -> Finding:
    """Compare each change with the same customer's same version: all fields at once, as bytes."""
    seen: dict[str, int] = {}
    differences: list[str] = []
    for expected in reference.changes():
        customer = decode_json(expected)["customer_id"]
        place = seen[customer] = seen.get(customer, 0) + 1
        found = changes.by_customer.get(customer, ())
        actual = found[place - 1] if place <= len(found) else None
        if actual != expected:
            differences.append(_difference(customer, place, expected, actual))
    differences += [
        f"{customer}: {len(found)} changes instead of {seen.get(customer, 0)}"
        for customer, found in changes.by_customer.items()
        if len(found) > seen.get(customer, 0)
    ]
    claim = f"all {sum(seen.values()):,} changes equal a replay without Kafka, in every field, to the byte"
    return Finding(claim, differences)


def _difference(customer: str, version: int, expected: bytes, actual: bytes | None) -> str:
    if actual is None:
        return f"{customer}: version {version} is missing"
    left, right = decode_json(expected), decode_json(actual)
    fields = [f"{name} is {right.get(name)!r}, not {left[name]!r}" for name in left if left[name] != right.get(name)]
    return f"{customer}: version {version}: {'; '.join(fields) or 'the same fields, written otherwise'}"


def _once(changes: Changes) -> Finding:
    again = f" ({changes.repeated:,} sent again after a crash, recognised by their version)" if changes.repeated else ""
    return Finding(f"each change once and in order: versions 1, 2, 3 … of every customer{again}", changes.faults)


async def _view(
    links: Links, definitions: Definitions, customers: Mapping[str, Customer], totals: Totals
) -> list[Finding]:
    """Compare Redis, which is written behind Kafka: it may take a moment until it is there."""
    deadline = time.monotonic() + _VIEW_SECONDS
    while True:
        findings = [await _hashes(links, definitions, customers), await _counters(links, totals)]
        if all(finding.passed for finding in findings) or time.monotonic() > deadline:
            return findings
        await asyncio.sleep(_VIEW_POLL_SECONDS)


async def _hashes(links: Links, definitions: Definitions, customers: Mapping[str, Customer]) -> Finding:
    schemes = [compiled.scheme.name for compiled in definitions.schemes]
    keys = await links.customer_keys()
    differences = [f"{customer}: not in Redis" for customer in customers.keys() - keys]
    differences += [f"{customer}: in Redis, but no customer" for customer in keys - customers.keys()]
    for shown in await links.shown(sorted(keys & customers.keys()), schemes):
        if shown != customers[shown.id]:
            differences.append(f"{shown.id}: Redis shows {shown}, not {customers[shown.id]}")
    return Finding(f"Redis shows all {len(customers):,} customers in their right segments", differences)


async def _counters(links: Links, totals: Totals) -> Finding:
    counts = await links.counts(totals.customers)
    differences = [
        f"{scheme}: {counts.get((scheme, segment), 0):,} {segment} instead of {customers:,}"
        for scheme, segments in totals.customers.items()
        for segment, customers in segments.items()
        if counts.get((scheme, segment), 0) != customers
    ]
    return Finding("the counters in Redis are exact, for every segment", differences)


async def _dead_letters(links: Links, totals: Totals) -> Finding:
    found = await links.dead_letters()
    differences = [f"missing among the dead letters: {rejected}" for rejected in totals.rejected - found]
    differences += [
        f"among the dead letters, and no malformed line: {rejected}" for rejected in found - totals.rejected
    ]
    claim = f"{len(totals.rejected):,} malformed lines, and just these among the dead letters, with their reasons"
    return Finding(claim if totals.rejected else "no dead letters, for no line was malformed", differences)


def shown_differences(finding: Finding) -> list[str]:
    """Some of the differences, and how many more there are."""
    more = len(finding.differences) - _SHOWN
    return [*islice(finding.differences, _SHOWN), *([f"… and {more:,} more"] if more > 0 else [])]
