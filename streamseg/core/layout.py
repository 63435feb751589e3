"""What has to be kept of a customer so that all features of the definitions can be told at any instant.

A `Tap` takes the events of one selection (`purchase`, `page_view where category == "shoes"`, `any`) and feeds
marks (first and last time), latest values, tiles and totals. `LayoutBuilder` collects what expressions ask
for; the same question asked twice is kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from streamseg.core.event import ANY, CONTROL, ENGAGEMENT, NOT_ENGAGEMENT, PURCHASE
from streamseg.core.expression import ALL
from streamseg.core.tile import Series, Window, tile_length
from streamseg.core.units import Duration

Filter = Callable[[Mapping[str, Any], int | None], bool]
AMOUNT = "amount"
COUNT, NUMBERS, SUM = "count", "numbers", "sum"
"""What a summed column holds: events, events in which the field is a number, or the field's sum."""
Column = tuple[str, str]
"""One of the above and the field (empty for COUNT)."""


@dataclass(frozen=True, slots=True)
class TapSeries:
    """A series that a tap feeds, and where its columns come from: indexes of the tap's fields."""

    series: Series
    sums: tuple[tuple[str, int], ...]
    extremes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tracker:
    """Different values of a field: the tile each was last seen in, and a series that counts values by that tile."""

    index: int
    field: str
    series: Series | None
    slot: int
    """The total of a window without end; -1 if there is a series."""


@dataclass(frozen=True, slots=True)
class Tap:
    """Takes the events of one selection."""

    index: int
    type: str
    filter: Filter | None
    filter_code: str
    """The filter as Python, empty if there is none."""
    first_mark: int
    last_mark: int
    """Places among the profile's marks; -1 if not kept."""
    latest: tuple[tuple[str, int], ...]
    fields: tuple[str, ...]
    """Fields that are read as numbers."""
    series: tuple[TapSeries, ...]
    forever_sums: tuple[tuple[str, int, int], ...]
    forever_extremes: tuple[tuple[int, int, bool], ...]
    trackers: tuple[Tracker, ...]
    counts: bool
    """Whether there is more to feed than marks and latest values."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The form of a profile."""

    taps: tuple[Tap, ...]
    series: tuple[Series, ...]
    windows: tuple[Window, ...]
    totals: tuple[int | None, ...]
    """What the totals are before any event: 0 or None."""
    marks: int
    latest: int
    trackers: int
    attributes: Mapping[str, int]
    reversible: tuple[str, ...]
    """Fields of purchases, but the amount, whose sums a full refund takes back."""
    by_type: Mapping[str, tuple[Tap, ...]]
    engagement: tuple[Tap, ...]
    """The taps of an event type that no expression names."""
    fingerprint: str
    """Profiles of two layouts with the same fingerprint are interchangeable."""
    mark: bytes
    """Four bytes of the fingerprint, that are in every stored state."""

    def taps_of(self, type_: str) -> tuple[Tap, ...]:
        """The taps that an event of this type goes through."""
        return self.by_type.get(type_, self.engagement)


@dataclass(slots=True)
class _SeriesBuilder:
    index: int
    tile: Duration
    sums: list[Column] = field(default_factory=list)
    extremes: list[tuple[str, bool]] = field(default_factory=list)
    windows: dict[Duration, dict[Any, int]] = field(default_factory=dict)
    """For each window the slot of each column it totals."""


@dataclass(slots=True)
class _TapBuilder:
    index: int
    type: str
    filter: Filter | None
    filter_code: str
    first_mark: int = -1
    last_mark: int = -1
    latest: dict[str, int] = field(default_factory=dict)
    series: dict[Duration, _SeriesBuilder] = field(default_factory=dict)
    forever: dict[Any, int] = field(default_factory=dict)
    distinct: dict[tuple[str, Duration], tuple[int, _SeriesBuilder | None, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Total:
    """A slot of the totals as an expression sees it; `series` and `column` are for finding out when it falls."""

    slot: int
    window: Duration
    series: int
    column: int
    key: tuple[int, Duration]
    """Series and length of the window; the layout gives its index."""


class LayoutBuilder:
    """Collects what is asked for, hands out places, and at last builds the layout."""

    def __init__(self) -> None:
        self._taps: dict[tuple[str, str], _TapBuilder] = {}
        self._series: list[_SeriesBuilder] = []
        self._totals: list[int | None] = []
        self._marks = 0
        self._latest = 0
        self._trackers = 0
        self._attributes: dict[str, int] = {}

    def tap(self, type_: str, where: str, filter_: Filter | None, code: str = "") -> tuple[str, str]:
        """Makes sure that there is a tap; returns its key."""
        key = (type_, where)
        if key not in self._taps:
            self._taps[key] = _TapBuilder(len(self._taps), type_, filter_, code)
        return key

    def mark(self, tap: tuple[str, str], *, first: bool) -> int:
        """The place of the time of the first or the latest event."""
        builder = self._taps[tap]
        name = "first_mark" if first else "last_mark"
        place: int = getattr(builder, name)
        if place < 0:
            place, self._marks = self._marks, self._marks + 1
            setattr(builder, name, place)
        return place

    def latest(self, tap: tuple[str, str], name: str) -> int:
        """The place of a field of the latest event."""
        self.mark(tap, first=False)
        fields = self._taps[tap].latest
        if name not in fields:
            fields[name], self._latest = self._latest, self._latest + 1
        return fields[name]

    def attribute(self, name: str) -> int:
        """The place of a customer's attribute."""
        return self._attributes.setdefault(name, len(self._attributes))

    def _slot(self, slots: dict[Any, int], key: Any, empty: int | None) -> int:
        if key not in slots:
            slots[key] = len(self._totals)
            self._totals.append(empty)
        return slots[key]

    def _new_series(self, tile: Duration) -> _SeriesBuilder:
        self._series.append(_SeriesBuilder(len(self._series), tile))
        return self._series[-1]

    def total(self, tap: tuple[str, str], window: Duration, what: str, name: str) -> Total:
        """A summed total over a window."""
        if what == NUMBERS and name == AMOUNT and tap[0] == PURCHASE:
            what, name = COUNT, ""  # a purchase always has its amount
        builder, column = self._taps[tap], (what, name)
        if window == ALL:
            return Total(self._slot(builder.forever, column, 0), ALL, -1, -1, (-1, ALL))
        series = self._series_of(builder, window)
        if column not in series.sums:
            series.sums.append(column)
        slot = self._slot(series.windows.setdefault(window, {}), column, 0)
        return Total(slot, window, series.index, 1 + series.sums.index(column), (series.index, window))

    def _series_of(self, builder: _TapBuilder, window: Duration) -> _SeriesBuilder:
        tile = tile_length(window)
        if tile not in builder.series:
            builder.series[tile] = self._new_series(tile)
        builder.series[tile].windows.setdefault(window, {})
        return builder.series[tile]

    def extreme(
        self, tap: tuple[str, str], window: Duration, name: str, *, greatest: bool
    ) -> tuple[int, tuple[int, Duration]]:
        """The least or greatest of a field over a window: its slot and the window's key."""
        builder, column = self._taps[tap], (name, greatest)
        if window == ALL:
            return self._slot(builder.forever, column, None), (-1, ALL)
        series = self._series_of(builder, window)
        if column not in series.extremes:
            series.extremes.append(column)
        return self._slot(series.windows[window], column, None), (series.index, window)

    def distinct(self, tap: tuple[str, str], window: Duration, name: str) -> tuple[int, int, tuple[int, Duration]]:
        """Different values of a field over a window: the tracker, the slot and the window's key."""
        builder = self._taps[tap]
        tile = 0 if window == ALL else tile_length(window)
        if (name, tile) not in builder.distinct:
            series = None if window == ALL else self._new_series(tile)
            slot = self._slot({}, "distinct", 0) if series is None else -1
            builder.distinct[name, tile] = (self._trackers, series, slot)
            self._trackers += 1
        tracker, series, slot = builder.distinct[name, tile]
        if series is None:
            return tracker, slot, (-1, ALL)
        if not series.sums:
            series.sums.append((COUNT, ""))
        slots = series.windows.setdefault(window, {})
        return tracker, self._slot(slots, (COUNT, ""), 0), (series.index, window)

    def build(self) -> Layout:
        """The layout of all that was asked for."""
        windows: list[Window] = []
        series = [_build_series(builder, windows) for builder in self._series]
        taps = [_build_tap(builder, series) for builder in self._taps.values()]
        by_type = {tap.type: _taps_of(tap.type, taps) for tap in taps if tap.type not in (ANY, ENGAGEMENT)}
        for name in NOT_ENGAGEMENT:
            by_type[name] = _taps_of(name, taps)
        fingerprint = self._fingerprint()
        return Layout(
            taps=tuple(taps),
            series=tuple(series),
            windows=tuple(windows),
            totals=tuple(self._totals),
            marks=self._marks,
            latest=self._latest,
            trackers=self._trackers,
            attributes=dict(self._attributes),
            reversible=_reversible(taps),
            by_type=by_type,
            engagement=_taps_of("", taps),
            fingerprint=fingerprint,
            mark=bytes.fromhex(fingerprint)[:4],
        )

    def _fingerprint(self) -> str:
        taps = [
            (key, tap.first_mark, tap.last_mark, sorted(tap.latest.items()), sorted(map(str, tap.forever.items())),
             sorted((length, series.index) for length, series in tap.series.items()),
             sorted((key, index, slot) for key, (index, _, slot) in tap.distinct.items()))
            for key, tap in self._taps.items()
        ]  # fmt: skip
        series = [
            (
                one.tile,
                one.sums,
                one.extremes,
                sorted((length, sorted(map(str, slots.items()))) for length, slots in one.windows.items()),
            )
            for one in self._series
        ]
        return sha256(repr((taps, series, self._attributes)).encode()).hexdigest()[:16]


def _build_series(builder: _SeriesBuilder, windows: list[Window]) -> Series:
    own = []
    for length in sorted(builder.windows):
        slots = builder.windows[length]
        sums = tuple((1 + i, slots[column]) for i, column in enumerate(builder.sums) if column in slots)
        first = 1 + len(builder.sums)
        extremes = tuple(
            (first + i, slots[column], column[1]) for i, column in enumerate(builder.extremes) if column in slots
        )
        own.append(Window(len(windows), builder.index, length, builder.tile, sums, extremes))
        windows.append(own[-1])
    greatest = tuple(flag for _, flag in builder.extremes)
    return Series(builder.index, builder.tile, len(builder.sums), greatest, tuple(own))


def _build_tap(builder: _TapBuilder, series: list[Series]) -> Tap:
    fields: list[str] = []

    def place(name: str) -> int:
        if name and name not in fields:
            fields.append(name)
        return fields.index(name) if name else -1

    own = tuple(
        TapSeries(
            series[one.index],
            tuple((what, place(name)) for what, name in one.sums),
            tuple(place(name) for name, _ in one.extremes),
        )
        for one in builder.series.values()
    )
    sums = tuple((k[0], place(k[1]), slot) for k, slot in builder.forever.items() if not isinstance(k[1], bool))
    extremes = tuple((place(k[0]), slot, k[1]) for k, slot in builder.forever.items() if isinstance(k[1], bool))
    trackers = tuple(
        Tracker(index, name, None if one is None else series[one.index], slot)
        for (name, _), (index, one, slot) in builder.distinct.items()
    )
    return Tap(
        builder.index, builder.type, builder.filter, builder.filter_code, builder.first_mark, builder.last_mark,
        tuple(builder.latest.items()), tuple(fields), own, sums, extremes, trackers,
        bool(own or sums or extremes or trackers),
    )  # fmt: skip


def _taps_of(type_: str, taps: list[Tap]) -> tuple[Tap, ...]:
    if type_ in CONTROL:
        return ()
    names = {type_, ANY} if type_ in NOT_ENGAGEMENT else {type_, ANY, ENGAGEMENT}
    return tuple(tap for tap in taps if tap.type in names)


def _reversible(taps: list[Tap]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for tap in taps:
        if tap.type in (PURCHASE, ANY):
            wanted = {place for one in tap.series for _, place in one.sums} | {
                place for _, place, _ in tap.forever_sums
            }
            names.update({tap.fields[place]: None for place in sorted(wanted) if place >= 0})
    names.pop(AMOUNT, None)
    return tuple(names)
