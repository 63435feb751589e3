"""A synthetic shop: the events of made-up customers, the same for a seed on every machine.

Customers behave as in the BG/NBD model of customer lifetime value: visits are a Poisson process whose rate
is Gamma-distributed over the customers, a fixed share of the visits ends in a purchase, and after each
purchase a customer may drop out for good. What a customer spends is log-normal around the customer's own
level. Someone who dropped out still opens an e-mail now and then.

Only `random.Random.random` is drawn from: the one method whose sequence Python promises never to change.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from math import cos, exp, log, pi, sqrt
from random import Random
from typing import NamedTuple

from streamseg.core.errors import InputError
from streamseg.core.units import DAY, Duration, Instant, day_of

CATEGORIES = ("books", "garden", "home", "music", "shoes", "sports", "toys", "wine")
COUNTRIES = ("AT", "CH", "DE", "ES", "FR", "GB", "IT", "NL", "PL", "US")
PLANS = ("free", "free", "free", "plus", "plus", "pro")
DEVICES = ("desktop", "mobile", "mobile", "tablet")
CHANNELS = ("organic", "paid", "referral")
CAMPAIGNS = ("newsletter", "sale", "welcome", "win-back")

LATE_WITHIN: Duration = 2 * DAY
"""A late event arrives at most this long after its time."""
REPEATED_WITHIN: Duration = DAY // 24
"""A duplicate arrives at most this long after the first copy."""
REFUNDED_WITHIN: Duration = 30 * DAY
"""A refund follows its purchase within this."""

_PURCHASE = '{{"id":"{id}","type":"purchase","customer_id":"{customer}","time":"{time}"'
_VIEW = '{{"id":"{id}","type":"page_view","customer_id":"{customer}"'
MALFORMED: dict[str, str] = {
    "cut off": _PURCHASE + ',"amo',
    "not UTF-8": _VIEW + ',"time":"{time}","props":{{"category":"caf\xe9"}}}}',
    "not an object": '["page_view","{customer}","{time}"]',
    "no type": '{{"id":"{id}","customer_id":"{customer}","time":"{time}"}}',
    "a type with a space": '{{"id":"{id}","type":"page view","customer_id":"{customer}","time":"{time}"}}',
    "no customer": '{{"id":"{id}","type":"page_view","time":"{time}"}}',
    "an empty customer": '{{"id":"{id}","type":"page_view","customer_id":"","time":"{time}"}}',
    "a control character in the customer": (
        '{{"id":"{id}","type":"page_view","customer_id":"{customer}\\u0007","time":"{time}"}}'
    ),
    "no time": _VIEW + "}}",
    "no such day": _VIEW + ',"time":"2026-02-30T10:00:00Z"}}',
    "a time without an offset": _VIEW + ',"time":"2026-02-03T10:00:00"}}',
    "no amount": _PURCHASE + "}}",
    "a negative amount": _PURCHASE + ',"amount":"-5.00"}}',
    "an amount that is no number": _PURCHASE + ',"amount":"12,50"}}',
    "an infinite amount": _PURCHASE + ',"amount":1e999}}',
    "a refund without order": '{{"id":"{id}","type":"refund","customer_id":"{customer}","time":"{time}"}}',
    "too large": _VIEW + ',"time":"{time}","props":{{"note":"' + "x" * 65_536 + '"}}}}',
}
"""Every kind of malformed event the shop sends, and its text (in Latin-1). Each must be rejected."""
_MALFORMED_TEXTS = tuple(MALFORMED.values())

# Which visits there are, and how often in a hundred.
_VISITS = (
    (26, ("session_start", "page_view", "page_view")),
    (14, ("session_start", "page_view", "page_view", "page_view", "page_view")),
    (13, ("session_start", "page_view", "cart_add")),
    (12, ("session_start", "page_view", "page_view", "cart_add", "purchase")),
    (7, ("session_start", "cart_add", "purchase")),
    (8, ("email_open", "email_click", "session_start", "page_view", "purchase")),
    (17, ("email_open",)),
    (3, ("session_start", "profile", "page_view")),
)
_VISITS_OF_DROPPED = ((90, ("email_open",)), (10, ("email_open", "email_click")))
_LINES_A_VISIT = sum(often * len(steps) for often, steps in _VISITS) / 100
_PURCHASES_A_VISIT = sum(often for often, steps in _VISITS if "purchase" in steps) / 100
_REFUNDED, _REFUNDED_IN_PART = 0.06, 0.5
_VISITED_LESS = 4
"""How many times rarer a customer comes back after dropping out."""
_ARRIVED = 0.8
"""By this part of the span all customers have arrived."""
_ACTIVE = 0.485
"""The part of the span that an average customer is active in; measured, so that the events fill the span."""
_RAREST = 0.02
"""The lowest visit rate, in parts of the mean one."""

_STEP, _REFUND, _DELIVERY = range(3)
_HOUR_MINUTE = tuple(f"T{minute // 60:02}:{minute % 60:02}:" for minute in range(24 * 60))
_SECOND = tuple(f"{ms // 1000:02}.{ms % 1000:03}Z" for ms in range(60_000))

Compose = Callable[[int, int, str], str]
"""Number of the event, number of the customer, time -> JSON."""


class Step(NamedTuple):
    """One event of a visit, and what the customer does next in it."""

    compose: Compose
    following: Step | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """What to make up. The ratios are shares of all lines; the same values give the same lines."""

    seed: int = 1
    customers: int = 1_000
    events: int = 100_000
    """How many lines, of every kind."""
    start: Instant = 1_767_225_600_000
    """The earliest time: 2026-01-01."""
    span_ms: Duration = 365 * DAY
    """How long the shop's history is, about: the lines end where they are enough."""
    late_ratio: float = 0.01
    duplicate_ratio: float = 0.01
    malformed_ratio: float = 0.001
    currency: str = "USD"

    def __post_init__(self) -> None:
        ratios = (self.late_ratio, self.duplicate_ratio, self.malformed_ratio)
        if not 1 <= self.customers <= self.events:
            raise InputError(
                f"a shop of {self.customers} customers cannot have {self.events} events: "
                "give at least one customer, and an event for each"
            )
        if self.span_ms < DAY or self.start < 0:
            raise InputError("a shop starts in 1970 or later and spans at least a day")
        if min(ratios) < 0 or sum(ratios) > 0.5:
            raise InputError(f"the ratios {ratios} must not be negative, nor add up to more than 0.5")

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Yield customer id (the record's key) and JSON in order of arrival: by time, save the late ones."""
        simulation = _Simulation(self)
        for _ in range(self.events):
            yield simulation.next_line()


class _Draws:
    """Random variables, each made of uniform draws."""

    def __init__(self, seed: int) -> None:
        self.uniform = Random(seed).random  # noqa: S311 - a made-up shop keeps no secrets

    def below(self, count: int) -> int:
        return int(self.uniform() * count)

    def pick(self, choices: tuple[str, ...]) -> str:
        return choices[int(self.uniform() * len(choices))]

    def waiting(self, mean: float) -> int:
        """Draw the milliseconds to the next event of a Poisson process; at least 1."""
        return int(-log(1.0 - self.uniform()) * mean) + 1

    def normal(self) -> float:
        return sqrt(-2.0 * log(1.0 - self.uniform())) * cos(2.0 * pi * self.uniform())

    def gamma(self) -> float:
        """Draw from Gamma with shape 1/2 and mean 1: a tenth of the customers make 44 % of the visits."""
        return self.normal() ** 2

    def beta(self, b: float) -> float:
        """Draw from Beta with parameters 1 and `b`."""
        return float(1.0 - (1.0 - self.uniform()) ** (1.0 / b))


class _Simulation:
    """The shop at work: an agenda of what happens next, and what is known of each customer.

    A key of the agenda is one integer, (offset in ms, customer, what): they sort by time, and compare fast.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.draws = _Draws(shop.seed)
        self.number = 0
        self.shift = shop.customers.bit_length()
        self.mask = (1 << self.shift) - 1
        self.refunds: dict[int, str] = {}
        self.held: dict[int, bytes] = {}
        self._set_ratios()
        self._make_visits()
        self._make_customers()

    def _set_ratios(self) -> None:
        """Turn shares of all lines into chances of an event, stacked: late, twice, garbage behind it."""
        shop = self.shop
        events = 1.0 - shop.duplicate_ratio - shop.malformed_ratio
        self.late = shop.late_ratio / events
        self.twice = self.late + shop.duplicate_ratio / events
        self.mishap = self.twice + shop.malformed_ratio / events

    def _make_visits(self) -> None:
        composers = self._composers()
        self.visits = _hundred_visits(_VISITS, composers)
        self.dropped_visits = _hundred_visits(_VISITS_OF_DROPPED, composers)
        self.arrival = Step(composers["profile"], None)

    def _make_customers(self) -> None:
        shop, draws = self.shop, self.draws
        customers = range(shop.customers)
        visits = max((shop.events / shop.customers - 1.0) / _LINES_A_VISIT, 0.1)
        pause = shop.span_ms * _ACTIVE / visits
        b = max(3.0, 4.0 * visits * _PURCHASES_A_VISIT)
        self.ids = [f"c{customer:06}" for customer in customers]
        self.pauses = array("d", (pause / max(draws.gamma(), _RAREST) for _ in customers))
        self.levels = array("d", (3.4 + 0.6 * draws.normal() for _ in customers))
        self.dropouts = array("d", (draws.beta(b) for _ in customers))
        self.dropped = bytearray(shop.customers)
        self.steps = [self.arrival] * shop.customers
        arrived = shop.span_ms * _ARRIVED
        self.agenda = [self._key(int(draws.uniform() * arrived), customer, _STEP) for customer in customers]
        heapify(self.agenda)

    def _key(self, offset: Duration, customer: int, what: int) -> int:
        return ((offset << self.shift) | customer) << 2 | what

    def _later(self, key: int, delay: Duration, what: int) -> int:
        """Make a key for the same customer, `delay` ms after another."""
        return ((key >> 2) + (delay << self.shift)) << 2 | what

    def next_line(self) -> tuple[str, bytes]:
        """Return the next line to arrive, behind its customer's id."""
        while True:
            key = self.agenda[0]
            customer = (key >> 2) & self.mask
            what = key & 3
            if what == _DELIVERY:
                heappop(self.agenda)
                return self.ids[customer], self.held.pop(key)
            line = self._step(key, customer) if what == _STEP else self._refund(key, customer)
            chance = self.draws.uniform()
            if chance >= self.mishap or self._arrives(chance, key, customer, line):
                return self.ids[customer], line

    def _step(self, key: int, customer: int) -> bytes:
        """Compose the event that is due of a customer's visit, and plan the one after it."""
        compose, following = self.steps[customer]
        self.number += 1
        text = compose(self.number, customer, self._time(key))
        if following is None:
            following, pause = self._next_visit(customer)
        else:
            pause = 2_000 + int(self.draws.uniform() * 60_000)
        self.steps[customer] = following
        # Refunds that composing put on the agenda lie after this key: it is still the first.
        heapreplace(self.agenda, key + (pause << (self.shift + 2)))
        return text.encode()

    def _next_visit(self, customer: int) -> tuple[Step, Duration]:
        hundredth = int(self.draws.uniform() * 100)
        if self.dropped[customer]:
            return self.dropped_visits[hundredth], self.draws.waiting(self.pauses[customer] * _VISITED_LESS)
        return self.visits[hundredth], self.draws.waiting(self.pauses[customer])

    def _refund(self, key: int, customer: int) -> bytes:
        heappop(self.agenda)
        self.number += 1
        order = self.refunds.pop(key)
        return (
            f'{{"id":"e{self.number}","type":"refund","customer_id":"{self.ids[customer]}",'
            f'"time":"{self._time(key)}",{order}}}'
        ).encode()

    def _time(self, key: int) -> str:
        instant = self.shop.start + (key >> (self.shift + 2))
        minute, ms = divmod(instant % DAY, 60_000)
        return day_of(instant) + _HOUR_MINUTE[minute] + _SECOND[ms]

    def _arrives(self, chance: float, key: int, customer: int, line: bytes) -> bool:
        """Make an event late, double it, or send garbage behind it. False if it does not arrive yet."""
        if chance < self.late:
            self._hold(key, 60_000 + self.draws.below(LATE_WITHIN - 60_000), line)
            return False
        if chance < self.twice:
            self._hold(key, 1 + self.draws.below(REPEATED_WITHIN), self._repeated(line))
        else:
            self._hold(key, 1, self._malformed(key, customer))
        return True

    def _hold(self, key: int, delay: Duration, line: bytes) -> None:
        """Let a line arrive `delay` ms later, or right after the one that arrives then."""
        later = self._later(key, delay, _DELIVERY)
        while later in self.held:
            later = self._later(later, 1, _DELIVERY)
        self.held[later] = line
        heappush(self.agenda, later)

    def _repeated(self, line: bytes) -> bytes:
        """Repeat a line; of purchases every second time as the same order under another id."""
        if b'"order_id"' in line and b'"amount"' in line and self.draws.below(2):
            return line.replace(b'{"id":"e', b'{"id":"again-', 1)
        return line

    def _malformed(self, key: int, customer: int) -> bytes:
        text = _MALFORMED_TEXTS[self.draws.below(len(_MALFORMED_TEXTS))]
        self.number += 1
        event_id, time = f"bad-{self.number}", self._time(key)
        return text.format(id=event_id, customer=self.ids[customer], time=time).encode("latin-1")

    def _composers(self) -> dict[str, Compose]:
        categories = [f'"props":{{"category":"{category}"}}' for category in CATEGORIES]
        campaigns = [f'"props":{{"campaign":"{campaign}"}}' for campaign in CAMPAIGNS]
        sessions = [
            f'"props":{{"device":"{device}","channel":"{channel}"}}' for device in DEVICES for channel in CHANNELS
        ]
        return {
            "session_start": self._engagement("session_start", sessions),
            "page_view": self._engagement("page_view", categories),
            "cart_add": self._engagement("cart_add", categories),
            "email_open": self._engagement("email_open", campaigns),
            "email_click": self._engagement("email_click", campaigns),
            "profile": self._profile,
            "purchase": self._purchase,
        }

    def _engagement(self, name: str, props: list[str]) -> Compose:
        """Make a composer of events of one type, each with one of `props`."""
        middle = f'","type":"{name}","customer_id":"'
        ends = tuple(f'",{text}}}' for text in props)
        uniform, count = self.draws.uniform, len(ends)

        def compose(number: int, customer: int, time: str) -> str:
            end = ends[int(uniform() * count)]
            return f'{{"id":"e{number}{middle}{self.ids[customer]}","time":"{time}{end}'

        return compose

    def _profile(self, number: int, customer: int, time: str) -> str:
        pick = self.draws.pick
        consent = "true" if self.draws.uniform() < 0.7 else "false"
        return (
            f'{{"id":"e{number}","type":"profile","customer_id":"{self.ids[customer]}","time":"{time}",'
            f'"attributes":{{"plan":"{pick(PLANS)}","country":"{pick(COUNTRIES)}","email_consent":{consent}}}}}'
        )

    def _purchase(self, number: int, customer: int, time: str) -> str:
        draws = self.draws
        cents = int(100.0 * exp(self.levels[customer] + 0.5 * draws.normal())) + 1
        coupon = "true" if draws.uniform() < 0.25 else "false"
        if draws.uniform() < _REFUNDED:
            self._plan_refund(number, cents)
        if draws.uniform() < self.dropouts[customer]:
            self.dropped[customer] = 1
        return (
            f'{{"id":"e{number}","type":"purchase","customer_id":"{self.ids[customer]}","time":"{time}",'
            f'"order_id":"o{number}","amount":"{_decimal(cents)}","currency":"{self.shop.currency}",'
            f'"props":{{"category":"{draws.pick(CATEGORIES)}","coupon":{coupon},'
            f'"items":{1 + draws.below(4)}}}}}'
        )

    def _plan_refund(self, number: int, cents: int) -> None:
        """Put the refund of the purchase being composed on the agenda: of all of it, or of a part."""
        key = self._later(self.agenda[0], 60_000 + self.draws.below(REFUNDED_WITHIN - 60_000), _REFUND)
        while key in self.refunds:
            key = self._later(key, 1, _REFUND)
        order = f'"order_id":"o{number}"'
        if self.draws.uniform() < _REFUNDED_IN_PART:
            part = 1 + self.draws.below(cents)
            order += f',"amount":"{_decimal(part)}","currency":"{self.shop.currency}"'
        self.refunds[key] = order
        heappush(self.agenda, key)


def _decimal(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _hundred_visits(visits: tuple[tuple[int, tuple[str, ...]], ...], composers: dict[str, Compose]) -> tuple[Step, ...]:
    """List a hundred first steps, each kind of visit as often as it says: one draw picks one."""
    return tuple(first for often, names in visits for first in [_visit(names, composers)] * often)


def _visit(names: tuple[str, ...], composers: dict[str, Compose]) -> Step:
    step = Step(composers[names[-1]], None)
    for name in reversed(names[:-1]):
        step = Step(composers[name], step)
    return step
