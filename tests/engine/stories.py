"""Strategies: definitions that the core can apply, and events that it leaves to Python among those that it does not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.engine.twins import Record
from tests.properties.expressions import composed_definitions
from tests.properties.hand_written import DEFINITIONS, ORDERS, VALUES
from tests.properties.timelines import (
    DAY,
    HOUR,
    LENGTHS,
    MALFORMED,
    ORDER_IDS,
    START,
    Theme,
    engagement,
    gaps,
    instants,
    profile,
    purchase,
    refund,
)
from tests.properties.timelines import Arrival as Line

CUSTOMERS = ("a", "b", "c d", "d", "ä@c")
TEXTS = ["shoes", "hats", "", 'say "hi"', "back\\slash", "new\nline", "é", "\U0001f600", "x" * 4_001, "é" * 2_001]
BIG = [2**31, -(2**31), 10**12, 10**12 + 1, 2**53 + 1, 2**60, 2**60 + 1, 2**62, 2**63 - 1, -(2**63), 2**63, 2**64,
       10**29, 10**30, -(10**31)]  # fmt: skip
REAL = [0.5, 1.0, -0.0, 0.1, 1e15, 1e300, 1e-9, 2.5e-320]
ODD = [*TEXTS, *BIG, *REAL, True, False, None, [1], {"a": 1}]
_DISTINCT = re.compile(r"distinct\(([\w.-]+)\.(\w+)")


def supported(text: str) -> str:
    """The definitions without different values, which the core does not count."""
    return _DISTINCT.sub(r"sum(\1.\2", text)


def plain_purchase(draw: st.DrawFn) -> dict[str, Any]:
    event = {"type": "purchase", "amount": draw(st.sampled_from(["10", "50.00", 5, "49.99", "0", 7.25, 300]))}
    order = draw(st.sampled_from(ORDER_IDS))
    return event | plain_props(draw) | ({"order_id": order} if order else {})


def plain_refund(draw: st.DrawFn) -> dict[str, Any]:
    event = {"type": "refund", "order_id": draw(st.sampled_from(ORDER_IDS)) or "e1"}
    return event if draw(st.booleans()) else event | {"amount": draw(st.sampled_from(["10", "3.50", None, 0]))}


def plain_engagement(draw: st.DrawFn) -> dict[str, Any]:
    return {"type": draw(st.sampled_from(["page_view", "page_view", "cart_add", "app.open-v2"]))} | plain_props(draw)


def plain_profile(draw: st.DrawFn) -> dict[str, Any]:
    given: dict[str, list[Any]] = {"plan": ["pro", "free", None], "score": [0, 1, 3, "3", True], "vip": [True, False]}
    return {"type": "profile", "attributes": _some(draw, given)}


def plain_props(draw: st.DrawFn) -> dict[str, Any]:
    given: dict[str, list[Any]] = {
        "category": ["shoes", "hats", "1", 1, True, None],
        "qty": [1, 2, 5, 0, -2, "2", True, None],
        "coupon": [True, False, "true", 1],
    }
    return {"props": _some(draw, given)}


def _some(draw: st.DrawFn, given: Mapping[str, list[Any]]) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(given)), max_size=3, unique=True))
    return {name: draw(st.sampled_from(given[name])) for name in names}


def odd_purchase(draw: st.DrawFn) -> dict[str, Any]:
    amount = st.sampled_from([10**10, "9999999999.99", 10**13, 9_999_999_999_999.99, "1e3", "0.001", "0.005"])
    return purchase(draw) | {"amount": draw(amount)} | odd_props(draw)


def odd_engagement(draw: st.DrawFn) -> dict[str, Any]:
    return engagement(draw) | odd_props(draw)


def odd_props(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(["category", "qty", "coupon", "é"]), max_size=2, unique=True))
    return {"props": {name: draw(st.sampled_from(ODD)) for name in names}}


def odd_profile(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(["plan", "score", "vip", "other"]), max_size=3, unique=True))
    return {"type": "profile", "attributes": {name: draw(st.sampled_from(ODD[:-2])) for name in names}}


KNOWN = st.sampled_from([supported(text) for text in DEFINITIONS]) | composed_definitions().map(supported)
SIMPLE = (plain_purchase, plain_purchase, plain_refund, plain_profile, plain_engagement, plain_engagement)
ODD_ONES = (purchase, odd_purchase, refund, profile, odd_profile, engagement, odd_engagement)
PLAIN = Theme(KNOWN, SIMPLE * 8 + ODD_ONES[1:2], tuple(LENGTHS))
STRANGE = Theme(KNOWN, SIMPLE + ODD_ONES, tuple(LENGTHS))
RETURNS = Theme(
    st.just(supported(ORDERS)),
    (plain_purchase, plain_purchase, plain_refund) * 4 + (purchase, refund),
    (HOUR, HOUR // 6),
)
READINGS = Theme(
    st.just(supported(VALUES)),
    (plain_engagement, plain_profile) * 4 + (engagement, odd_engagement, odd_profile),
    (HOUR // 6, HOUR, 2 * HOUR),
)


@dataclass(frozen=True, slots=True)
class Step:
    """What happens next: events in one batch, or something else."""

    kind: str
    records: tuple[Record, ...] = ()
    instant: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Tale:
    """Definitions, and what happens under them."""

    definitions: str
    steps: tuple[Step, ...]

    @property
    def events(self) -> int:
        return sum(len(step.records) for step in self.steps)

    def __str__(self) -> str:
        """Write it so that a failure can be read."""
        told = [
            f"{step.kind} {step.instant} {step.number}"
            + "".join(f"\n  {record.offset} {record.key!r} {record.value!r}"[:600] for record in step.records)
            for step in self.steps
        ]
        return "\n".join([self.definitions, *told])


def written(draw: st.DrawFn, event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=draw(st.integers(0, 3)) < 2).encode()


@st.composite
def lines(draw: st.DrawFn, theme: Theme, clock: int, made: list[Line], many: int) -> list[Line]:
    """Draw events that arrive together; `made` are those before."""
    found: list[Line] = []
    for _ in range(draw(st.integers(1, many))):
        time = draw(instants(clock, made + found, theme, late=True))
        if draw(st.integers(0, 29)) == 29:
            stamp = b"%d" % (time + draw(st.sampled_from([0, 100 * DAY])))
            found.append(Line(time, "", draw(st.sampled_from(MALFORMED)).replace(b"%d", stamp)))
            continue
        event: dict[str, Any] = {"customer_id": draw(st.sampled_from(CUSTOMERS))} | draw(st.sampled_from(theme.events))(
            draw
        )
        name = draw(st.sampled_from([f"u{len(made) + len(found)}"] * 6 + ["e1", "e2", None, None]))
        event |= {"time": time} | ({"id": name} if name else {})
        found.append(Line(time, event["customer_id"], written(draw, event)))
        clock = max(clock, time)
    return found


@st.composite
def tales(draw: st.DrawFn, theme: Theme = STRANGE, *, many: int = 8, keys: bool = False) -> Tale:
    """Draw definitions, and batches of events with other things in between."""
    text, steps, made, offset = draw(theme.definitions), list[Step](), list[Line](), draw(st.sampled_from([0, 0, 5]))
    clock = START + draw(st.integers(0, DAY))
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["events"] * 5 + ["time", "time", "again", "refresh", "show", "swap"]))
        if kind == "events":
            new = draw(lines(theme, clock, made, many))
            clock = max([clock, *(line.time for line in new if line.customer_id)])
            made += new
            steps.append(Step(kind, tuple(_records(draw, new, offset, keys))))
            offset = steps[-1].records[-1].offset + draw(st.sampled_from([1, 1, 3]))
        elif kind == "time":
            clock += draw(gaps() | st.just(1200 * DAY))
            steps.append(Step(kind, (), clock, draw(st.sampled_from([0, 0, 1, 2]))))
        elif kind == "again":
            before = [record for step in steps for record in step.records]
            steps.append(Step(kind, tuple(before[-draw(st.integers(1, 9)) :])))
        else:
            steps.append(Step(kind, number=draw(st.integers(0, 1))))
    return Tale(text, tuple(steps))


def _records(draw: st.DrawFn, made: Iterable[Line], offset: int, keys: bool) -> Iterable[Record]:
    for place, line in enumerate(made):
        key: bytes | None = line.customer_id.encode()
        if keys:
            key = draw(st.sampled_from([key, key, key, key, None, b"other"]))
        yield Record(offset + place, key, line.line)
