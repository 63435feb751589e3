from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from streamseg.core.errors import InputError
from streamseg.core.event import TYPE_NAME
from streamseg.core.units import DAY, parse_amount, parse_instant
from streamseg.shop import LATE_WITHIN, MALFORMED, Shop

SHOP = Shop(seed=7, customers=400, events=40_000, late_ratio=0.03, duplicate_ratio=0.02, malformed_ratio=0.01)
TYPES = {
    *("purchase", "refund", "profile"),
    *("session_start", "page_view", "cart_add", "email_open", "email_click"),
}
PRINT_DIGEST = """
import hashlib
from streamseg.shop import Shop
digest = hashlib.sha256()
for key, line in Shop(seed=7, customers=50, events=3000).lines():
    digest.update(key.encode() + line)
print(digest.hexdigest())
"""

Event = dict[str, Any]


def accepted(line: bytes) -> Event | None:
    """Return the event, if the rules for events let it in."""
    try:
        event = json.loads(line)
        check(event, len(line))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return dict(event)


def check(event: Event, size: int) -> None:
    customer = event["customer_id"]
    if size > 65_536 or TYPE_NAME.fullmatch(event["type"]) is None:
        raise ValueError("size or type")
    if not 0 < len(customer.encode()) <= 256 or not customer.isprintable():
        raise ValueError("customer")
    parse_instant(event["time"])
    if event["type"] == "refund":
        event["order_id"]
    if event["type"] == "purchase":
        parse_amount(str(event["amount"]), 2)


def events(shop: Shop) -> Iterator[Event]:
    """Yield the events that are let in, without second copies of an id or an order."""
    ids: set[str] = set()
    orders: set[str] = set()
    for _, line in shop.lines():
        event = accepted(line)
        if event is None or event["id"] in ids:
            continue
        ids.add(event["id"])
        if event["type"] == "purchase":
            if event["order_id"] in orders:
                continue
            orders.add(event["order_id"])
        yield event


def test_a_shop_has_exactly_the_lines_asked_for() -> None:
    for shop in (SHOP, Shop(customers=1, events=1), Shop(customers=300, events=300)):
        assert sum(1 for _ in shop.lines()) == shop.events


def test_the_same_seed_gives_the_same_lines_in_another_process() -> None:
    command = [sys.executable, "-c", PRINT_DIGEST]

    printed = {
        subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()
        for env in ({"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"})
    }

    assert printed == {"b5d18cb2484cbb8a148d4badd01da6249f8d43d86e7cf48d07e15d14fa991478"}


def test_another_seed_gives_other_lines() -> None:
    assert list(SHOP.lines()) != list(replace(SHOP, seed=8).lines())


def test_the_record_key_is_the_customer_of_the_event() -> None:
    for key, line in SHOP.lines():
        event = accepted(line)
        assert event is None or event["customer_id"] == key


def test_events_are_sorted_by_time_save_the_late_ones_which_come_within_two_days() -> None:
    clock = late = repeated = 0
    ids: set[str] = set()
    for _, line in SHOP.lines():
        event = accepted(line)
        if event is None:
            continue
        time = parse_instant(event["time"])
        if time < clock:
            assert clock - time <= LATE_WITHIN
            repeated += event["id"].startswith("again-") or event["id"] in ids
            late += 1
        ids.add(event["id"])
        clock = max(clock, time)

    assert (late - repeated) / SHOP.events == pytest.approx(SHOP.late_ratio, rel=0.15)


def test_without_mishaps_every_line_is_a_new_event_in_order_of_time() -> None:
    shop = replace(SHOP, late_ratio=0, duplicate_ratio=0, malformed_ratio=0)

    kept = list(events(shop))

    assert len(kept) == shop.events
    times = [parse_instant(event["time"]) for event in kept]
    assert times == sorted(times)
    assert shop.start <= times[0]
    assert times[-1] == pytest.approx(shop.start + shop.span_ms, abs=0.15 * shop.span_ms)


def test_the_share_of_duplicates_is_as_asked_and_some_repeat_an_order_under_another_id() -> None:
    ids: set[str] = set()
    orders: set[str] = set()
    same_id = same_order = 0
    for _, line in SHOP.lines():
        event = accepted(line)
        if event is None:
            continue
        purchase = event["type"] == "purchase"
        same_id += event["id"] in ids
        same_order += purchase and event["id"] not in ids and event["order_id"] in orders
        ids.add(event["id"])
        orders.update([event["order_id"]] if purchase else [])

    assert (same_id + same_order) / SHOP.events == pytest.approx(SHOP.duplicate_ratio, rel=0.15)
    assert same_order > 10


def test_the_share_of_malformed_events_is_as_asked_and_every_kind_occurs() -> None:
    rejected = [line for _, line in SHOP.lines() if accepted(line) is None]

    assert len(rejected) / SHOP.events == pytest.approx(SHOP.malformed_ratio, rel=0.15)
    shapes = {line[:1] + line[-24:] for line in rejected}
    assert len(shapes) >= len(MALFORMED)
    assert any(len(line) > 65_536 for line in rejected)


@pytest.mark.parametrize("kind", MALFORMED)
def test_every_kind_of_malformed_event_is_rejected(kind: str) -> None:
    text = MALFORMED[kind].format(id="bad-1", customer="c000001", time="2026-02-03T10:00:00.000Z")

    assert b"\n" not in text.encode("latin-1")
    assert accepted(text.encode("latin-1")) is None


def test_every_type_of_event_occurs_and_nobody_buys_in_every_visit() -> None:
    kinds = Counter(event["type"] for event in events(SHOP))

    assert set(kinds) == TYPES
    assert 0.05 < kinds["purchase"] / SHOP.events < 0.2
    assert kinds["page_view"] > kinds["cart_add"] > kinds["purchase"] > kinds["refund"] > 0


def test_customers_begin_with_their_profile() -> None:
    shop = replace(SHOP, late_ratio=0)
    first: dict[str, Event] = {}
    for event in events(shop):
        first.setdefault(event["customer_id"], event)

    assert len(first) == shop.customers
    assert {event["type"] for event in first.values()} == {"profile"}
    assert all(set(event["attributes"]) == {"plan", "country", "email_consent"} for event in first.values())


def test_refunds_give_back_at_most_what_was_paid_and_follow_their_purchase() -> None:
    orders: dict[str, Event] = {}
    refunds: list[Event] = []
    for event in events(replace(SHOP, late_ratio=0)):
        if event["type"] == "purchase":
            orders[event["order_id"]] = event
        elif event["type"] == "refund":
            refunds.append(event)

    assert {"amount" in refund for refund in refunds} == {True, False}
    for refund in refunds:
        order = orders[refund["order_id"]]
        assert order["customer_id"] == refund["customer_id"]
        assert 0 < parse_instant(refund["time"]) - parse_instant(order["time"]) <= 31 * DAY
        assert Decimal(refund.get("amount", "0")) <= Decimal(order["amount"])


def test_customers_differ_in_how_often_they_come_and_many_drop_out() -> None:
    last_month = SHOP.start + SHOP.span_ms - 30 * DAY
    visits: Counter[str] = Counter()
    recent: set[str] = set()
    for event in events(SHOP):
        visits[event["customer_id"]] += event["type"] == "session_start"
        if event["type"] == "purchase" and parse_instant(event["time"]) > last_month:
            recent.add(event["customer_id"])
    a_tenth = sum(count for _, count in visits.most_common(SHOP.customers // 10))

    assert 0.25 < a_tenth / visits.total() < 0.7
    assert 0.1 < len(recent) / SHOP.customers < 0.7


@pytest.mark.parametrize(
    "wrong",
    [
        {"customers": 0},
        {"customers": 11, "events": 10},
        {"span_ms": 0},
        {"start": -1},
        {"late_ratio": -0.1},
        {"late_ratio": 0.3, "duplicate_ratio": 0.3},
    ],
)
def test_a_shop_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Shop(**wrong)
