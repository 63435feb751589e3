"""Definitions, ready to be applied: what to keep, how to assign, when time changes anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streamseg.core import expression as ast
from streamseg.core.condition import Binder, Compared, Crossing, Scope, Term, compile_function
from streamseg.core.deadline import After, Turns, compile_after, sort_turns
from streamseg.core.decision import Decide, Evaluator, Rules, compile_decide
from streamseg.core.errors import ExpressionError
from streamseg.core.layout import Layout, LayoutBuilder
from streamseg.core.scheme import Scheme
from streamseg.core.units import DAY, Duration, currency_digits
from streamseg.core.value import Kind

DEFAULT_REFUND_WINDOW = 90 * DAY
MAX_SEGMENTS = 250


@dataclass(frozen=True, slots=True)
class Explained:
    """A comparison for people, with both sides computable."""

    text: str
    operator: str
    left: Evaluator
    left_kind: Kind
    right: Evaluator
    right_kind: Kind


@dataclass(frozen=True, slots=True)
class CompiledSegment:
    """The conditions of one segment."""

    when: tuple[Explained, ...]
    holds: Evaluator


@dataclass(frozen=True, slots=True)
class CompiledScheme:
    """A scheme with its conditions compiled."""

    scheme: Scheme
    segments: tuple[CompiledSegment, ...]
    rules: Rules
    values: Evaluator
    """The named features and scores that the scheme uses, as `plain_value` shows them, by name."""
    longest: Duration
    """Its longest window, `expression.ALL` if one has no end, 0 if it has none."""


@dataclass(frozen=True, slots=True)
class SchemeCode:
    """A scheme's conditions and values as Python."""

    whens: tuple[str, ...]
    stays: tuple[str | None, ...]
    """For each segment, and the default."""
    values: Mapping[str, tuple[str, Kind]]
    """Features and scores that the scheme uses, by name: local and kind."""


@dataclass(frozen=True, slots=True)
class Source:
    """What was compiled, for who compiles it in another way."""

    locals: Mapping[str, tuple[str, str]]
    """Features, what scores stand on (under an empty name), and scores, in their order: local and code."""
    constants: Mapping[str, Any]
    schemes: tuple[SchemeCode, ...]
    worth: str | None
    """A customer's worth."""
    turns: Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """A definitions file, checked and compiled."""

    name: str
    """Of the file."""
    hash: str
    """`sha256:` and the digest of the file."""
    currency: str
    digits: int
    rates: Mapping[str, Fraction]
    """Minor units of the currency for one minor unit of another, exact."""
    refund_window: Duration
    layout: Layout
    schemes: tuple[CompiledScheme, ...]
    decide: Decide
    after: After
    """A lower bound of the next instant at which time alone changes anything (`tile.NEVER` if it never does)."""
    value: Evaluator | None
    """A customer's worth for `segment_value`: RFM's monetary, or the first feature that is money."""
    source: Source

    @property
    def scheme_names(self) -> tuple[str, ...]:
        """Names of the schemes in file order."""
        return tuple(compiled.scheme.name for compiled in self.schemes)


class DefinitionsBuilder:
    """Takes a definitions file piece by piece, in file order. Every piece may raise ExpressionError."""

    def __init__(self, currency: str) -> None:
        self.currency = currency
        self.layout = LayoutBuilder()
        self.scope = Scope(self.layout, currency_digits(currency))
        self._crossings: list[Crossing] = []
        self._schemes: list[tuple[Scheme, list[tuple[_Bound, _Bound | None]]]] = []
        self._monetary: Term | None = None

    def feature(self, name: str, text: str) -> None:
        """Declares a named feature."""
        binder = Binder(self.scope, text)
        term = binder.bind(ast.parse(text))
        self.scope.features[name] = term
        self.scope.hidden[name] = tuple(binder.crossings)

    def score(self, name: str, text: str) -> Term:
        """Checks an input of the RFM scores: `recency`, `frequency` or `monetary`."""
        binder = Binder(self.scope, text)
        term = binder.bind(ast.parse(text))
        wanted = {
            "recency": (Kind.DURATION,),
            "frequency": (Kind.NUMBER,),
            "monetary": (Kind.MONEY, Kind.NUMBER),
        }[name]
        if term.kind not in wanted:
            raise ExpressionError(f"{name} must be {wanted[0]}; this is {term.kind}", 0, len(text))
        if term.degree > 1 or (name != "recency" and term.degree):
            raise ExpressionError("time enters other than linearly", 0, len(text))
        self.scope.hidden[f"rfm.{name}"] = tuple(binder.crossings)
        return term

    def scores(self, recency: Term, frequency: Term, monetary: Term, cuts: Mapping[str, tuple[Any, ...]]) -> None:
        """Declares `r`, `f` and `m` by four ascending cut points each (durations in ms; money in major units)."""
        scope = self.scope
        self._monetary = monetary if monetary.kind is Kind.MONEY else None
        scale = scope.scale if monetary.kind is Kind.MONEY else 1
        by_input = {
            "recency": (recency, cuts["recency"]),
            "frequency": (frequency, cuts["frequency"]),
            "monetary": (monetary, tuple(_plain(Fraction(cut) * scale) for cut in cuts["monetary"])),
        }
        scope.recency = recency.code
        hidden: dict[str, tuple[Crossing, ...]] = {}
        for name, (term, points) in by_input.items():
            own = [Crossing(">", term, _literal(scope, term.kind, point)) for point in points]
            hidden[name] = (*scope.hidden[f"rfm.{name}"], *own)
        for score, name, first, sign in (
            ("r", "recency", 5, "-"),
            ("f", "frequency", 1, "+"),
            ("m", "monetary", 1, "+"),
        ):
            term, points = by_input[name]
            value = "q" if term is recency else term.code
            above = f"{first} {sign} bisect_left({scope.constant(points)}, {value})"
            # A null input is above no cut; only a null recency makes the scores null.
            lowest = f"{first} if {term.code} is None else " if term.nullable and term is not recency else ""
            code = f"(None if q is None else {lowest}{above})"
            uses = recency.uses | term.uses
            scope.scores[score] = Term(kind=Kind.NUMBER, code=code, nullable=True, uses=uses)
            scope.hidden[score] = hidden["recency"] if score == "r" else (*hidden[name], *hidden["recency"])

    def condition(self, text: str) -> _Bound:
        """Checks a condition."""
        binder = Binder(self.scope, text)
        term = binder.condition(ast.parse(text))
        self._crossings += binder.crossings
        needs = frozenset(binder.uses) | term.uses
        return _Bound(text, term, needs, tuple(binder.compared), tuple(binder.crossings))

    def scheme(self, scheme: Scheme, conditions: list[tuple[_Bound, _Bound | None]]) -> None:
        """Adds a scheme with the bound conditions (`when`, `stay_when`) of its segments."""
        self.scope.schemes[scheme.name] = (len(self._schemes), scheme.names)
        self._schemes.append((scheme, conditions))

    def build(self, *, name: str, digest: str, rates: Mapping[str, Fraction], refund_window: Duration) -> Definitions:
        """The definitions."""
        layout = self.layout.build()
        schemes = tuple(_compile(self.scope, scheme, conditions) for scheme, conditions in self._schemes)
        turns = sort_turns(self.scope, layout, self._crossings, [one.rules.min_stays for one in schemes])
        worth = self._worth()
        return Definitions(
            name=name,
            hash=digest,
            currency=self.currency,
            digits=self.scope.digits,
            rates=rates,
            refund_window=refund_window,
            layout=layout,
            schemes=schemes,
            decide=compile_decide(self.scope, [compiled.rules for compiled in schemes], self._needed()),
            after=compile_after(turns),
            value=None if worth is None else compile_function(self.scope, "worth", worth.needs, worth.text),
            source=self._source(worth, turns),
        )

    def _source(self, worth: _Code | None, turns: Turns) -> Source:
        scope = self.scope
        names: dict[str, tuple[str, str]] = {}
        for name, (local, term) in _named(scope).items():
            if name in scope.scores:
                names.setdefault("", ("q", scope.recency))
            names[name] = (local, term.code)
        schemes = tuple(_scheme_code(scope, conditions) for _, conditions in self._schemes)
        return Source(names, dict(scope.constants), schemes, None if worth is None else worth.text, turns)

    def _needed(self) -> frozenset[str]:
        """Features and scores that any `when` uses."""
        return frozenset().union(*(when.needs for _, conditions in self._schemes for when, _ in conditions))

    def _worth(self) -> _Code | None:
        money = [term for term in self.scope.features.values() if term.kind is Kind.MONEY]
        term = self._monetary or next(iter(money), None)
        if term is None:
            return None
        return _Code(term.code, term.uses | self._names_of(term))

    def _names_of(self, term: Term) -> frozenset[str]:
        return frozenset(name for name in self.scope.features if f"f_{name}" in term.code)


@dataclass(frozen=True, slots=True)
class _Code:
    """An expression as Python, with the features and scores that it stands on."""

    text: str
    needs: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Bound:
    """A condition that was checked."""

    text: str
    term: Term
    needs: frozenset[str]
    compared: tuple[Compared, ...]
    crossings: tuple[Crossing, ...]


def _plain(value: Fraction) -> int | Fraction:
    return value.numerator if value.denominator == 1 else value


def _literal(scope: Scope, kind: Kind, value: int | Fraction) -> Term:
    return Term(kind=kind, code=scope.constant(value), literal=value)


def _compile(scope: Scope, scheme: Scheme, conditions: list[tuple[_Bound, _Bound | None]]) -> CompiledScheme:
    segments = tuple(_compile_segment(scope, when) for when, _ in conditions)
    stays = tuple(None if stay is None else _compile_condition(scope, "stays", stay) for _, stay in conditions)
    rules = Rules(
        tuple(when.term.code for when, _ in conditions),
        (*stays, None),
        (*(segment.min_stay for segment in scheme.segments), 0),
    )
    return CompiledScheme(scheme, segments, rules, _values(scope, _used(conditions)), _longest(conditions))


def _used(conditions: list[tuple[_Bound, _Bound | None]]) -> frozenset[str]:
    """Features and scores that conditions stand on."""
    return frozenset().union(*(bound.needs for pair in conditions for bound in pair if bound is not None))


def _scheme_code(scope: Scope, conditions: list[tuple[_Bound, _Bound | None]]) -> SchemeCode:
    used = _used(conditions)
    stays = [None if stay is None else stay.term.code for _, stay in conditions]
    values = {name: (local, term.kind) for name, (local, term) in _named(scope).items() if name in used}
    return SchemeCode(tuple(when.term.code for when, _ in conditions), (*stays, None), values)


def _compile_condition(scope: Scope, name: str, bound: _Bound) -> Evaluator:
    return compile_function(scope, name, bound.needs, bound.term.code)


def _compile_segment(scope: Scope, when: _Bound) -> CompiledSegment:
    explained = tuple(_explained(scope, one, when.needs) for one in when.compared)
    return CompiledSegment(explained, _compile_condition(scope, "holds", when))


def _explained(scope: Scope, compared: Compared, needs: frozenset[str]) -> Explained:
    left = compile_function(scope, "left", needs, compared.left.code)
    right = compile_function(scope, "right", needs, compared.right.code)
    return Explained(compared.text, compared.operator, left, compared.left.kind, right, compared.right.kind)


def _named(scope: Scope) -> dict[str, tuple[str, Term]]:
    """Features and scores by name: local and term."""
    return {
        **{name: (f"f_{name}", term) for name, term in scope.features.items()},
        **{name: (f"s_{name}", term) for name, term in scope.scores.items()},
    }


def _values(scope: Scope, used: frozenset[str]) -> Evaluator:
    shown = ", ".join(
        f"{name!r}: {_shown(scope, local, term)}" for name, (local, term) in _named(scope).items() if name in used
    )
    return compile_function(scope, "values", used, f"{{{shown}}}")


def _shown(scope: Scope, local: str, term: Term) -> str:
    """Code of a value as JSON shows it; shorter than `plain_value` where the value is plain already."""
    if term.kind is Kind.DURATION or local.startswith("s_") or (term.kind is Kind.NUMBER and term.total is not None):
        return local
    if term.kind is Kind.MONEY and not term.nullable:
        return f"format_money({local}, {scope.digits})"
    return f"plain_value({local}, {scope.constant(term.kind)}, {scope.digits})"


def _longest(conditions: list[tuple[_Bound, _Bound | None]]) -> Duration:
    """The longest window that a scheme reads, as far as its comparisons tell."""
    lengths = {
        length
        for pair in conditions
        for bound in pair
        if bound is not None
        for crossing in bound.crossings
        for _, length in crossing.left.windows | crossing.right.windows
    }
    return max(lengths, default=0)
