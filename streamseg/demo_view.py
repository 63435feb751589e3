"""What the demo shows on the terminal: a picture of one moment, drawn from a frozen `DemoState`.

Nothing here counts, waits or reads: whoever runs the demo makes a new state a few times a second and hands
`DemoView(state)` to `rich.live.Live`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streamseg.core.units import Instant, currency_digits

WIDE, TALL = 96, 34
"""From this many columns and lines on there is room for everything; below, the compact form is shown."""

_HEALTH = ("#2ecc71", "#1abc9c", "#3498db", "#9b8cf2", "#f1c40f", "#e67e22", "#e74c3c", "#8a919c")
"""Colours of segments, from a scheme's first one to its default."""
_FRAME, _QUIET, _TRACK, _ACCENT = "#4a5568", "#8a919c", "#2d3748", "#58a6ff"
_BETTER, _WORSE = "#2ecc71", "#e74c3c"
_SIGNS = {"EUR": "€", "GBP": "£", "JPY": "¥", "USD": "$"}
_GONE = "gone"
_REASONS = {"event": "event", "time": "time passed", "definitions": "new definitions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFigures:
    """A segment at this moment."""

    name: str
    customers: int
    value: int = 0
    """Spend of its members, in minor units of the currency."""
    change: int = 0
    """Members now less members a while ago (`DemoState.change_seconds`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeFigures:
    """A scheme: its segments in the order that decides, the default last."""

    name: str
    segments: tuple[SegmentFigures, ...]

    @property
    def customers(self) -> int:
        """All customers: each is in exactly one segment."""
        return sum(segment.customers for segment in self.segments)

    def place(self, name: str | None) -> int:
        """Tell a segment's place in the order, from 0; of an unknown one, the place behind the last."""
        names = [segment.name for segment in self.segments]
        return names.index(name) if name in names else len(names)

    def colour(self, name: str | None) -> str:
        """Choose a segment's colour: the better its place, the greener."""
        last = max(len(self.segments) - 1, 1)
        return _HEALTH[min(self.place(name), last) * (len(_HEALTH) - 1) // last]


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentMove:
    """One customer's change of segment."""

    time: Instant
    customer: str
    scheme: str
    source: str | None
    target: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """How many customers went from one segment to another since the demo began."""

    scheme: str
    source: str
    target: str
    customers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoState:
    """Everything the view shows, at one moment."""

    progress: float
    """How much of the history has been fed, 0 to 1."""
    events: int
    events_per_second: float
    simulated: Instant
    """The stream's clock."""
    elapsed: float
    """Seconds since the demo began."""
    schemes: tuple[SchemeFigures, ...]
    moves: tuple[SegmentMove, ...] = ()
    """The latest changes, the newest first."""
    moves_total: int = 0
    migrations: tuple[Migration, ...] = ()
    """The largest first."""
    restarts: int = 0
    """How often a worker was killed and started again."""
    change_seconds: float = 5.0
    """How far back `SegmentFigures.change` looks."""
    currency: str = "USD"
    tip: str = ""
    title: str = "real purchases of 1997 and 1998, as they happened"

    def scheme(self, name: str) -> SchemeFigures:
        """Find a scheme by its name; an unknown one has no segments."""
        return next((scheme for scheme in self.schemes if scheme.name == name), _unknown(name))


@dataclass(frozen=True, slots=True)
class DemoView:
    """The picture of a state, made for the size of the terminal it is drawn on."""

    state: DemoState

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        state, height = self.state, options.height or options.size.height
        roomy = options.max_width >= WIDE and height >= TALL
        middle, used = _side_by_side(state, _ALL) if roomy else _compact(state)
        yield from (_headline(state), _progress(state), _counters(state), middle)
        yield _moves(state, max(height - used - 6, 1))
        yield Text(f" {state.tip}", style=f"italic {_QUIET}", no_wrap=True, overflow="ellipsis", end="")


def print_summary(console: Console, state: DemoState, notes: Sequence[str] = ()) -> None:
    """Print what the demo came to, to stay on the terminal: figures, migrations, and `notes` as a list."""
    console.print(Padding(_outcome(state), 1))
    if console.width >= WIDE:
        console.print(_side_by_side(state, _LASTING)[0], width=min(console.width, 110))
    else:
        console.print(*(_framed(scheme.name, _segments(scheme, state, _LASTING)) for scheme in state.schemes))
        console.print(_framed("largest migrations", _migrations(state, 8)))
    for note in notes:
        console.print(Text.assemble((" • ", _BETTER), note))


def _outcome(state: DemoState) -> Text:
    customers = state.schemes[0].customers if state.schemes else 0
    return Text.assemble(
        ("Done. ", f"bold {_BETTER}"),
        (f"{state.events:,}", "bold"),
        f" events of {customers:,} customers in {_duration(state.elapsed)}, ",
        (f"{state.events_per_second:,.0f}", "bold"),
        f" a second, up to {_day(state.simulated)}. ",
        (f"{state.moves_total:,}", "bold"),
        f" segment changes{_restarts(state.restarts)}.",
    )


def _restarts(count: int) -> str:
    if not count:
        return ""
    return f", through {count} worker restart{'s' if count > 1 else ''}"


def _unknown(name: str) -> SchemeFigures:
    return SchemeFigures(name=name, segments=())


def _headline(state: DemoState) -> Table:
    left = Text.assemble((" streamseg ", "bold white on #1f6feb"), ("  " + state.title, "bold"))
    right = Text.assemble((_day(state.simulated), "bold #f1c40f"), " ")
    return _ends(left, right)


def _ends(left: Text, right: Text) -> Table:
    """Put one text at each end of the line."""
    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    line.add_row(left, right)
    return line


def _progress(state: DemoState) -> Table:
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(ratio=1)
    line.add_column(justify="right", width=5)
    bar = ProgressBar(total=1.0, completed=state.progress, style=_TRACK, complete_style=_ACCENT, finished_style=_BETTER)
    line.add_row(bar, Text(f"{state.progress:.0%}", style="bold"))
    return line


def _counters(state: DemoState) -> Table:
    left = Text.assemble(
        *(" ", (f"{state.events:,}", "bold"), (" events  ", _QUIET)),
        *((f"{state.events_per_second:,.0f}", "bold"), ("/s  ", _QUIET)),
        *((f"{state.moves_total:,}", "bold"), (" changes", _QUIET)),
    )
    noun = "restart" if state.restarts == 1 else "restarts"
    right = Text.assemble(
        *(
            (f"{state.restarts}", f"bold {_WORSE}" if state.restarts else "bold"),
            (f" worker {noun}  ", _QUIET),
        ),
        *((_duration(state.elapsed), "bold"), (" elapsed ", _QUIET)),
    )
    return _ends(left, right)


def _side_by_side(state: DemoState, columns: Sequence[_Column]) -> tuple[Table, int]:
    """Lay out schemes below one another, and migrations beside them; and count the lines."""
    height = sum(map(_height, state.schemes))
    schemes = [_framed(scheme.name, _segments(scheme, state, columns)) for scheme in state.schemes]
    migrations = _framed("largest migrations", _migrations(state, height - 2), height)
    share = 65 if columns is _ALL else 58
    return _columns(Group(*schemes), migrations, share, 100 - share), height


def _compact(state: DemoState) -> tuple[Table, int]:
    """Lay out the first scheme and, beside it, the others, all of them in short; and count the lines."""
    height, others = sum(map(_height, state.schemes[:1])), state.schemes[1:]
    left = [_framed(scheme.name, _segments(scheme, state, _SHORT)) for scheme in state.schemes[:1]]
    right = [_framed(scheme.name, _segments(scheme, state, _SHORT)) for scheme in others]
    beside = sum(map(_height, others))
    if height - beside > 2:
        free = height - beside
        right.append(_framed("largest migrations", _migrations(state, free - 2), free))
    return _columns(Group(*left), Group(*right), 46, 34), max(height, beside)


def _height(scheme: SchemeFigures) -> int:
    """Count the lines of a scheme's frame: its segments, the heading and the border."""
    return len(scheme.segments) + 3


def _columns(left: RenderableType, right: RenderableType, left_share: int, right_share: int) -> Table:
    grid = Table.grid(expand=True)
    grid.add_column(ratio=left_share)
    grid.add_column(ratio=right_share)
    grid.add_row(left, right)
    return grid


def _framed(title: str, content: RenderableType, height: int | None = None) -> Panel:
    heading = Text(title, style="bold #e2e8f0")
    style: dict[str, Any] = {
        "title_align": "left",
        "box": box.ROUNDED,
        "border_style": _FRAME,
        "padding": (0, 1),
    }
    return Panel(content, title=heading, height=height, **style)


def _table() -> Table:
    return Table(box=None, expand=True, padding=(0, 0, 0, 1), pad_edge=False, header_style=_QUIET)


def _segments(scheme: SchemeFigures, state: DemoState, columns: Sequence[_Column]) -> Table:
    table = _table()
    for column in columns:
        table.add_column(
            column.heading(state),
            justify="left" if column.stretched else "right",
            ratio=1 if column.stretched else None,
            no_wrap=True,
        )
    for segment in scheme.segments:
        table.add_row(*(column.cell(segment, scheme, state) for column in columns))
    return table


def _name(segment: SegmentFigures, scheme: SchemeFigures, _: DemoState) -> Text:
    return _segment(segment.name, scheme)


def _segment(name: str, scheme: SchemeFigures) -> Text:
    return Text.assemble(("● ", scheme.colour(name)), name, overflow="ellipsis")


def _bar(segment: SegmentFigures, scheme: SchemeFigures, _: DemoState) -> ProgressBar:
    """Draw the size of a segment beside the scheme's largest one."""
    largest = max(figures.customers for figures in scheme.segments)
    colour = scheme.colour(segment.name)
    return ProgressBar(
        total=max(largest, 1),
        completed=segment.customers,
        width=12,
        style=_TRACK,
        complete_style=colour,
        finished_style=colour,
    )


def _customers(segment: SegmentFigures, _scheme: SchemeFigures, _: DemoState) -> Text:
    return Text(f"{segment.customers:,}", style="bold" if segment.customers else _QUIET)


def _share(segment: SegmentFigures, scheme: SchemeFigures, _: DemoState) -> str:
    return f"{100 * segment.customers / max(scheme.customers, 1):.1f}"


def _value(segment: SegmentFigures, _: SchemeFigures, state: DemoState) -> str:
    return _money(segment.value, state.currency)


def _change(segment: SegmentFigures, _scheme: SchemeFigures, _: DemoState) -> Text:
    if not segment.change:
        return Text("·", style=_FRAME)
    arrow, style = ("▲", _ACCENT) if segment.change > 0 else ("▼", _QUIET)
    return Text(f"{arrow}{abs(segment.change):,}", style=style)


class _Column(NamedTuple):
    """A column of a scheme's table."""

    heading: Callable[[DemoState], str]
    cell: Callable[[SegmentFigures, SchemeFigures, DemoState], RenderableType]
    stretched: bool = False


_ALL = (
    _Column(lambda _: "", _name, stretched=True),
    _Column(lambda _: "", _bar),
    _Column(lambda _: "members", _customers),
    _Column(lambda _: "%", _share),
    _Column(lambda _: "spend", _value),
    _Column(lambda state: f"in {state.change_seconds:.0f} s", _change),
)
_SHORT = tuple(column for column in _ALL if column.cell not in (_bar, _value))
_LASTING = tuple(column for column in _ALL if column.cell is not _change)


def _migrations(state: DemoState, count: int) -> Table:
    table = _table()
    table.show_header = False
    table.add_column(justify="right")
    table.add_column(ratio=1, no_wrap=True)
    for migration in state.migrations[:count]:
        scheme = state.scheme(migration.scheme)
        row = _Arrow(scheme, migration.source, migration.target)
        table.add_row(Text(f"{migration.customers:,}", style="bold"), row)
    return table


@dataclass(frozen=True, slots=True)
class _Arrow:
    """`from → to`, green towards a better segment and red towards a worse one; long names are cut to fit."""

    scheme: SchemeFigures
    source: str | None
    target: str | None

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(9, len(self.source or "") + 3 + len(self.target or _GONE))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        better = self.scheme.place(self.target) < self.scheme.place(self.source)
        source, target = _fitted(self.source or "", self.target or _GONE, options.max_width - 3)
        yield Text.assemble(
            (source, self.scheme.colour(self.source)),
            (" → " if source else "→ ", _BETTER if better else _WORSE),
            (target, self.scheme.colour(self.target)),
            no_wrap=True,
        )


def _fitted(left: str, right: str, room: int) -> tuple[str, str]:
    """Cut two names until both fit beside each other; a short one leaves its room to the other."""
    for_left = max(room // 2, room - len(right))
    left = _cut(left, for_left)
    return left, _cut(right, room - len(left))


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else name[: max(room - 1, 0)] + "…"


def _moves(state: DemoState, count: int) -> Panel:
    table = _table()
    table.show_header = False
    for ratio in (None, None, None, 1, None):
        table.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    for move in state.moves[:count]:
        table.add_row(*_move(move, state.scheme(move.scheme)))
    return _framed("latest changes", table, count + 2)


def _move(move: SegmentMove, scheme: SchemeFigures) -> tuple[RenderableType, ...]:
    return (
        Text(_minute(move.time), style=_QUIET),
        Text(move.customer, style="bold"),
        Text(move.scheme, style=_QUIET),
        _Arrow(scheme, move.source, move.target),
        Text(_REASONS.get(move.reason, move.reason), style=_ACCENT if move.reason == "time" else _QUIET),
    )


def _moment(instant: Instant) -> datetime:
    return datetime.fromtimestamp(instant // 1000, UTC)


def _day(instant: Instant) -> str:
    moment = _moment(instant)
    return f"{moment.day} {moment:%B %Y}"


def _minute(instant: Instant) -> str:
    return f"{_moment(instant):%Y-%m-%d %H:%M}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _money(minor: int, currency: str) -> str:
    """Write money short, in major units: `$812k`."""
    major = minor / 10 ** currency_digits(currency)
    sign = _SIGNS.get(currency, currency + " ")
    if major >= 1e6:
        return f"{sign}{major / 1e6:,.2f}M"
    return f"{sign}{major / 1e3:,.0f}k" if major >= 10_000 else f"{sign}{major:,.0f}"
