"""What a customer's orders are still worth, and the refunds that came before their purchase.

An order is remembered while `T < its time + refund window`. Orders are known by six bytes of a hash of
their id.
"""

from __future__ import annotations

from typing import Any

from streamseg.core.units import Duration, Instant

TIME, LEFT, TAPS, VALUES = range(4)
Order = list[Any]
"""`[time, left, taps, values?]`: minor units left (`CANCELLED` at zero after a refund), a bit for each filtered
selection that the purchase had entered, and the numbers of its props that sums are kept of, if any are."""
MAX_ORDERS = 10_000
MAX_WAITING = 1_000
"""Of one customer; above it the oldest are forgotten early, so that no state outgrows a record."""
CANCELLED = -1
Waiting = list[list[Any]]
"""`[[time, amount or None], ...]`: refunds without a purchase yet, in order of arrival."""


def known(orders: dict[bytes, Order], order: bytes, now: Instant, window: Duration) -> Order | None:
    """The order, unless it was never seen or is no longer remembered."""
    entry = orders.get(order)
    return entry if entry is not None and now < entry[TIME] + window else None


def forget(orders: dict[bytes, Order], waiting: dict[bytes, Waiting], now: Instant, window: Duration) -> None:
    """Drops from the front what is no longer remembered. What came late is dropped late: `known` looks at the time."""
    while orders and now >= orders[first := next(iter(orders))][TIME] + window:
        del orders[first]
    while waiting:
        oldest = next(iter(waiting))
        if now < max(refund[0] for refund in waiting[oldest]) + window:
            break
        del waiting[oldest]
    if len(orders) > MAX_ORDERS:
        del orders[next(iter(orders))]
    if len(waiting) > MAX_WAITING:
        del waiting[next(iter(waiting))]


def take(entry: Order, amount: int | None) -> tuple[int, bool]:
    """Takes a refund from an order: how much it was, and whether nothing is left now and was before.

    `amount` None takes all that is left; a refund never takes more than that.
    """
    left = entry[LEFT]
    if left == CANCELLED:
        return 0, False
    taken = left if amount is None else min(left, amount)
    left -= taken
    entry[LEFT] = left or CANCELLED
    return taken, not left
