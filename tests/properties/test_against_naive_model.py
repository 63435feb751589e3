"""The evaluator and the brute-force reference give the same changes, to the millisecond.

`PROPERTY_EXAMPLES` sets how many examples each test tries.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from streamseg.replay import replay_changes
from tests.naive_model import naive_changes
from tests.properties.timelines import DAY, READINGS, RETURNS, START, Arrival, Story, gaps, stories

FIELDS = (
    "customer_id",
    "scheme",
    "from",
    "to",
    "version",
    "reason",
    "cause",
    "time",
    "since",
    "next_change_at",
    "next_segment",
)
THOROUGH = settings(
    max_examples=int(os.environ.get("PROPERTY_EXAMPLES", "60")),
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)

Change = dict[str, Any]


def by_customer(changes: Iterable[Change]) -> dict[str, list[Change]]:
    """Sort changes to their customers, in order, with the fields that are compared."""
    sorted_out = defaultdict(list)
    for change in changes:
        sorted_out[change["customer_id"]].append({name: change[name] for name in FIELDS})
    return dict(sorted_out)


def replayed(definitions: str, arrivals: Sequence[Arrival], until: int | None) -> list[Change]:
    lines = [arrival.line for arrival in arrivals]
    changes: list[Change] = replay_changes(definitions.encode(), lines, until)
    return changes


def milliseconds(stamp: str) -> int:
    return round(datetime.fromisoformat(stamp).timestamp() * 1000)


@THOROUGH
@given(stories())
def test_customers_change_as_in_the_reference_model(story: Story) -> None:
    assert_as_in_the_reference_model(story)


@THOROUGH
@given(stories(RETURNS))
def test_orders_and_refunds_count_as_in_the_reference_model(story: Story) -> None:
    assert_as_in_the_reference_model(story)


@THOROUGH
@given(stories(READINGS))
def test_fields_and_attributes_are_read_as_in_the_reference_model(story: Story) -> None:
    assert_as_in_the_reference_model(story)


def assert_as_in_the_reference_model(story: Story) -> None:
    note(str(story))
    expected = naive_changes(story.definitions, story.lines, story.until)
    got = replay_changes(story.definitions.encode(), story.lines, story.until)
    assert by_customer(got) == by_customer(expected)


@THOROUGH
@given(stories(late=False, malformed=False), st.permutations(["a", "b", "ä@c"]))
def test_customers_do_not_see_each_other_in_sorted_input(story: Story, order: list[str]) -> None:
    note(str(story))
    until = max(story.until or 0, story.arrivals[-1].time)
    together = by_customer(replayed(story.definitions, story.arrivals, until))
    reordered = sorted(story.arrivals, key=lambda arrival: (arrival.time, order.index(arrival.customer_id)))
    assert by_customer(replayed(story.definitions, reordered, until)) == together
    for customer in {arrival.customer_id for arrival in story.arrivals}:
        own = [arrival for arrival in story.arrivals if arrival.customer_id == customer]
        assert by_customer(replayed(story.definitions, own, until)) == {customer: together[customer]}


@THOROUGH
@given(stories(malformed=False), gaps(), gaps())
def test_a_replay_that_ends_earlier_gives_the_first_part_of_a_longer_one(story: Story, gap: int, rest: int) -> None:
    note(str(story))
    end = story.arrivals[0].time + gap
    last = max(arrival.time for arrival in story.arrivals)
    later = next((n for n, arrival in enumerate(story.arrivals) if arrival.time > end), None)
    whole = replayed(story.definitions, story.arrivals, max(last, end) + rest)
    part = [change for change in whole if milliseconds(change["time"]) <= end]
    assert by_customer(replayed(story.definitions, story.arrivals[:later], end)) == by_customer(part)


@settings(THOROUGH, max_examples=15)
@given(st.integers(250, 262), st.lists(st.integers(0, 261), max_size=6))
def test_an_id_is_a_duplicate_among_the_latest_256_only(events: int, repeats: list[int]) -> None:
    odd = [n for n in range(200, 300) if n % 2]
    definitions = f"""
version: 1
currency: EUR
schemes:
  parity:
    default: even
    segments: [{{name: odd, when: "count(page_view, all) in {odd}"}}]
"""
    ids = [f', "id": "e{n}"' if n % 7 else "" for n in [*range(events), *repeats]]
    event = '{"type": "page_view", "customer_id": "a", "time": '
    lines = [f"{event}{START + n}{name}}}".encode() for n, name in enumerate(ids)]
    expected = naive_changes(definitions, lines, START + DAY)
    assert by_customer(replay_changes(definitions.encode(), lines, START + DAY)) == by_customer(expected)
