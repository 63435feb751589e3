"""When could anything change by time alone? A lower bound of that instant, from the comparisons of all conditions.

Counts and sums over a window only fall with time; `since` and `age` only rise, by one millisecond each
millisecond. So for most comparisons the instant is known at once: the tile whose leaving takes a total below
its threshold, or the mark plus the threshold. For any other comparison it is the next tile that leaves one
of its windows, or where its two sides, linear in between, meet. Besides, a `min_stay` passes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Any

from streamseg.core.condition import Crossing, Scope, Term, WindowKey, compile_function
from streamseg.core.layout import Layout
from streamseg.core.profile import Profile
from streamseg.core.tile import NEVER, Window, falls_below, next_leaving
from streamseg.core.units import LAST_INSTANT, Duration, Instant
from streamseg.core.value import Exact, Kind


@dataclass(frozen=True, slots=True)
class Fall:
    """A total and the limits (ascending) whose undershooting turns a comparison."""

    slot: int
    window: Window
    column: int
    limits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rise:
    """A mark and the elapsed durations (ascending) whose reaching turns a comparison."""

    mark: int
    offsets: tuple[Duration, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """Any other comparison: its windows, and the difference of its sides if time enters."""

    windows: tuple[Window, ...]
    difference: Callable[[Any, int], Any] | None
    code: str = ""
    """The difference as Python."""


@dataclass(frozen=True, slots=True)
class Turns:
    """All comparisons that time can turn, and what makes segments stay."""

    falls: tuple[Fall, ...]
    rises: tuple[Rise, ...]
    steps: tuple[Step, ...]
    stays: Sequence[tuple[Duration, ...]]
    """The `min_stay` of each scheme's segments and its default."""


After = Callable[[Profile, Instant], Instant]
"""No comparison turns after an instant and before the result, for a profile that has been moved to that instant."""

_RISE = """
 mark = marks[{mark}]
 if mark is not None:
  place = bisect_right({offsets}, T - mark)
  if place < {size}:
   at = mark + {offsets}[place]
   if at < nearest: nearest = at"""
_FALL = """
 total = totals[{slot}]
 if total >= {least}:
  rows = p.rows[{series}]
  place = p.positions[{window}]
  if (rows[0][place] + 1) * {tile} + {length} < nearest:
   at = falls_below({name}, rows, {column}, place, total, {limits}[bisect_right({limits}, total) - 1])
   if at < nearest: nearest = at"""
_STEP = """
 at = step_after({name}, p, T)
 if at < nearest: nearest = at"""


_STAY = """
 stay = {stays}[p.segments[{place}]]
 if stay:
  at = p.entered[{place}] + stay
  if T < at < nearest: nearest = at"""


def compile_after(turns: Turns) -> After:
    """The function that asks all of them, as straight-line code: it runs for every event."""
    constants: dict[str, Any] = {
        "bisect_right": bisect_right, "falls_below": falls_below, "step_after": _step_after, "NEVER": NEVER,
        "LAST_INSTANT": LAST_INSTANT,
    }  # fmt: skip

    def constant(value: Any) -> str:
        name = f"c{len(constants)}"
        constants[name] = value
        return name

    parts = ["def after(p, T):\n nearest = NEVER; marks = p.marks; totals = p.totals"]
    parts += [_RISE.format(mark=one.mark, offsets=constant(one.offsets), size=len(one.offsets)) for one in turns.rises]
    parts += [
        _FALL.format(
            slot=one.slot, least=one.limits[0], series=one.window.series, window=one.window.index,
            tile=one.window.tile, length=one.window.length, name=constant(one.window), column=one.column,
            limits=constant(one.limits),
        )
        for one in turns.falls
    ]  # fmt: skip
    parts += [_STAY.format(stays=constant(one), place=place) for place, one in enumerate(turns.stays) if any(one)]
    parts += [_STEP.format(name=constant(one)) for one in turns.steps]
    parts.append("\n return nearest if nearest <= LAST_INSTANT else NEVER")
    exec(compile("".join(parts), "<after>", "exec"), constants)  # noqa: S102 - ours
    after: After = constants["after"]
    return after


def _step_after(step: Step, profile: Profile, now: Instant) -> Instant:
    nearest = NEVER
    for window in step.windows:
        nearest = min(nearest, next_leaving(window, profile.rows[window.series], profile.positions[window.index]))
    if step.difference is None:
        return nearest
    here: Exact | None
    here, there = step.difference(profile, now), step.difference(profile, now + 1)
    if here is None or there is None or here == there:
        return nearest
    slope = there - here
    if here == 0:
        return now + 1
    if (here > 0) != (slope > 0):
        meeting: int = now + ceil(Fraction(-here) / slope)
        return min(nearest, meeting)
    return nearest


def sort_turns(
    scope: Scope, layout: Layout, crossings: Iterable[Crossing], stays: Sequence[tuple[Duration, ...]]
) -> Turns:
    """Sorts comparisons into those three kinds, equal ones kept once."""
    windows = {(window.series, window.length): window for window in layout.windows}
    falls: dict[int, tuple[Term, set[int]]] = {}
    rises: dict[int, set[Duration]] = {}
    steps: dict[tuple[str, str], Step] = {}
    for crossing in crossings:
        left, right = crossing.left, crossing.right
        if left.elapsed is not None and isinstance(right.literal, int):
            rises.setdefault(left.elapsed, set()).update(_offsets(crossing.operator, right.literal))
        elif left.total is not None and isinstance(right.literal, int | Fraction):
            falls.setdefault(left.total.slot, (left, set()))[1].update(_limits(crossing.operator, right.literal))
        elif (left.code, right.code) not in steps:
            steps[left.code, right.code] = _step(scope, crossing, windows)
    return Turns(
        tuple(_fall(term, limits, windows) for term, limits in falls.values() if limits),
        tuple(Rise(mark, tuple(sorted(offsets))) for mark, offsets in rises.items()),
        tuple(steps.values()),
        stays,
    )


def _offsets(sign: str, threshold: Duration) -> set[Duration]:
    """At which elapsed time `elapsed sign threshold` turns: `>= D` at D, `> D` one millisecond later."""
    match sign:
        case ">=" | "<":
            return {threshold}
        case ">" | "<=":
            return {threshold + 1}
        case _:
            return {threshold, threshold + 1}


def _limits(sign: str, threshold: int | Fraction) -> set[int]:
    """Undershooting which whole number turns `total sign threshold`; a limit of zero is never undershot."""
    above = floor(threshold) + 1
    match sign:
        case ">=" | "<":
            limits = {ceil(threshold)}
        case ">" | "<=":
            limits = {above}
        case _:
            limits = {above, ceil(threshold)}
    return {limit for limit in limits if limit > 0}


def _fall(term: Term, limits: set[int], windows: dict[WindowKey, Window]) -> Fall:
    assert term.total is not None
    return Fall(term.total.slot, windows[term.total.key], term.total.column, tuple(sorted(limits)))


def _step(scope: Scope, crossing: Crossing, windows: dict[WindowKey, Window]) -> Step:
    left, right = crossing.left, crossing.right
    own = tuple(windows[key] for key in sorted(left.windows | right.windows))
    if not left.degree and not right.degree:
        return Step(own, None)
    if Kind.NULL in (left.kind, right.kind):
        return Step(own, None)
    needs = left.uses | right.uses
    code = f"minus({left.code}, {right.code})"
    return Step(own, compile_function(scope, "difference", needs, code), code)
