"""A brute-force reference of what streamseg computes: keeps all events, recomputes all at every instant.

It exists to check the real evaluator against, shares no code with it, and is made to be obviously right,
not fast. Left out: merge, erase, learned cuts, new definitions. What the published semantics leave open
is decided so:

* A fully refunded purchase ("zero left") is out of count, sum and avg, of any field, window and
  selector. A purchase of amount 0 is a normal one until a refund hits it. A partial refund lowers only
  sums and averages of `amount`. Filters see a purchase as it arrived; a refund lowers the filtered sums
  which the purchase had entered.
* The ledger is read at the instant of evaluation T': an order is remembered while T' < purchase time +
  refund_window, a refund waits while T' < refund time + refund_window. Waiting refunds of an order apply
  in order of arrival when its purchase arrives, even if that is already too old to be remembered. One
  without an amount takes all that is left then.
* `refund.amount` is the amount given, or else what was left if the order was found on arrival, or else
  missing.
* Of two attribute writes with one time the later arrival wins. Arrays and objects in `props` are as if
  missing.
* A null value of `frequency` or `monetary` lies above no cut.
* JSON numbers in `props` and `attributes` are the exact decimal of their shortest text.
* An amount, on whatever type, must be valid if it is there; it is rounded once, after conversion. A
  currency matters only beside an amount. More than 10^15 minor units, or a negative amount: the event is
  rejected.
* An event without id is called `line:N` (blank lines are counted) and takes a place among the latest 256
  ids.
* A duplicate moves the clock only. A rejected event moves nothing.
* Time ends with the year 9999, the last that can be written: what would happen later never does.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor
from typing import Any

import yaml

from tests.naive_expression import (
    Node,
    Parser,
    Term,
    Value,
    calculate,
    compare,
    evaluate,
    milliseconds,
    nodes,
    pairs,
)

Current = dict[str, tuple[str, int]]  # scheme: segment, since
Move = tuple[int, str, str | None, str, int | None]  # instant, scheme, from, to, since

TILES = [1000, 5000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 21_600_000, 86_400_000]
MINOR_DIGITS = {"JPY": 0, "KRW": 0, "VND": 0, "CLP": 0, "KWD": 3, "BHD": 3, "JOD": 3, "OMR": 3, "TND": 3}
MOST_MINOR_UNITS = 10**15
EPOCH = datetime.fromtimestamp(0, UTC)
LAST_INSTANT = 253_402_300_799_999  # the last millisecond of the year 9999


# --- definitions ---------------------------------------------------------------------------------------


@dataclass
class Segment:
    """A segment of a scheme."""

    name: str
    when: Node
    stay_when: Node
    min_stay: int


@dataclass
class Definitions:
    """What the definitions file says."""

    currency: str
    rates: dict[str, Fraction]
    refund_window: int
    features: dict[str, Node]
    scores: dict[str, tuple[Node, list[Node]]]  # r, f and m: expression and cuts
    schemes: dict[str, list[Segment]]  # the last segment is the default

    def __post_init__(self) -> None:
        segments = [segment for scheme in self.schemes.values() for segment in scheme]
        roots = [node for segment in segments for node in (segment.when, segment.stay_when)]
        roots += [*self.features.values(), *(node for node, _ in self.scores.values())]
        every = [node for root in roots for node in nodes(root)]
        self.terms: list[Term] = [node[1] for node in every if node[0] == "term"]
        self.compared = [pair for node in every for pair in pairs(node)]
        self.compared += [(node, cut) for node, cuts in self.scores.values() for cut in cuts]

    @property
    def major(self) -> int:
        """How many minor units make one major unit."""
        return int(10 ** MINOR_DIGITS.get(self.currency, 2))


def parse(text: object) -> Node:
    """Parse an expression, which YAML may have read as a number or a boolean."""
    return Parser(str(text).lower() if isinstance(text, bool) else str(text)).whole()


def read_segment(given: dict[str, Any]) -> Segment:
    stay_when, min_stay = parse(given.get("stay_when", False)), milliseconds(given.get("min_stay", "0ms"))
    return Segment(given["name"], parse(given["when"]), stay_when, min_stay)


def read_scheme(given: dict[str, Any]) -> list[Segment]:
    return [read_segment(segment) for segment in [*given["segments"], {"name": given["default"], "when": True}]]


def read_definitions(text: str) -> Definitions:
    given = yaml.safe_load(text)
    rfm = given.get("rfm", {})
    measures = [name for name in ("recency", "frequency", "monetary") if rfm]
    return Definitions(
        currency=given["currency"],
        rates={name: Fraction(str(rate)) for name, rate in given.get("rates", {}).items()},
        refund_window=milliseconds(given.get("refund_window", "90d")),
        features={name: parse(expression) for name, expression in given.get("features", {}).items()},
        scores={name[0]: (parse(rfm[name]), [parse(cut) for cut in rfm["cuts"][name]]) for name in measures},
        schemes={name: read_scheme(scheme) for name, scheme in given["schemes"].items()},
    )


# --- events --------------------------------------------------------------------------------------------


class RejectedError(ValueError):
    """An event that is not valid."""


@dataclass(eq=False)
class Event:
    """An accepted event. Money is in major units."""

    id: str
    type: str
    customer_id: str
    time: int
    order_id: str | None
    amount: Fraction | None  # as it arrived
    props: dict[str, Any]
    attributes: dict[str, Any]
    left: Fraction  # of a purchase
    cancelled: bool = False  # a purchase with zero left
    waiting: bool = False  # a refund that found no order
    matches: set[Term] = field(default_factory=set)  # the terms that look at this event

    def get(self, name: str) -> Value:
        """Give a field as it arrived."""
        return self.amount if name == "amount" else scalar(self.props.get(name))

    def get_net(self, name: str) -> Value:
        """Give a field after refunds."""
        return self.left if name == "amount" and self.type == "purchase" else self.get(name)

    def matching(self, terms: list[Term]) -> set[Term]:
        """Select the terms whose type and filter hold for the event as it is now."""
        kinds = {self.type, "any"}
        if self.type not in ("purchase", "refund", "profile"):
            kinds.add("engagement")
        typed = [term for term in terms if term.type in kinds]
        return {t for t in typed if t.where is None or evaluate(t.where, lambda leaf: self.get(leaf[1])) is True}

    def leaves_at(self, window: int | None) -> int | None:
        """Give the instant from which the event is outside the window; None for never."""
        if window is None:
            return None
        tile = max((tile for tile in TILES if tile * 60 <= window), default=TILES[0])
        return self.time // tile * tile + tile + window


def scalar(value: object) -> Value:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return Fraction(value)
    return Fraction(repr(float(value))) if isinstance(value, Decimal) else None


def check(condition: object, what: str) -> None:
    if not condition:
        raise RejectedError(what)


def read_line(line: bytes) -> dict[str, Any]:
    check(len(line) <= 65536, "longer than 64 KB")
    try:
        given = json.loads(line.decode(), parse_float=Decimal, parse_constant=lambda name: check(False, name))
    except (ValueError, RecursionError) as error:
        raise RejectedError(str(error)) from error
    if not isinstance(given, dict):
        raise RejectedError("no object")
    return given


def read_event(line: bytes, number: int, definitions: Definitions) -> Event:
    """Read one line.

    Raises:
        RejectedError: the line is no valid event.

    """
    given = read_line(line)
    kind, customer_id = read_names(given)
    props, attributes = read_object(given, "props"), read_object(given, "attributes")
    flat = not any(isinstance(value, dict | list) for value in attributes.values())
    check(flat or kind != "profile", "attributes are flat")
    name = given.get("id") or f"line:{number}"
    order_id = given.get("order_id") or (name if kind == "purchase" else None)
    amount = read_amount(given.get("amount"), given.get("currency"), definitions)
    check(kind != "purchase" or amount is not None, "a purchase has an amount")
    check(kind != "refund" or order_id, "a refund has an order_id")
    time = read_time(given.get("time"))
    return Event(name, kind, customer_id, time, order_id, amount, props, attributes, amount or Fraction(0))


def read_object(given: dict[str, Any], name: str) -> dict[str, Any]:
    value = given.get(name)
    check(value is None or isinstance(value, dict), name)
    return value or {}


def read_names(given: dict[str, Any]) -> tuple[str, str]:
    """Check the names in an event, and give its type and customer."""
    for name in ("type", "customer_id", "id", "order_id"):
        check(isinstance(given.get(name, "none"), str | None) and given.get(name) != "", name)
    kind, customer_id = given.get("type") or "", given.get("customer_id") or ""
    check(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", kind) and kind not in ("merge", "erase"), "type")
    check(not any(unicodedata.category(character) in ("Cc", "Cs") for character in customer_id), "customer_id")
    check(1 <= len(customer_id.encode()) <= 256, "customer_id")
    return kind, customer_id


def read_amount(given: object, currency: object, definitions: Definitions) -> Fraction | None:
    """Read an amount in major units of the definitions' currency; None if there is none."""
    if given is None:
        return None
    if isinstance(given, str):
        check(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?", given), "amount")
        given = Decimal(given)
    if not isinstance(given, int | Decimal) or isinstance(given, bool) or not 0 <= given < 10**40:
        raise RejectedError("amount")
    own = currency is None or currency == definitions.currency
    rate = Fraction(1) if own else definitions.rates.get(str(currency))
    if rate is None:
        raise RejectedError("currency")
    minor = round(Fraction(given) * rate * definitions.major)  # half to even
    check(minor <= MOST_MINOR_UNITS, "amount")
    return Fraction(minor, definitions.major)


def read_time(given: object) -> int:
    """Read an instant in ms, from that number or RFC 3339."""
    if isinstance(given, str):
        given = read_stamp(given)
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= LAST_INSTANT:
        raise RejectedError("time")
    return given


def read_stamp(given: str) -> int:
    pattern = r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)"
    match = re.fullmatch(pattern, given, re.ASCII)
    if match is None:
        raise RejectedError("time")
    try:
        whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{match[4].upper()}") - EPOCH
    except (ValueError, OverflowError) as error:
        raise RejectedError("time") from error
    return whole // timedelta(milliseconds=1) + int((match[3] or "")[:3].ljust(3, "0"))


def stamp(instant: int | None) -> str | None:
    """Write an instant as RFC 3339."""
    if instant is None:
        return None
    return (EPOCH + timedelta(milliseconds=instant)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- a customer: events in order of arrival, current segments ------------------------------------------


@dataclass
class Customer:
    """All that is known of one customer."""

    id: str
    definitions: Definitions
    events: list[Event] = field(default_factory=list)
    current: Current = field(default_factory=dict)
    version: int = 0
    outlook: list[Move] = field(default_factory=list)  # all that time alone will do, in order

    def remembered(self, order_id: str | None, now: int) -> Event | None:
        """Find the purchase with this order id that is still in the ledger."""
        found = [e for e in self.events if e.type == "purchase" and e.order_id == order_id]
        return next((e for e in found if now < e.time + self.definitions.refund_window), None)

    def is_duplicate(self, event: Event, now: int) -> bool:
        if event.id in [e.id for e in self.events[-256:]]:
            return True
        return event.type == "purchase" and self.remembered(event.order_id, now) is not None

    def add(self, event: Event, now: int) -> None:
        """Take in an accepted event."""
        order = self.remembered(event.order_id, now) if event.type == "refund" else None
        if order and event.amount is None:
            event.amount = order.left
        event.matches = event.matching(self.definitions.terms)
        event.waiting = event.type == "refund" and order is None
        self.events.append(event)
        if order:
            refund(order, event.amount)
        elif event.type == "purchase":
            self.settle(event, now)

    def settle(self, purchase: Event, now: int) -> None:
        """Apply the refunds that waited for a purchase."""
        for waiting in [e for e in self.events if e.waiting and e.order_id == purchase.order_id]:
            waiting.waiting = False
            if now < waiting.time + self.definitions.refund_window:
                refund(purchase, waiting.amount)

    def attribute(self, name: str) -> Value:
        writes = [e for e in self.events if e.type == "profile" and name in e.attributes]
        return scalar(latest(writes).attributes[name]) if writes else None

    def evaluation(self, now: int, current: Current) -> list[Move]:
        """Give what an evaluation moves; `current` is updated."""
        moves: list[Move] = []
        for scheme, segments in self.definitions.schemes.items():
            here, since = current.get(scheme, (None, None))
            target = self.target(segments, here, since, View(self, now, now, current))
            if target != here:
                moves.append((now, scheme, here, target, since))
                current[scheme] = (target, now)
        return moves

    def target(self, segments: list[Segment], here: str | None, since: int | None, view: "View") -> str:
        """Give the segment that an evaluation of one scheme assigns."""
        candidate = next(segment for segment in segments if view.value(segment.when) is True)
        if here is None or since is None:
            return candidate.name
        own = next(segment for segment in segments if segment.name == here)
        if segments.index(candidate) < segments.index(own):
            return candidate.name
        stays = view.value(own.stay_when) is True or view.now < since + own.min_stay
        return here if stays else candidate.name

    def look_ahead(self, now: int) -> None:
        """Work out all moves that time alone will make after now."""
        self.outlook, current = [], dict(self.current)
        instant = self.next_instant(now, current)
        while instant is not None:
            self.outlook += self.evaluation(instant, current)
            instant = self.next_instant(instant, current)

    def next_instant(self, now: int, current: Current) -> int | None:
        """Give the next instant at which an evaluation could come out differently."""
        instants = {event.leaves_at(term.window) for event in self.events for term in event.matches}
        for scheme, (here, since) in current.items():
            instants |= {since + s.min_stay for s in self.definitions.schemes[scheme] if s.name == here}
        instants |= set(self.crossings(now, current))
        return min((i for i in instants if i is not None and now < i <= LAST_INSTANT), default=None)

    def crossings(self, now: int, current: Current) -> Iterator[int]:
        """Give where the sides of a comparison meet, and 1 ms on: they are linear till then."""
        here, ahead = View(self, now, now, current), View(self, now, now + 1, current)
        for sides in self.definitions.compared:
            before, after = (calculate("-", *map(view.value, sides)) for view in (here, ahead))
            if before is not None and after is not None and before != after:
                meet = floor(now + before / (before - after))
                yield from (meet, meet + 1)


def refund(purchase: Event, amount: Fraction | None) -> None:
    """Lower what is left of a purchase, by all of it if no amount is given."""
    purchase.left -= purchase.left if amount is None else min(amount, purchase.left)
    purchase.cancelled = purchase.left == 0


def latest(events: list[Event]) -> Event:
    """Give the latest event, on a tie that which arrived later."""
    return max(reversed(events), key=lambda event: event.time)


class View:
    """The values of expressions for a customer at an instant.

    `clock` is the instant that `since` and `age` count to; it is another one only to see how they grow.
    """

    def __init__(self, customer: Customer, now: int, clock: int, current: Current) -> None:
        self.customer, self.now, self.clock, self.current = customer, now, clock, current
        self.known: dict[Term, Value] = {}  # only to save time

    def value(self, node: Node) -> Value:
        return evaluate(node, self.leaf)

    def leaf(self, node: Node) -> Value:
        features, (kind, name) = self.customer.definitions.features, node
        if kind == "term":
            if name not in self.known:
                self.known[name] = self.term(name)
            return self.known[name]
        if kind == "attr":
            return self.customer.attribute(name)
        if kind == "segment":
            return self.current[name][0]
        return self.value(features[name]) if name in features else self.score(name)

    def term(self, term: Term) -> Value:
        matching = [event for event in self.customer.events if term in event.matches]
        if term.function in ("since", "age"):
            times = [event.time for event in matching]
            return Fraction(self.clock - (max if term.function == "since" else min)(times)) if times else None
        if term.function == "last":
            return latest(matching).get(term.field) if matching else None
        leaving = [(event, event.leaves_at(term.window)) for event in matching]
        return self.aggregate(term, [event for event, leaves in leaving if leaves is None or self.now < leaves])

    def aggregate(self, term: Term, inside: list[Event]) -> Value:
        """Aggregate the events inside the window."""
        arrived = [event.get(term.field) for event in inside]
        numbers = [value for value in arrived if isinstance(value, Fraction)]
        kept = [event for event in inside if not event.cancelled]
        net = [value for event in kept if isinstance(value := event.get_net(term.field), Fraction)]
        return {
            "count": Fraction(len(kept)),
            "distinct": Fraction(len({(type(value), value) for value in arrived if value is not None})),
            "min": min(numbers, default=None),
            "max": max(numbers, default=None),
            "sum": sum(net, Fraction(0)),
            "avg": sum(net, Fraction(0)) / len(net) if net else None,
        }[term.function]

    def score(self, name: str) -> Value:
        """Give an RFM score: it stands still while the clock runs from one instant to the next."""
        if self.clock != self.now:
            return View(self.customer, self.now, self.now, self.current).score(name)
        scores = self.customer.definitions.scores
        if self.value(scores["r"][0]) is None:
            return None
        node, cuts = scores[name]
        below = sum(compare("<", cut, node, self.leaf) for cut in cuts)
        return Fraction(5 - below if name == "r" else 1 + below)


# --- the clock -----------------------------------------------------------------------------------------


def naive_changes(definitions: str, lines: Sequence[bytes], until: str | int | None) -> list[dict[str, Any]]:
    """Give the changes of a replay of the lines, in order, with instants in RFC 3339."""
    known = read_definitions(definitions)
    customers: dict[str, Customer] = {}
    changes: list[dict[str, Any]] = []
    clock = 0
    for number, line in enumerate(lines, 1):
        try:
            event = read_event(line, number, known)
        except RejectedError:
            continue
        clock = max(clock, event.time)
        changes += fire(customers, clock)
        customer = customers.setdefault(event.customer_id, Customer(event.customer_id, known))
        if not customer.is_duplicate(event, clock):
            changes += take_in(customer, event, clock)
    return changes if until is None else changes + fire(customers, max(clock, read_time(until)))


def take_in(customer: Customer, event: Event, now: int) -> list[dict[str, Any]]:
    """Apply an accepted event, and evaluate its customer."""
    customer.add(event, now)
    moves = customer.evaluation(now, customer.current)
    customer.look_ahead(now)
    return [describe(customer, move, event.id) for move in moves]


def fire(customers: dict[str, Customer], now: int) -> list[dict[str, Any]]:
    """Let all deadlines up to now fire, in order of instant and customer."""
    due = [(move[0], c.id) for c in customers.values() for move in c.outlook if move[0] <= now]
    changes = []
    for _, name in sorted(due):
        customer = customers[name]
        move = customer.outlook.pop(0)
        customer.current[move[1]] = (move[3], move[0])
        changes.append(describe(customer, move, None))
    return changes


def describe(customer: Customer, move: Move, cause: str | None) -> dict[str, Any]:
    """Give the change that a move makes; the customer's outlook is that after the move."""
    time, scheme, source, target, since = move
    customer.version += 1
    following = next((later for later in customer.outlook if later[1] == scheme), None)
    return {
        "customer_id": customer.id,
        "scheme": scheme,
        "from": source,
        "to": target,
        "version": customer.version,
        "reason": "time" if cause is None else "event",
        "cause": cause,
        "time": stamp(time),
        "since": stamp(since),
        "next_change_at": stamp(following[0]) if following else None,
        "next_segment": following[3] if following else None,
    }
