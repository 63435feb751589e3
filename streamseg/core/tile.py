"""Windows in tiles: running totals from which whole tiles leave at known instants.

A window `W` is cut into tiles of length `h`, the longest of `LENGTHS` that is at most `W / 60`. An event at
`t` stands in tile `q = floor(t / h)` and is inside `W` at instant `T` if and only if `T < (q + 1) * h + W`.

Tiles are kept as parallel lists (`[tiles, column, column, ...]`), oldest first, one row for each tile that
has events; a window is a position in them and the totals from there on. So an event costs the same
whatever the length of the windows, and windows with tiles of one length share them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streamseg.core.units import MILLISECONDS, Duration, Instant

LENGTHS = tuple(
    count * MILLISECONDS[unit]
    for count, unit in (
        (1, "s"),
        (5, "s"),
        (15, "s"),
        (1, "m"),
        (5, "m"),
        (15, "m"),
        (1, "h"),
        (6, "h"),
        (1, "d"),
    )
)
NEVER: Instant = 1 << 62
"""Later than every instant."""
KEPT_BEFORE_WINDOW = 16
"""How many tiles that have left every window may wait until they are dropped together."""

Amount = int | Fraction
Rows = list[list[Any]]
"""One series of one customer: the tiles, then a list for each column."""


def tile_length(window: Duration) -> Duration:
    """The length of the tiles of a window; both in milliseconds."""
    return max((length for length in LENGTHS if length * 60 <= window), default=LENGTHS[0])


@dataclass(frozen=True, slots=True)
class Window:
    """A window over a series. `sums` and `extremes` pair a column of the series with a slot of the totals."""

    index: int
    series: int
    length: Duration
    tile: Duration
    sums: tuple[tuple[int, int], ...]
    extremes: tuple[tuple[int, int, bool], ...]
    """Column, slot, and whether the greatest is kept rather than the least."""


@dataclass(frozen=True, slots=True)
class Series:
    """What is kept for events of one selection in tiles of one length."""

    index: int
    tile: Duration
    sums: int
    """How many columns are summed; they come first."""
    extremes: tuple[bool, ...]
    """For each column after those: is it the greatest of its values, or the least?"""
    windows: tuple[Window, ...]
    """Shortest first."""

    def empty(self) -> Rows:
        """The rows of a customer without events."""
        return [[] for _ in range(1 + self.sums + len(self.extremes))]


def add(
    series: Series,
    rows: Rows,
    positions: list[int],
    totals: list[Any],
    tile: int,
    sums: Sequence[Amount],
    extremes: Sequence[Amount | None],
    now: Instant,
) -> Instant:
    """Adds to a tile and to the totals of the windows that the tile is inside of at `now`.

    Returns the first instant at which the tile leaves a window it is in (`NEVER` if it is in none). The
    windows must have been moved to `now` before.
    """
    longest = series.windows[-1]
    if now >= (tile + 1) * series.tile + longest.length:
        return NEVER
    row = _row(series, rows, positions, tile, now)
    for column, value in enumerate(sums, 1):
        rows[column][row] += value
    if extremes:
        _extend(series, rows, row, extremes)
    leaves = NEVER
    for window in series.windows:
        end = (tile + 1) * window.tile + window.length
        if now < end:
            leaves = min(leaves, end)
            for column, slot in window.sums:
                totals[slot] += sums[column - 1]
            for column, slot, greatest in window.extremes:
                totals[slot] = _extreme(totals[slot], extremes[column - 1 - series.sums], greatest)
    return leaves


def _row(series: Series, rows: Rows, positions: list[int], tile: int, now: Instant) -> int:
    """The row of a tile, made if there is none."""
    tiles = rows[0]
    if tiles and tiles[-1] == tile:
        return len(tiles) - 1
    row = len(tiles)
    if tiles and tiles[-1] > tile:
        row = bisect_left(tiles, tile)
        if tiles[row] == tile:
            return row
    tiles.insert(row, tile)
    for column in range(1, 1 + series.sums):
        rows[column].insert(row, 0)
    for column in range(1 + series.sums, len(rows)):
        rows[column].insert(row, None)
    for window in series.windows:
        # A position stays on the first tile that is inside: a late one may come in before it, or have left already.
        position = positions[window.index]
        if position > row or (position == row and now >= (tile + 1) * window.tile + window.length):
            positions[window.index] += 1
    return row


def _extend(series: Series, rows: Rows, row: int, extremes: Sequence[Amount | None]) -> None:
    for offset, (value, greatest) in enumerate(zip(extremes, series.extremes, strict=True)):
        column = rows[1 + series.sums + offset]
        column[row] = _extreme(column[row], value, greatest)


def _extreme(known: Amount | None, value: Amount | None, greatest: bool) -> Amount | None:
    if value is None:
        return known
    if known is None:
        return value
    return max(known, value) if greatest else min(known, value)


def expire(
    series: Series, rows: Rows, positions: list[int], totals: list[Any], now: Instant, *, compact: bool
) -> Instant:
    """Lets go of the tiles that have left at `now`; returns when the next one leaves (`NEVER` if none).

    With `compact`, tiles that have left every window are dropped.
    """
    tiles = rows[0]
    size = len(tiles)
    following = NEVER
    for window in series.windows:
        start = position = positions[window.index]
        first = (now - window.length) // window.tile
        while position < size and tiles[position] < first:
            position += 1
        if position != start:
            positions[window.index] = position
            _let_go(window, rows, totals, start, position)
        if position < size:
            following = min(following, (tiles[position] + 1) * window.tile + window.length)
    if compact:
        _compact(series, rows, positions)
    return following


def place(series: Series, rows: Rows, positions: list[int], now: Instant) -> Instant:
    """Puts the windows where they are at `now`, with the totals of `now`; returns when the next tile leaves one."""
    tiles = rows[0]
    following = NEVER
    for window in series.windows:
        position = positions[window.index] = bisect_left(tiles, (now - window.length) // window.tile)
        if position < len(tiles):
            following = min(following, (tiles[position] + 1) * window.tile + window.length)
    return following


def _let_go(window: Window, rows: Rows, totals: list[Any], start: int, position: int) -> None:
    for column, slot in window.sums:
        values = rows[column]
        totals[slot] -= values[start] if position == start + 1 else sum(values[start:position])
    for column, slot, greatest in window.extremes:
        gone = rows[column][start:position]
        if totals[slot] is not None and totals[slot] in gone:
            left = [value for value in rows[column][position:] if value is not None]
            totals[slot] = None if not left else max(left) if greatest else min(left)


def _compact(series: Series, rows: Rows, positions: list[int]) -> None:
    gone = positions[series.windows[-1].index]
    if gone > KEPT_BEFORE_WINDOW:
        for column in rows:
            del column[:gone]
        for window in series.windows:
            positions[window.index] -= gone


def falls_below(window: Window, rows: Rows, column: int, position: int, total: Amount, limit: Amount) -> Instant:
    """The first instant at which a falling total is below `limit` if nothing comes in.

    `total` is what the column has from `position` on, and is not below the limit; the limit is above zero, or
    else the total never gets there (`NEVER`).
    """
    if limit <= 0:
        return NEVER
    tiles, values = rows[0], rows[column]
    if limit * 2 < total:
        row, kept = len(tiles), type(total)(0)
        while kept < limit:
            row -= 1
            kept += values[row]
    else:
        row = position - 1
        while total >= limit:
            row += 1
            total -= values[row]
    return int((tiles[row] + 1) * window.tile + window.length)


def next_leaving(window: Window, rows: Rows, position: int) -> Instant:
    """When the oldest tile inside a window leaves it (`NEVER` if it is empty)."""
    tiles = rows[0]
    if position >= len(tiles):
        return NEVER
    return int((tiles[position] + 1) * window.tile + window.length)
