"""The job of benchmarks/job.yaml in plain Python, for peers in Python. Nothing but the standard library.

A customer is a dict, as stores of JSON like it: `rows` has one row for each hour with events, oldest first.
"""

from __future__ import annotations

from bisect import bisect_left
from datetime import datetime
from decimal import Decimal
from typing import Any

HOUR = 3_600_000
DAY = 24 * HOUR
KEPT_HOURS = 91 * 24
"""Hours that the longest window holds, and the day that its oldest tile may be longer."""
COLUMNS = {"purchase": 1, "page_view": 3, "email_open": 4, "cart_add": 5}
"""Where a row counts which events; 0 is the hour, 2 the spend in cents."""
RECENCY = (7 * DAY, 30 * DAY, 60 * DAY, 90 * DAY)
FREQUENCY = (1, 2, 3, 5)
MONETARY = (2_000, 4_000, 7_500, 15_000)

Profile = dict[str, Any]
Values = dict[str, int | None]


def new_profile() -> Profile:
    """A customer without events."""
    return {"rows": [], "last_purchase": None, "segment": None, "version": 0}


def apply(profile: Profile, event_id: str, kind: str, customer: str, time: str, amount: str | None) -> Any:
    """Applies an event to its customer; returns the change that it makes, or None."""
    now = round(datetime.fromisoformat(time).timestamp() * 1000)
    _add(profile, kind, now, amount)
    values = _values(profile, now)
    segment = _segment(values)
    if segment == profile["segment"]:
        return None
    before, profile["segment"] = profile["segment"], segment
    profile["version"] += 1
    return {
        "customer_id": customer,
        "scheme": "value",
        "from": before,
        "to": segment,
        "version": profile["version"],
        "time": time,
        "cause": event_id,
        "values": values,
    }


def _add(profile: Profile, kind: str, now: int, amount: str | None) -> None:
    rows, hour = profile["rows"], now // HOUR
    if not rows or rows[-1][0] != hour:
        while rows and rows[0][0] < hour - KEPT_HOURS:
            del rows[0]
        rows.append([hour, 0, 0, 0, 0, 0])
    if column := COLUMNS.get(kind):
        rows[-1][column] += 1
    if kind == "purchase":
        rows[-1][2] += int(Decimal(amount or 0) * 100)
        profile["last_purchase"] = now


def _values(profile: Profile, now: int) -> Values:
    """The windows: 7 days in tiles of an hour, 30 in tiles of six, 90 in tiles of a day."""
    week, month, quarter = _first(now, 7, 1), _first(now, 30, 6), _first(now, 90, 24)
    orders_7d = orders_30d = orders_90d = spend_7d = spend_30d = spend_90d = views_7d = opens_30d = carts_7d = 0
    for hour, orders, spend, views, opens, carts in reversed(profile["rows"]):
        if hour < quarter:
            break
        orders_90d += orders
        spend_90d += spend
        if hour >= month:
            orders_30d += orders
            spend_30d += spend
            opens_30d += opens
        if hour >= week:
            orders_7d += orders
            spend_7d += spend
            views_7d += views
            carts_7d += carts
    last = profile["last_purchase"]
    return {
        "orders_7d": orders_7d,
        "orders_30d": orders_30d,
        "orders_90d": orders_90d,
        "spend_7d": spend_7d,
        "spend_30d": spend_30d,
        "spend_90d": spend_90d,
        "views_7d": views_7d,
        "opens_30d": opens_30d,
        "carts_7d": carts_7d,
        "recency": None if last is None else now - last,
    }


def _first(now: int, days: int, tile_hours: int) -> int:
    """The first hour inside of a window; a tile of some hours leaves as a whole."""
    return (now - days * DAY) // (tile_hours * HOUR) * tile_hours


def _segment(values: Any) -> str:
    """The first segment from the top that the values are in."""
    recency = values["recency"]
    bought = recency is not None
    r = 5 - bisect_left(RECENCY, recency) if bought else 0
    f = 1 + bisect_left(FREQUENCY, values["orders_90d"])
    m = 1 + bisect_left(MONETARY, values["spend_90d"])
    if r >= 4 and f >= 4 and m >= 4:
        return "champions"
    if r >= 3 and f >= 3 and values["spend_30d"] >= 4_000:
        return "loyal"
    if (values["orders_7d"] >= 1 and values["spend_7d"] >= 5_000) or values["orders_30d"] >= 2:
        return "promising"
    if values["views_7d"] >= 4 or values["carts_7d"] >= 1 or values["opens_30d"] >= 2:
        return "interested"
    return "lapsing" if bought and r <= 4 else "visitors"
