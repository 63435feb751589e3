"""All that is kept of one customer, and how an event changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from streamseg.core import ledger
from streamseg.core.event import FINGERPRINT_BYTES, PROFILE, PURCHASE, REFUND, Event
from streamseg.core.layout import AMOUNT, COUNT, NUMBERS, Layout, Tap, TapSeries, Tracker
from streamseg.core.tile import NEVER, Amount, Rows, add, expire
from streamseg.core.units import Duration, Instant
from streamseg.core.value import number

REMEMBERED = 256
"""How many ids of accepted events are remembered, by their fingerprints."""
RING_BYTES = REMEMBERED * FINGERPRINT_BYTES
UNSET = -1
"""No segment yet."""
MAX_TEXT = 4_000
"""Characters kept of a text."""
MAX_TRACKED = 4096
"""Different values that are tracked one by one; above it a fair sample of three quarters of them is."""


class Profile:
    """A customer's rolling state; `at` is the instant its totals and assignment are of."""

    __slots__ = (
        "at", "attribute_times", "attributes", "distinct", "entered", "expires", "latest", "marks",
        "orders", "positions", "queued", "recent", "rows", "segments", "totals", "version", "waiting", "wake",
    )  # fmt: skip

    def __init__(self, layout: Layout, schemes: int) -> None:
        self.at: Instant = 0
        self.version = 0
        self.segments = [UNSET] * schemes
        self.entered: list[Instant] = [0] * schemes
        self.recent = b""
        self.orders: dict[bytes, ledger.Order] = {}
        self.waiting: dict[bytes, ledger.Waiting] = {}
        self.rows: list[Rows] = [series.empty() for series in layout.series]
        self.positions = [0] * len(layout.windows)
        self.totals: list[Any] = list(layout.totals)
        self.marks: list[Instant | None] = [None] * layout.marks
        self.latest: list[Any] = [None] * layout.latest
        self.attributes: list[Any] = [None] * len(layout.attributes)
        self.attribute_times: list[Instant | None] = [None] * len(layout.attributes)
        self.distinct: list[list[Any]] = [[{}, None] for _ in range(layout.trackers)]
        self.expires: Instant = NEVER
        """No tile leaves any window before this instant."""
        self.wake: Instant = NEVER
        """No segment changes by time alone before this instant."""
        self.queued: Instant = 0
        """The earliest deadline of this customer that is on the heap; 0 if that is not known."""

    def ahead(self) -> Profile:
        """A copy that can be moved on in time without changing this one; it takes no events."""
        copy = Profile.__new__(Profile)
        copy.at, copy.expires = self.at, self.expires
        copy.rows, copy.marks, copy.latest = self.rows, self.marks, self.latest
        copy.attributes, copy.distinct = self.attributes, self.distinct
        copy.segments, copy.entered = self.segments.copy(), self.entered.copy()
        copy.positions, copy.totals = self.positions.copy(), self.totals.copy()
        return copy


def advance(layout: Layout, profile: Profile, now: Instant, *, compact: bool = True) -> None:
    """Lets go of the tiles that have left their windows at `now`."""
    profile.at = now
    if now >= profile.expires:
        profile.expires = min(
            (
                expire(
                    series,
                    profile.rows[series.index],
                    profile.positions,
                    profile.totals,
                    now,
                    compact=compact,
                )
                for series in layout.series
            ),
            default=NEVER,
        )


def is_duplicate(profile: Profile, event: Event, now: Instant, refund_window: Duration) -> bool:
    """Whether the event's id is among the latest, or its order is in the ledger already."""
    place = profile.recent.find(event.fingerprint)
    while place >= 0:
        if place % FINGERPRINT_BYTES == 0:
            return True
        place = profile.recent.find(event.fingerprint, place + 1)
    return event.type == PURCHASE and ledger.known(profile.orders, event.order, now, refund_window) is not None


def apply(layout: Layout, profile: Profile, event: Event, now: Instant, refund_window: Duration) -> bool:
    """Takes an event in, at its own time; `now` is the clock. Returns whether a refund found no order.

    The profile must have been moved to `now`, and the event must be no duplicate.
    """
    recent = profile.recent + event.fingerprint
    profile.recent = recent if len(recent) <= RING_BYTES else recent[-RING_BYTES:]
    unmatched = False
    if event.order:
        ledger.forget(profile.orders, profile.waiting, now, refund_window)
    if event.type == REFUND:
        entry = ledger.known(profile.orders, event.order, now, refund_window)
        if entry is None:
            unmatched = True
            _wait(profile, event, now, refund_window)
        else:
            if event.amount is None:
                event = event._replace(amount=max(entry[ledger.LEFT], 0))
            _take_back(layout, profile, entry, event.amount, now)
    passed = 0
    for tap in layout.taps_of(event.type):
        if tap.filter is None:
            _feed(profile, tap, event, now)
        elif tap.filter(event.props, event.amount):
            passed |= 1 << tap.index
            _feed(profile, tap, event, now)
    if event.type == PURCHASE:
        _remember(layout, profile, event, passed, now, refund_window)
    elif event.type == PROFILE:
        _set_attributes(layout, profile, event)
    return unmatched


def _measure(tap: Tap, event: Event) -> list[Amount | None]:
    return [event.amount if name == AMOUNT else number(event.props.get(name)) for name in tap.fields]


def _feed(profile: Profile, tap: Tap, event: Event, now: Instant) -> None:
    time = event.time
    if tap.last_mark >= 0:
        known = profile.marks[tap.last_mark]
        if known is None or time >= known:
            profile.marks[tap.last_mark] = time
            for name, place in tap.latest:
                profile.latest[place] = _latest_value(event, name)
    if tap.first_mark >= 0:
        known = profile.marks[tap.first_mark]
        if known is None or time < known:
            profile.marks[tap.first_mark] = time
    if not tap.counts:
        return
    values = _measure(tap, event) if tap.fields else ()
    for one in tap.series:
        _add(profile, one, time, values, now)
    for what, place, slot in tap.forever_sums:
        profile.totals[slot] += _share(what, place, values)
    for place, slot, greatest in tap.forever_extremes:
        value, known_value = values[place], profile.totals[slot]
        if value is not None:
            better = known_value is None or (value > known_value if greatest else value < known_value)
            profile.totals[slot] = value if better else known_value
    for tracker in tap.trackers:
        _track(profile, tracker, event, now)


def _latest_value(event: Event, name: str) -> Any:
    value = event.amount if name == AMOUNT else event.props.get(name)
    return _bounded(value) if isinstance(value, str | int | float | bool) else None


def _bounded(value: Any) -> Any:
    """A value that is kept, cut to a length that no literal of an expression reaches."""
    return value[:MAX_TEXT] if isinstance(value, str) else value


def _share(what: str, place: int, values: Sequence[Amount | None]) -> Amount:
    """What one event adds to a summed column."""
    if what == COUNT:
        return 1
    value = values[place]
    if what == NUMBERS:
        return 0 if value is None else 1
    return 0 if value is None else value


def _add(profile: Profile, one: TapSeries, time: Instant, values: Sequence[Amount | None], now: Instant) -> None:
    series = one.series
    sums = [_share(what, place, values) for what, place in one.sums]
    extremes = [values[place] for place in one.extremes] if one.extremes else ()
    leaves = add(
        series,
        profile.rows[series.index],
        profile.positions,
        profile.totals,
        time // series.tile,
        sums,
        extremes,
        now,
    )
    profile.expires = min(profile.expires, leaves)


def _wait(profile: Profile, event: Event, now: Instant, refund_window: Duration) -> None:
    if now < event.time + refund_window:
        refunds = profile.waiting.setdefault(event.order, [])
        if len(refunds) < ledger.MAX_WAITING:
            refunds.append([event.time, event.amount])


def _remember(
    layout: Layout, profile: Profile, event: Event, passed: int, now: Instant, refund_window: Duration
) -> None:
    """Puts a purchase into the ledger and applies the refunds that have waited for it."""
    entry: ledger.Order = [event.time, event.amount, passed]
    if layout.reversible:
        entry.append([number(event.props.get(name)) for name in layout.reversible])
    for time, amount in profile.waiting.pop(event.order, ()):
        if now < time + refund_window:
            _take_back(layout, profile, entry, amount, now)
    if now < event.time + refund_window:
        profile.orders.pop(event.order, None)
        profile.orders[event.order] = entry


def _take_back(layout: Layout, profile: Profile, entry: ledger.Order, amount: int | None, now: Instant) -> None:
    """Lowers the sums of the tile an order stands in, and its counts at zero left."""
    taken, emptied = ledger.take(entry, amount)
    if not taken and not emptied:
        return
    time, passed = entry[ledger.TIME], entry[ledger.TAPS]
    numbers = dict(zip(layout.reversible, entry[ledger.VALUES], strict=True)) if layout.reversible else {}
    for tap in layout.taps_of(PURCHASE):
        if tap.filter is not None and not passed >> tap.index & 1:
            continue
        for one in tap.series:
            back = [-_returned(tap, what, place, taken, emptied, numbers) for what, place in one.sums]
            series = one.series
            nothing = [None] * len(one.extremes)
            add(
                series, profile.rows[series.index], profile.positions, profile.totals, time // series.tile, back,
                nothing, now,
            )  # fmt: skip
        for what, place, slot in tap.forever_sums:
            profile.totals[slot] -= _returned(tap, what, place, taken, emptied, numbers)


def _returned(
    tap: Tap, what: str, place: int, taken: int, emptied: bool, numbers: Mapping[str, Amount | None]
) -> Amount:
    """What a refund takes out of a summed column."""
    if what == COUNT:
        return int(emptied)
    name = tap.fields[place]
    if name == AMOUNT:
        return taken if what != NUMBERS else int(emptied)
    value = numbers[name]
    if value is None or not emptied:
        return 0
    return 1 if what == NUMBERS else value


def _set_attributes(layout: Layout, profile: Profile, event: Event) -> None:
    for name, value in event.attributes.items():
        place = layout.attributes.get(name)
        if place is not None:
            known = profile.attribute_times[place]
            if known is None or event.time >= known:
                profile.attributes[place], profile.attribute_times[place] = _bounded(value), event.time


def fingerprint(value: Any) -> int | None:
    """A number of 63 bits for a scalar property; equal values of a kind have equal ones. None for anything else."""
    exact = number(value)
    if exact is not None:
        text = f"n{exact}"
    elif isinstance(value, bool):
        text = f"b{value}"
    elif isinstance(value, str):
        text = f"s{value}"
    else:
        return None
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def _track(profile: Profile, tracker: Tracker, event: Event, now: Instant) -> None:
    """Notes that a value was seen, in the tile of the event."""
    value = fingerprint(_latest_value(event, tracker.field))
    seen, sample = profile.distinct[tracker.index]
    if value is None or (sample is not None and value >= sample):
        return
    if tracker.series is None:
        if value not in seen:
            seen[value] = 0
            profile.totals[tracker.slot] += 1
    else:
        _see(profile, tracker, seen, value, event.time // tracker.series.tile, now)
    if len(seen) > MAX_TRACKED:
        _thin_out(profile, tracker, now)


def _see(profile: Profile, tracker: Tracker, seen: dict[int, int], value: int, tile: int, now: Instant) -> None:
    series = tracker.series
    assert series is not None
    known = seen.get(value)
    if known is not None and known >= tile:
        return
    if now >= (tile + 1) * series.tile + series.windows[-1].length:
        return
    rows, positions, totals = profile.rows[series.index], profile.positions, profile.totals
    if known is not None:
        add(series, rows, positions, totals, known, (-1,), (), now)
    seen[value] = tile
    profile.expires = min(profile.expires, add(series, rows, positions, totals, tile, (1,), (), now))
    if len(seen) % 64 == 0 or len(seen) > MAX_TRACKED:
        _drop_left(seen, (now - series.windows[-1].length) // series.tile)


def _drop_left(seen: dict[int, int], first: int) -> None:
    for value in [value for value, tile in seen.items() if tile < first]:
        del seen[value]


def _thin_out(profile: Profile, tracker: Tracker, now: Instant) -> None:
    """Keeps the three quarters with the lowest fingerprints: an even sample, of which the estimate is scaled up."""
    seen, _ = profile.distinct[tracker.index]
    values = sorted(seen)
    sample = values[len(values) * 3 // 4]
    for value in values:
        if value >= sample:
            tile = seen.pop(value)
            if tracker.series is None:
                profile.totals[tracker.slot] -= 1
            else:
                rows = profile.rows[tracker.series.index]
                add(tracker.series, rows, profile.positions, profile.totals, tile, (-1,), (), now)
    profile.distinct[tracker.index][1] = sample


def estimate(total: int, sample: int | None) -> int:
    """How many different values there are when `total` of those with a fingerprint below `sample` are seen."""
    return total if sample is None else round(total * (1 << 63) / sample)
