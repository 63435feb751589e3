"""The demo's check would be worth nothing if it could not fail: each kind of fault is found and named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamseg.demo.changes import Changes
from streamseg.demo.check import Finding, compare_changes, shown_differences
from streamseg.demo.reference import Reference
from streamseg.formats.messages import encode_json


def change(customer: str, version: int, **fields: Any) -> bytes:
    return encode_json(
        {
            "customer_id": customer,
            "scheme": "value",
            "from": None if version == 1 else "loyal",
            "to": "champions",
            "version": version,
            "reason": "event",
            "time": "1997-01-02T00:00:00Z",
            "values": {"orders": 3},
        }
        | fields
    )


EXPECTED = [change("ann", 1), change("bob", 1), change("ann", 2)]


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    (tmp_path / "changes.jsonl").write_bytes(b"".join(line + b"\n" for line in EXPECTED))
    return Reference(tmp_path)


def taken(*records: tuple[str, bytes]) -> Changes:
    changes = Changes()
    for customer, data in records:
        changes.take(customer, data)
    return changes


def compared(reference: Reference, *records: tuple[str, bytes]) -> Finding:
    return compare_changes(taken(*records), reference)


def test_the_same_changes_pass_in_whatever_order_customers_come(reference: Reference) -> None:
    finding = compared(reference, ("bob", EXPECTED[1]), ("ann", EXPECTED[0]), ("ann", EXPECTED[2]))

    assert finding.passed
    assert "all 3 changes" in finding.claim


def test_a_missing_change_is_named(reference: Reference) -> None:
    finding = compared(reference, ("ann", EXPECTED[0]), ("bob", EXPECTED[1]))

    assert finding.differences == ["ann: version 2 is missing"]


def test_a_change_of_a_customer_too_many_is_named(reference: Reference) -> None:
    finding = compared(
        reference, ("ann", EXPECTED[0]), ("bob", EXPECTED[1]), ("ann", EXPECTED[2]), ("bob", change("bob", 2))
    )

    assert finding.differences == ["bob: 2 changes instead of 1"]


def test_a_field_that_differs_is_named_with_both_values(reference: Reference) -> None:
    finding = compared(
        reference, ("ann", EXPECTED[0]), ("bob", EXPECTED[1]), ("ann", change("ann", 2, values={"orders": 4}))
    )

    assert finding.differences == ["ann: version 2: values is {'orders': 4}, not {'orders': 3}"]


def test_a_change_that_came_again_after_a_crash_is_counted_and_dropped() -> None:
    changes = taken(("ann", EXPECTED[0]), ("ann", EXPECTED[2]), ("ann", EXPECTED[0]), ("ann", EXPECTED[2]))

    assert (changes.total, changes.repeated, changes.faults) == (2, 2, [])


def test_a_change_that_came_again_with_other_bytes_is_a_fault() -> None:
    changes = taken(("ann", EXPECTED[0]), ("ann", change("ann", 1, to="lost")))

    assert len(changes.faults) == 1
    assert changes.faults[0].startswith("ann: came again with other bytes")


def test_a_version_that_is_left_out_is_a_fault() -> None:
    assert taken(("ann", EXPECTED[0]), ("ann", change("ann", 3))).faults == ["ann: version 3 follows 1"]


def test_of_many_differences_some_are_told_and_the_rest_is_counted() -> None:
    told = shown_differences(Finding("all is well", [f"difference {number}" for number in range(1_008)]))

    assert told[-1] == "… and 1,003 more"
    assert len(told) == 6
