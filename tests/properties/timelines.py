"""Strategies for definitions and what happens to their customers, aimed at borders where mistakes live."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from tests.properties.expressions import composed_definitions
from tests.properties.hand_written import DEFINITIONS, ORDERS, VALUES

SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000
START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
EPOCH = datetime.fromtimestamp(0, UTC)
TILES = [SECOND, 5 * SECOND, 15 * SECOND, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 6 * HOUR, DAY]
# Lengths which the definitions use, so that gaps between events meet thresholds and refund windows exactly.
DAYS = [1, 2, 7, 10, 30, 90, 365, 1095]
LENGTHS = [MINUTE, 5 * MINUTE, 10 * MINUTE, HOUR, 2 * HOUR, *(days * DAY for days in DAYS)]
AMOUNTS = ["0", "0.005", "0.015", "10", "49.99", "50.00", "100", 0, 5, 7.25, 20.5, 0.1, "1e2", 300]
CUSTOMERS = ("a", "b", "ä@c")
ORDER_IDS = ["o1", "o1", "o1", "o2", "o2", None]
MALFORMED = [
    b"",
    b"  ",
    b"not json",
    b"[1]",
    b"null",
    b"\xff\xfe{}",
    b'{"type":"page_view","customer_id":"a"}',
    b'{"type":"page_view","time":%d}',
    b'{"customer_id":"a","time":%d}',
    b'{"type":"purchase","customer_id":"a","time":%d}',
    b'{"type":"purchase","customer_id":"a","time":%d,"amount":-1}',
    b'{"type":"purchase","customer_id":"a","time":%d,"amount":"NaN"}',
    b'{"type":"purchase","customer_id":"a","time":%d,"amount":true}',
    b'{"type":"purchase","customer_id":"a","time":%d,"amount":"ten"}',
    b'{"type":"purchase","customer_id":"a","time":%d,"amount":10000000000000.01}',
    b'{"type":"purchase","customer_id":"a","time":%d,"amount":5,"currency":"XYZ"}',
    b'{"type":"page_view","customer_id":"a","time":%d,"amount":-5}',
    b'{"type":"refund","customer_id":"a","time":%d}',
    b'{"type":"page view","customer_id":"a","time":%d}',
    b'{"type":"page_view","customer_id":"","time":%d}',
    b'{"type":"page_view","customer_id":"a\\u0000","time":%d}',
    b'{"type":"page_view","customer_id":7,"time":%d}',
    b'{"type":"page_view","customer_id":"a","time":-%d}',
    b'{"type":"page_view","customer_id":"a","time":"2026-01-01T00:00:00"}',
    b'{"type":"page_view","customer_id":"a","time":"2026-13-01T00:00:00Z"}',
    b'{"type":"page_view","customer_id":"a","time":true}',
    b'{"type":"page_view","customer_id":"a","time":%d,"props":[1]}',
]

Build = Callable[[st.DrawFn], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A line as it arrives. For a malformed one, time and customer mean nothing."""

    time: int  # ms
    customer_id: str
    line: bytes


@dataclass(frozen=True, slots=True)
class Story:
    """Definitions, and what happens under them."""

    definitions: str
    arrivals: tuple[Arrival, ...]
    until: int | None  # ms, not before the last arrival

    @property
    def lines(self) -> list[bytes]:
        """The lines in order of arrival."""
        return [arrival.line for arrival in self.arrivals]

    def __str__(self) -> str:
        """Write the story so that it can be read in a failure, and replayed from there."""
        lines = "\n".join(repr(line)[2:-1] for line in self.lines)
        return f"definitions:\n{self.definitions}\nlines:\n{lines}\nuntil: {self.until}\n"


def gaps() -> st.SearchStrategy[int]:
    """Draw times between events, in ms: often none, often at or beside a length that means something."""
    near = st.tuples(st.sampled_from(LENGTHS), st.sampled_from([0, 0, -1, 1])).map(sum)
    return st.one_of(
        st.sampled_from([0, 0, 1, 999, SECOND]),
        near,
        st.integers(0, 3 * MINUTE),
        st.integers(0, 3 * HOUR),
        st.integers(0, 40 * DAY),
    )


def written_time(draw: st.DrawFn, instant: int) -> int | str:
    """Write an instant in one of the forms that an event may have it in."""
    if draw(st.booleans()):
        return instant
    zone = timezone(timedelta(minutes=draw(st.sampled_from([0, 60, -330]))))
    text = (EPOCH + timedelta(milliseconds=instant)).astimezone(zone).isoformat(timespec="milliseconds")
    digits = draw(st.sampled_from(["", "", "9", "000"]))
    return (text[:23] + digits + text[23:]).replace("+00:00", "Z")


@st.composite
def amounts(draw: st.DrawFn) -> object:
    """Draw an amount, often one of few that add up to different sums."""
    return draw(st.sampled_from(["10", "50.00", 5]) | st.sampled_from(AMOUNTS))


def purchase(draw: st.DrawFn) -> dict[str, Any]:
    event: dict[str, Any] = {"type": "purchase", "amount": draw(amounts()), **props(draw)}
    event |= draw(st.sampled_from([{}, {}, {"currency": "EUR"}, {"currency": "USD"}]))
    order = draw(st.sampled_from(ORDER_IDS))
    return event | {"order_id": order} if order else event


def refund(draw: st.DrawFn) -> dict[str, Any]:
    event: dict[str, Any] = {"type": "refund", "order_id": draw(st.sampled_from(ORDER_IDS)) or "e1"}
    return event if draw(st.booleans()) else event | {"amount": draw(amounts() | st.none())}


def profile(draw: st.DrawFn) -> dict[str, Any]:
    values: dict[str, list[Any]] = {
        "plan": ["pro", "free", "team", None],
        "score": [0, 1, 1.0, 3, 5.5, "3", True, None],
        "vip": [True, False, None],
    }
    names = draw(st.lists(st.sampled_from(sorted(values)), max_size=3, unique=True))
    return {"type": "profile", "attributes": {name: draw(st.sampled_from(values[name])) for name in names}}


def engagement(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["page_view", "page_view", "page_view", "cart_add", "app.open-v2"]))
    event: dict[str, Any] = {"type": kind, **props(draw)}
    event |= draw(st.sampled_from([{}, {}, {}, {"amount": "3.50"}]))
    return event


def props(draw: st.DrawFn) -> dict[str, Any]:
    values: dict[str, list[Any]] = {
        "category": ["shoes", "shoes", "hats", "1", 1, True, None, ["shoes"]],
        "qty": [1, 1.0, 2, 5, 0, -2, 0.5, 0.1, 0.3, "2", True, None],
        "coupon": [True, False, "true", 1, None],
    }
    names = draw(st.lists(st.sampled_from(sorted(values)), max_size=3, unique=True))
    return {"props": {name: draw(st.sampled_from(values[name])) for name in names}} if names else {}


@dataclass(frozen=True, slots=True)
class Theme:
    """What a story is about: a mistake shows sooner where everything turns round the same thing."""

    definitions: st.SearchStrategy[str]
    events: tuple[Build, ...]
    lengths: tuple[int, ...]  # ms


ANYTHING = Theme(
    st.sampled_from(DEFINITIONS) | composed_definitions(),
    (purchase, purchase, refund, profile, engagement, engagement),
    tuple(LENGTHS),
)
RETURNS = Theme(st.just(ORDERS), (purchase, purchase, refund), (HOUR, 10 * MINUTE))
READINGS = Theme(st.just(VALUES), (engagement, engagement, profile), (10 * MINUTE, HOUR, 2 * HOUR))


@st.composite
def instants(draw: st.DrawFn, clock: int, earlier: list[Arrival], theme: Theme, late: bool) -> int:
    """Draw the time of an event: near the clock, off an earlier event by a length, or at the border of a tile."""
    if late and draw(st.integers(0, 7)) == 7:
        return clock - draw(gaps())
    kind = draw(st.sampled_from(["gap", "gap", "earlier", "tile"]))
    if kind == "earlier" and earlier:
        base = draw(st.sampled_from(earlier)).time
        return max(clock, base + draw(st.sampled_from(theme.lengths)) + draw(st.sampled_from([0, 0, -1, 1])))
    instant = clock + draw(gaps())
    if kind != "tile":
        return instant
    tile = draw(st.sampled_from(TILES))
    return instant // tile * tile + tile + draw(st.sampled_from([0, -1]))


@st.composite
def arrivals(
    draw: st.DrawFn,
    theme: Theme,
    *,
    customers: Sequence[str] = CUSTOMERS,
    late: bool = True,
    malformed: bool = True,
) -> tuple[Arrival, ...]:
    """Draw what arrives, in order.

    Args:
        draw: Hypothesis' own.
        theme: what happens, and at which distances.
        customers: who may be there.
        late: whether events may be stamped before some that arrived earlier; if not, they are sorted by time.
        malformed: whether there may be lines that are no valid event, and events without an id.

    """
    people = customers[: draw(st.integers(1, len(customers)))]
    clock, made = START + draw(st.integers(0, DAY)), list[Arrival]()
    for number in range(draw(st.integers(1, 14))):
        time = draw(instants(clock, made, theme, late))
        if draw(st.integers(0, 19)) == 19 and malformed:
            made.append(malformed_arrival(draw, time))
            continue
        # Few ids, so that some come twice: for one customer a duplicate, for two customers not.
        name = draw(st.sampled_from([f"u{number}"] * 6 + ["e1", "e2"] + [None] * malformed))
        made.append(valid_arrival(draw, time, people, theme, made, name))
        clock = max(clock, time)
    return tuple(made)


def malformed_arrival(draw: st.DrawFn, time: int) -> Arrival:
    """Draw a line that is rejected, which must not move the clock: so some lie far ahead."""
    stamp = b"%d" % (time + draw(st.sampled_from([0, 100 * DAY])))
    return Arrival(time, "", draw(st.sampled_from(MALFORMED)).replace(b"%d", stamp))


def valid_arrival(
    draw: st.DrawFn,
    time: int,
    people: Sequence[str],
    theme: Theme,
    earlier: list[Arrival],
    name: str | None,
) -> Arrival:
    """Draw an event, or an earlier one sent again with another time."""
    whole = [arrival for arrival in earlier if arrival.customer_id]
    if whole and draw(st.integers(0, 19)) == 19:
        return written(draw, time, json.loads(draw(st.sampled_from(whole)).line))
    event = {"customer_id": draw(st.sampled_from(people))} | draw(st.sampled_from(theme.events))(draw)
    return written(draw, time, event | {"id": name} if name else event)


def written(draw: st.DrawFn, time: int, event: dict[str, Any]) -> Arrival:
    data = event | {"time": written_time(draw, time)}
    return Arrival(time, data["customer_id"], json.dumps(data).encode())


@st.composite
def stories(
    draw: st.DrawFn,
    theme: Theme = ANYTHING,
    *,
    customers: Sequence[str] = CUSTOMERS,
    late: bool = True,
    malformed: bool = True,
) -> Story:
    """Draw definitions and a timeline; see `arrivals`."""
    text = draw(theme.definitions)
    made = draw(arrivals(theme, customers=customers, late=late, malformed=malformed))
    last = max(arrival.time for arrival in made)
    until = draw(st.none() | gaps().map(lambda gap: last + gap) | st.just(last + 1200 * DAY))
    return Story(text, made, until)
