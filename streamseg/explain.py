"""Why a customer is in a segment: every condition with its value, its threshold and how far it is from turning.

A customer's state comes from the changelog (`read_profile`) or from a replay of files (`replay_profile`);
`explain` turns it into an `Explanation`, which is shown (`show`) or written as JSON (`explanation_data`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from rich.console import Console
from rich.text import Text

from streamseg.core import expression as ast
from streamseg.core.assignment import NO_FORECAST, Forecast, forecast
from streamseg.core.definitions import CompiledScheme, CompiledSegment, Definitions, Explained
from streamseg.core.errors import InputError
from streamseg.core.profile import UNSET, Profile, advance
from streamseg.core.tile import NEVER
from streamseg.core.units import MILLISECONDS, Duration, Instant, format_instant, format_money
from streamseg.core.value import Kind, differs, equal, money, number, ordered
from streamseg.formats import state as records
from streamseg.formats.messages import encode_json
from streamseg.inputs import read_lines
from streamseg.replay import Replay
from streamseg.tail import connected, partitions_of, printable
from streamseg.worker.fetches import Record
from streamseg.worker.loading import Loaded
from streamseg.worker.settings import Names


class UnknownCustomerError(InputError):
    """Nothing is known of the customer."""


@dataclass(frozen=True, slots=True)
class Known:
    """A customer's profile, and the instant to explain it at."""

    customer: str
    profile: Profile
    at: Instant


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a condition."""

    text: str
    holds: bool
    subject: str
    """What is compared: `orders`."""
    value: str
    """What it is now: `4`; money in major units with its currency."""
    needs: str
    """The operator and the threshold: `>= 5`."""
    margin: str | None
    """How far the comparison is from turning; None where that cannot be measured."""

    def __str__(self) -> str:
        margin = f": {self.margin}" if self.margin else ""
        return f"{self.subject} = {self.value}, needs {self.needs}{margin}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentView:
    """One segment of a scheme, seen from a customer."""

    name: str
    when: str | None
    """None for the default."""
    holds: bool
    comparisons: tuple[Comparison, ...] = ()
    stay_when: str | None = None
    stays: bool | None = None
    min_stay: str | None = None
    action: str | None = None
    owner: str | None = None
    missing: tuple[str, ...] = ()
    """For a segment above the customer's: all that would have to come true to get in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeView:
    """One scheme, seen from a customer."""

    scheme: str
    owner: str | None
    segment: str | None
    since: Instant | None
    next_change_at: Instant | None
    next_segment: str | None
    held_by: tuple[str, ...]
    """What keeps the customer in a segment whose `when` no longer holds."""
    segments: tuple[SegmentView, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All schemes, seen from one customer at one instant."""

    customer: str
    at: Instant
    version: int
    definitions: str
    schemes: tuple[SchemeView, ...]


# Where the profile comes from


def replay_profile(
    definitions: Definitions, customer: str, events: Sequence[str], until: Instant | None, at: Instant | None
) -> Known:
    """The customer after a replay of files (`-` is standard input), at the clock, or at `at` after it.

    Raises UnknownCustomerError when no accepted event is of the customer, InputError for an `at` in the past.
    """
    replay = Replay(definitions, lambda _: None)
    replay.run(read_lines(events), until)
    profile = replay.profiles.get(customer)
    if profile is None:
        raise UnknownCustomerError(
            f"customer {customer!r} is unknown: none of {replay.lines:,} lines is an event of it"
        )
    return Known(customer, profile, _instant(max(replay.segmenter.clock, profile.at), at))


def read_profile(
    definitions: Definitions, customer: str, kafka: Sequence[str], names: Names, group: str, at: Instant | None
) -> Known:
    """The customer as the workers of a group last wrote it, now, or at `at`.

    Raises UnknownCustomerError when the changelog has no state of the customer, InputError when there is no
    changelog or it was made with other definitions, TryAgainError when no broker answers.
    """
    loaded = asyncio.run(_load(customer.encode(), list(kafka), names.changelog(group)))
    for each in loaded:
        _check_definitions(each, definitions, group)
    states = [state for each in loaded for _, state in each.states.items()]
    if not states:
        raise UnknownCustomerError(
            f"customer {customer!r} is unknown: {names.changelog(group)} has no state of it. Did it have events, and "
            "are --prefix and --group those of the worker?"
        )
    profile = records.decode_state(max(states, key=records.age), definitions.layout).profile
    return Known(customer, profile, _instant(profile.at, at if at is not None else max(profile.at, wall_clock())))


def wall_clock() -> Instant:
    """Now."""
    return time.time_ns() // 1_000_000


def _instant(earliest: Instant, at: Instant | None) -> Instant:
    if at is not None and at < earliest:
        raise InputError(
            f"the state is of {format_instant(earliest)} and cannot be taken back to {format_instant(at)}: for an "
            "earlier instant, replay the events --until it"
        )
    return earliest if at is None else at


def _check_definitions(loaded: Loaded, definitions: Definitions, group: str) -> None:
    checkpoint = loaded.checkpoint
    if checkpoint is not None and not loaded.empty and checkpoint.definitions != definitions.hash:
        raise InputError(
            f"the state of group {group!r} was made with definitions {checkpoint.definitions}, but "
            f"{definitions.name} is {definitions.hash}: give the file that the worker runs with"
        )


async def _load(key: bytes, kafka: list[str], topic: str) -> list[Loaded]:
    """What each partition of a changelog says of one customer: which of them has it is not known."""
    from streamseg.worker.store import LOAD_SETTINGS, ChangelogLoader

    partitions = await partitions_of(kafka, topic, "correct --prefix or --group, or start a worker")
    async with connected(kafka, **LOAD_SETTINGS) as consumer:
        loader = ChangelogLoader(topic, consumer)
        ends = await loader.ends(partitions)
        loaded = {partition: Loaded() for partition in partitions}
        takes = {partition: _only(key, each) for partition, each in loaded.items()}
        await loader.read(dict.fromkeys(partitions, 0), ends, takes)
    return list(loaded.values())


def _only(wanted: bytes, loaded: Loaded) -> Callable[[Sequence[Record]], None]:
    kept = (wanted, records.CHECKPOINT_KEY, records.FENCE_KEY)
    return lambda taken: loaded.take([record for record in taken if record.key in kept])


# What it means


def explain(definitions: Definitions, known: Known) -> Explanation:
    """Every scheme's segments and conditions for a customer at an instant."""
    profile, at = known.profile, known.at
    ahead = forecast(definitions, profile, profile.at, range(len(definitions.schemes)))
    there = profile.ahead()
    advance(definitions.layout, there, at, compact=False)
    schemes = tuple(
        _Scheme(definitions, compiled, place, there, at).view(ahead.get(place, NO_FORECAST))
        for place, compiled in enumerate(definitions.schemes)
    )
    return Explanation(known.customer, at, profile.version, definitions.hash, schemes)


class _Scheme:
    """One scheme and one customer, whose profile is at the instant."""

    def __init__(
        self, definitions: Definitions, compiled: CompiledScheme, place: int, profile: Profile, at: Instant
    ) -> None:
        self.definitions, self.compiled, self.profile, self.at = definitions, compiled, profile, at
        self.current = profile.segments[place]
        self.entered = profile.entered[place]
        self.values: Mapping[str, Any] = compiled.values(profile, at)

    def view(self, following: Forecast) -> SchemeView:
        scheme, current = self.compiled.scheme, self.current
        segments = [self._segment(place) for place in range(len(scheme.segments))]
        segments.append(SegmentView(name=scheme.default, when=None, holds=True, owner=scheme.owner))
        return SchemeView(
            scheme=scheme.name,
            owner=scheme.owner,
            segment=None if current == UNSET else scheme.names[current],
            since=None if current == UNSET else self.entered,
            next_change_at=None if following.at == NEVER else following.at,
            next_segment=None if following.target == UNSET else scheme.names[following.target],
            held_by=self._held(segments),
            segments=tuple(segments),
        )

    def _segment(self, place: int) -> SegmentView:
        segment, stays = self.compiled.scheme.segments[place], self.compiled.rules.stays[place]
        condition = _Condition(self, self.compiled.segments[place], segment.when)
        above = self.current == UNSET or place < self.current
        return SegmentView(
            name=segment.name,
            when=" ".join(segment.when.split()),
            holds=condition.holds,
            comparisons=condition.comparisons,
            stay_when=None if segment.stay_when is None else " ".join(segment.stay_when.split()),
            stays=None if stays is None else bool(stays(self.profile, self.at)),
            min_stay=format_period(segment.min_stay) if segment.min_stay else None,
            action=segment.action,
            owner=segment.owner or self.compiled.scheme.owner,
            missing=condition.missing() if above and not condition.holds else (),
        )

    def _held(self, segments: Sequence[SegmentView]) -> tuple[str, ...]:
        """What keeps the customer where no `when` does."""
        fits = next(place for place, segment in enumerate(segments) if segment.holds)
        if self.current == UNSET or fits <= self.current:
            return ()
        current, held = segments[self.current], []
        until = self.entered + self.compiled.rules.min_stays[self.current]
        if self.at < until:
            held.append(f"min_stay {current.min_stay} until {format_instant(until)}")
        if current.stays:
            held.append(f"stay_when {current.stay_when}")
        return tuple(held)


class _Leaf(NamedTuple):
    """A part of a condition that is true or false by itself."""

    node: ast.Node
    explained: tuple[Explained, ...]
    """The comparisons it is made of: one, several for a list, none for a property."""
    wanted: bool
    """False inside `not`."""


class _Condition:
    """The `when` of one segment, for one customer."""

    def __init__(self, scheme: _Scheme, compiled: CompiledSegment, text: str) -> None:
        self._scheme = scheme
        self._text = text
        self._tree = ast.parse(text)
        self.holds = bool(compiled.holds(scheme.profile, scheme.at))
        noted = iter(compiled.when)
        self._leaves = {id(leaf.node): leaf for leaf in _leaves(self._tree, noted, wanted=True)}
        seen = (self._comparison(leaf) for leaf in self._leaves.values())
        self.comparisons = tuple(comparison for comparison in seen if comparison is not None)

    def missing(self) -> tuple[str, ...]:
        """All that would have to come true for the condition to hold."""
        needs = self._missing(self._tree, wanted=True)
        return () if needs is None else tuple(needs)

    def _missing(self, node: ast.Node, *, wanted: bool) -> list[str] | None:
        """None if the node is as wanted already."""
        match node:
            case ast.Not(operand=operand):
                return self._missing(operand, wanted=not wanted)
            case ast.Both(operands=operands) | ast.Either(operands=operands):
                needs = [self._missing(operand, wanted=wanted) for operand in operands]
                open_ = [each for each in needs if each is not None]
                if isinstance(node, ast.Both) == wanted:
                    return [text for each in open_ for text in each] or None
                if len(open_) < len(needs):
                    return None
                return ["either " + " or ".join(" and ".join(each) for each in open_)]
            case _:
                comparison = self._comparison(self._leaves[id(node)])
                if comparison is None:
                    return [f"{self._source(node)} needs {_shown_plain(wanted)}"]
                return None if comparison.holds else [str(comparison)]

    def _source(self, node: ast.Node) -> str:
        return " ".join(self._text[node.start : node.end].split())

    def _truth(self, node: ast.Node) -> bool | None:
        """A condition that is no comparison: a named one, or a property; None if that cannot be told."""
        scheme = self._scheme
        match node:
            case ast.Truth(value=value):
                return value
            case ast.Name(name=name):
                return scheme.values.get(name) is True
            case ast.Attribute(name=name):
                return scheme.profile.attributes[scheme.definitions.layout.attributes[name]] is True
            case _:
                return None

    def _comparison(self, leaf: _Leaf) -> Comparison | None:
        """A part of the condition as it is now; inside `not` its opposite, so that what holds is what is wanted."""
        node, wanted = leaf.node, leaf.wanted
        text = ("" if wanted else "not ") + self._source(node)
        sides = [self._sides(each) for each in leaf.explained]
        if isinstance(node, ast.Member):
            holds = any(each.holds for each in sides) == wanted
            items = ", ".join(self._source(item) for item in node.items)
            needs = f"{'' if wanted else 'not '}in [{items}]"
            return Comparison(text, holds, self._source(node.operand), sides[0].left_text, needs, None)
        if isinstance(node, ast.Comparison):
            return self._compared(node, sides[0], text, wanted=wanted)
        truth = self._truth(node)
        if truth is None:
            return None
        return Comparison(text, truth == wanted, self._source(node), _shown_plain(truth), _shown_plain(wanted), None)

    def _compared(self, node: ast.Comparison, sides: _Sides, text: str, *, wanted: bool) -> Comparison:
        literal_left = isinstance(node.left, _LITERALS) and not isinstance(node.right, _LITERALS)
        flipped = literal_left or node.operator != sides.sign
        subject, threshold = (node.right, node.left) if flipped else (node.left, node.right)
        sign, holds = sides.sign if wanted else _OPPOSITE[sides.sign], sides.holds == wanted
        needs = f"{sign} {sides.right_text}"
        if not isinstance(threshold, _LITERALS):
            needs = f"{sign} {self._source(threshold)} = {sides.right_text}"
        return Comparison(text, holds, self._source(subject), sides.left_text, needs, sides.margin(sign, holds=holds))

    def _sides(self, explained: Explained) -> _Sides:
        scheme = self._scheme
        left, right = (side(scheme.profile, scheme.at) for side in (explained.left, explained.right))
        kinds = [explained.left_kind, explained.right_kind]
        if set(kinds) == {Kind.MONEY, Kind.ANY}:  # the property is in major units
            scale = 10**scheme.definitions.digits
            left, right = (
                money(value, scale) if kind is Kind.ANY else value
                for value, kind in zip((left, right), kinds, strict=True)
            )
            kinds = [Kind.MONEY, Kind.MONEY]
        return _Sides(explained.operator, left, kinds[0], right, kinds[1], scheme.definitions)


def _leaves(node: ast.Node, noted: Iterator[Explained], *, wanted: bool) -> Iterator[_Leaf]:
    """The parts of a tree with their comparisons, in the order in which these were noted: as they are written."""
    match node:
        case ast.Not(operand=operand):
            yield from _leaves(operand, noted, wanted=not wanted)
        case ast.Both(operands=operands) | ast.Either(operands=operands):
            for operand in operands:
                yield from _leaves(operand, noted, wanted=wanted)
        case ast.Member(items=items):
            yield _Leaf(node, tuple(next(noted) for _ in items), wanted)
        case ast.Comparison(left=left, right=right):
            for side in (left, right):
                if isinstance(side, _COMPARED):  # such as (a > 1) == true
                    deque(_leaves(side, noted, wanted=True), maxlen=0)
            yield _Leaf(node, (next(noted),), wanted)
        case _:
            yield _Leaf(node, (), wanted)


_COMPARED = (ast.Comparison, ast.Member, ast.Both, ast.Either, ast.Not)
_LITERALS = (ast.Number, ast.Period, ast.Text, ast.Truth, ast.Null, ast.Negative)
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_MEASURED = (Kind.NUMBER, Kind.MONEY, Kind.DURATION)


@dataclass(frozen=True, slots=True)
class _Sides:
    """The two sides of a comparison as they are now."""

    sign: str
    left: Any
    left_kind: Kind
    right: Any
    right_kind: Kind
    definitions: Definitions = field(repr=False)

    @property
    def holds(self) -> bool:
        left, right = self.left, self.right
        if Kind.NULL in (self.left_kind, self.right_kind):
            return (left is None and right is None) == (self.sign == "==")
        if left is None or right is None:
            return False
        if self.sign == "==":
            return equal(left, right)
        return differs(left, right) if self.sign == "!=" else ordered(self.sign, left, right)

    @property
    def left_text(self) -> str:
        return self._shown(self.left, self.left_kind)

    @property
    def right_text(self) -> str:
        return self._shown(self.right, self.right_kind)

    def _shown(self, value: Any, kind: Kind) -> str:
        if kind is Kind.MONEY and value is not None:
            return f"{format_money(value, self.definitions.digits)} {self.definitions.currency}"
        return format_period(value) if kind is Kind.DURATION and value is not None else _shown_plain(value)

    def margin(self, sign: str, *, holds: bool) -> str | None:
        """How far the comparison `sign` is from turning."""
        left, right, kind = number(self.left), number(self.right), self.left_kind
        if kind is Kind.ANY:
            kind = Kind.NUMBER
        if left is None or right is None or kind not in _MEASURED or sign == "!=":
            return None
        gap = abs(Fraction(left) - right)
        if sign == "==":
            return None if holds else f"off by {self._shown(gap, kind)}"
        # The smallest step there is: one of a count, of the minor unit, of a millisecond; of a quotient none.
        step = 1 if type(left) is int and type(right) is int else 0
        if holds:
            spare = gap if sign in ("<=", ">=") else gap - step
            return f"{self._shown(spare, kind)} to spare"
        lacking = gap if sign in ("<=", ">=") else gap + step
        return f"{self._shown(lacking, kind)} {'short' if sign in ('>', '>=') else 'too much'}"


# How it reads


def format_period(duration: Duration | Fraction) -> str:
    """A duration for people: its two longest units, `12d 4h`."""
    size = abs(round(Fraction(duration)))
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, size = divmod(size, MILLISECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return ("-" if duration < 0 else "") + (" ".join(parts[:2]) or "0s")


def _shown_plain(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    exact = number(value)
    if exact is None:
        return printable(encode_json(value).decode())
    if isinstance(exact, int) or exact.denominator == 1:
        return f"{int(exact)}"
    return f"{float(exact):.4f}".rstrip("0").rstrip(".")


def explanation_data(explanation: Explanation) -> bytes:
    """The explanation as one line of JSON."""
    data = asdict(explanation)
    data = {"customer_id": data.pop("customer"), "time": format_instant(data.pop("at")), **data}
    for scheme in data["schemes"]:
        for name in ("since", "next_change_at"):
            scheme[name] = None if scheme[name] is None else format_instant(scheme[name])
    return encode_json(data)


def show(explanation: Explanation, console: Console) -> None:
    """Prints the explanation for people."""
    version = f"version {explanation.version}"
    head = f"customer {printable(explanation.customer)} at {format_instant(explanation.at)}, {version}"
    _print(console, Text(head, "bold"))
    for scheme in explanation.schemes:
        _print(console, Text())
        for line in _scheme_lines(scheme, explanation.at):
            _print(console, line)


def _print(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True, highlight=False)


def _scheme_lines(scheme: SchemeView, at: Instant) -> Iterator[Text]:
    current = next((each for each in scheme.segments if each.name == scheme.segment), None)
    since = "" if scheme.since is None else f" since {format_instant(scheme.since)}"
    yield Text.assemble(f"{scheme.scheme}: ", (scheme.segment or "no segment yet", "bold cyan"), since)
    yield Text(f"  next: {_following(scheme, at)}")
    for held in scheme.held_by:
        yield Text(f"  held by {held}", "yellow")
    if current is not None:
        for label, words in (("action", current.action), ("owner", current.owner)):
            if words:
                yield Text(f"  {label}: {printable(' '.join(words.split()))}")
    for segment in scheme.segments:
        yield from _segment_lines(segment, here=segment is current)


def _following(scheme: SchemeView, at: Instant) -> str:
    when = scheme.next_change_at
    if when is None:
        return "nothing changes by time alone"
    away = f"in {format_period(when - at)}" if when > at else f"due for {format_period(at - when)}"
    return f"{scheme.next_segment} at {format_instant(when)} ({away})"


def _segment_lines(segment: SegmentView, *, here: bool) -> Iterator[Text]:
    pointer = "> " if here else "  "
    if segment.when is None:
        yield Text.assemble(f"{pointer}{_MARKS[True]} ", (segment.name, "bold"), "  default")
        return
    yield Text.assemble(
        pointer, _mark(holds=segment.holds), " ", (segment.name, "bold"), f"  when {printable(segment.when)}"
    )
    for comparison in segment.comparisons:
        yield Text.assemble("      ", _mark(holds=comparison.holds), f" {printable(str(comparison))}")
    if segment.stay_when is not None and segment.stays is not None:
        yield Text.assemble("      ", _mark(holds=segment.stays), f" stay_when {printable(segment.stay_when)}")
    if segment.min_stay is not None:
        yield Text(f"      min_stay {segment.min_stay}")
    for missing in segment.missing:
        yield Text(f"      to get in: {printable(missing)}", "yellow")


_MARKS = {True: "✓", False: "✗"}


def _mark(*, holds: bool) -> tuple[str, str]:
    return _MARKS[holds], "green" if holds else "red"
