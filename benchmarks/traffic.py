"""Events of customers who are there already, drawn by lot, and of newcomers."""

from __future__ import annotations

import random

from benchmarks.changelog import customer_id
from benchmarks.writer import PARTITIONS, Record
from streamseg.core.units import Instant, format_instant
from streamseg.worker.placement import partition_of

VISIT = b'{"id":"%b%d","type":"%b","customer_id":"%b","time":"%b","props":{"category":"shoes"}}'
PURCHASE = (
    b'{"id":"%b%d","type":"purchase","customer_id":"%b","time":"%b","order_id":"%b%d","amount":"%d.%02d",'
    b'"props":{"category":"shoes"}}'
)
VISITS = (b"page_view", b"page_view", b"page_view", b"session_start", b"email_open", b"cart_add")
PURCHASES = 0.15
"""The share of a shop's events that are purchases, about."""


class Traffic:
    """A stream of events; the same for the same seed. `label` keeps the ids of several apart."""

    def __init__(
        self,
        customers: int,
        partitions: int = PARTITIONS,
        *,
        purchases: float = PURCHASES,
        label: str = "e",
        seed: int = 5,
    ) -> None:
        self._customers = customers
        self._partitions = partitions
        self._purchases = purchases
        self._label = label.encode()
        self._dice = random.Random(seed)
        self._count = 0
        self._at: Instant = -1
        self._time = b""

    def event(self, at: Instant) -> Record:
        """One event of a customer drawn by lot."""
        key = customer_id(int(self._dice.random() * self._customers))
        if self._dice.random() < self._purchases:
            return self.purchase(key, at)
        return self._visit(key, VISITS[int(self._dice.random() * len(VISITS))], at)

    def newcomer(self, key: bytes, at: Instant) -> Record:
        """The first event of a customer: a page view."""
        return self._visit(key, b"page_view", at)

    def purchase(self, key: bytes, at: Instant) -> Record:
        """A purchase of a customer."""
        amount = divmod(500 + int(self._dice.random() * 9_500), 100)
        number = self._next()
        value = PURCHASE % (self._label, number, key, self._text(at), self._label, number, *amount)
        return Record(partition_of(key, self._partitions), key, value)

    def _visit(self, key: bytes, kind: bytes, at: Instant) -> Record:
        value = VISIT % (self._label, self._next(), kind, key, self._text(at))
        return Record(partition_of(key, self._partitions), key, value)

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _text(self, at: Instant) -> bytes:
        """The time as events say it: made once for all events of a millisecond."""
        if at != self._at:
            self._at, self._time = at, format_instant(at).encode()
        return self._time
