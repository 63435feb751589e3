"""A replay in shards writes what one process writes, to the byte, whatever happens to whom in which order."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from streamseg.core.errors import InputError
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.messages import encode_json
from tests.properties.test_against_naive_model import THOROUGH
from tests.properties.timelines import DAY, START, Arrival, Story, stories
from tests.properties.written import Written, in_one_process, in_shards, shards_of

MANY = tuple("abcdefgh")
LAPSING = """\
version: 1
currency: EUR
schemes:
  life:
    default: asleep
    segments:
      - {name: awake, when: since(any) <= 2d}
      - {name: drowsy, when: since(any) <= 4d}
  buys:
    default: never
    segments:
      - {name: lately, when: "count(purchase, 7d) >= 1"}
      - {name: once, when: "count(purchase, all) >= 1"}
"""


@THOROUGH
@given(stories(customers=MANY), st.integers(1, 3), st.integers(1, 6))
def test_shards_write_what_one_process_writes(story: Story, count: int, batch: int) -> None:
    note(f"{count} shards, batches of {batch}\n{story}")
    assert in_shards(story, count, batch).all == in_one_process(story).all


def event(customer: str, day: float, kind: str = "page_view", **fields: Any) -> bytes:
    return encode_json(
        {"type": kind, "customer_id": customer, "time": START + round(day * DAY), "amount": "5", **fields}
    )


def told(definitions: str, lines: list[bytes], until: int | None = None) -> Story:
    return Story(definitions, tuple(Arrival(0, "", line) for line in lines), until)


def invalid(day: float) -> bytes:
    """What only a full decode tells from an event."""
    return event("z", day, "purchase", amount="-1")


NASTY: dict[str, list[bytes]] = {
    "nothing": [],
    "nothing but blank lines": [b"", b"  "],
    "nothing but rejected lines": [b"hello", invalid(1), b"{}"],
    "all customers at one instant": [event(customer, 1, "purchase") for customer in MANY],
    "deadlines of all at one instant": [*(event(customer, 1) for customer in MANY[::-1]), event("b", 9)],
    "a deadline and an event at one instant": [event("a", 1), event("b", 1), event("c", 3 + 1 / DAY, "purchase")],
    "one customer only": [event("a", day, "purchase") for day in (1, 2, 9, 3, 30)],
    "late events of others": [event("a", 1), event("b", 8), event("c", 2, "purchase"), event("a", 7), event("b", 8)],
    "a clock that lines that are no events would move": [
        event("a", 1), event("b", 1), invalid(50), event("a", 2), invalid(40), invalid(60), event("c", 1.5, "purchase"),
        invalid(3), event("b", 3), event("c", 3, "purchase"), invalid(3), event("d", 3), event("d", 2.9),
    ],
    "the same event twice, and for two customers": [
        event("a", 1, id="e"), event("a", 6, id="e"), event("b", 2, id="e"), event("c", 5),
    ],
    "refunds before and after their purchases": [
        event("a", 1, "refund", order_id="o"), event("b", 2, "purchase", order_id="o"),
        event("a", 3, "purchase", order_id="o"), event("b", 4, "refund", order_id="o"), event("c", 9),
    ],
}  # fmt: skip


@pytest.mark.parametrize("lines", NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("until", [None, START + 100 * DAY], ids=["to the last event", "until later"])
def test_an_order_that_is_hard_to_keep_is_kept(lines: list[bytes], until: int | None) -> None:
    story = told(LAPSING, lines, until)
    expected = in_one_process(story).all
    for count, batch in ((2, 1), (2, 3), (3, 2), (3, 100)):
        assert in_shards(story, count, batch).all == expected


def unreadable_after(lines: list[bytes]) -> Iterator[bytes]:
    yield from lines
    raise InputError("the rest cannot be read")


def test_what_stood_before_an_unreadable_place_is_written() -> None:
    lines = [event(customer, day) for day in range(5) for customer in MANY]
    expected = in_one_process(told(LAPSING, lines))
    written = Written()
    with (
        shards_of(LAPSING.encode(), 2) as running,
        pytest.raises(InputError, match="cannot be read"),
    ):
        running.replay(load_definitions(LAPSING.encode()), unreadable_after(lines), written.outputs, None)
    assert b"".join(written.changes) == b"".join(expected.changes)
