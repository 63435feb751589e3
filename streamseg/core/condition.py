"""Expressions become code: each is checked once, when definitions are loaded, and compiled to a Python function.

A `Term` is an expression with its kind, its Python source over a profile, and how it moves with time:
`windows` it reads (they only change when a tile leaves) and `degree` in time (1 for `since` and `age`).
Comparisons are noted down on the way (`Crossing`s): segments change by time alone only where one of them does.
The compiled source is made of names and literals that this module writes; no text of a user gets into it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from streamseg.core import expression as ast
from streamseg.core import value as values
from streamseg.core.errors import ExpressionError
from streamseg.core.event import CONTROL, TYPE_NAME
from streamseg.core.layout import AMOUNT, COUNT, NUMBERS, SUM, Filter, LayoutBuilder, Total
from streamseg.core.profile import estimate
from streamseg.core.units import Duration, format_money
from streamseg.core.value import Kind

NONLINEAR = 99
WindowKey = tuple[int, Duration]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A checked expression. `code` is Python over the names of `_PRELUDE`, `T` and features' locals."""

    kind: Kind
    code: str
    nullable: bool = False
    degree: int = 0
    windows: frozenset[WindowKey] = frozenset()
    uses: frozenset[str] = frozenset()
    """Named features, and scores, that it stands on."""
    literal: Any = None
    total: Total | None = None
    """Set if it is just a total that never rises by time."""
    elapsed: int | None = None
    """Set if it is just the time since a mark: its place."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A comparison that time can turn: `left operator right`; their order is normalised so that a literal is right."""

    operator: str
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison for people: its text and both sides, as terms."""

    text: str
    operator: str
    left: Term
    right: Term


class BrokenNameError(ExpressionError):
    """A name is used whose own declaration is wrong: that was told already, and this is no second mistake."""


@dataclass(slots=True)
class Scope:
    """What names mean while expressions are bound, and what was noted down meanwhile."""

    layout: LayoutBuilder
    digits: int
    features: dict[str, Term] = field(default_factory=dict)
    scores: dict[str, Term] = field(default_factory=dict)
    recency: str = ""
    """The code of what scores stand on; in compiled code it is `q`."""
    hidden: dict[str, tuple[Crossing, ...]] = field(default_factory=dict)
    """Crossings inside features and scores, by their name: they count where the name is used."""
    schemes: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    """Schemes that stand earlier: place and segments' names."""
    own_scheme: str = ""
    """The scheme whose conditions are being bound."""
    later_features: frozenset[str] = frozenset()
    later_schemes: frozenset[str] = frozenset()
    """All names of the file: those not known yet stand later."""
    broken_features: set[str] = field(default_factory=set)
    broken_schemes: set[str] = field(default_factory=set)
    """Declared, but wrong: what refers to them cannot be judged."""
    constants: dict[str, Any] = field(default_factory=dict)

    @property
    def scale(self) -> int:
        """Minor units of a major one."""
        return int(10**self.digits)

    def constant(self, value: Any) -> str:
        """The name of a value in the compiled code; plain integers and strings stand for themselves."""
        if type(value) in (bool, int, str):
            return repr(value)
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name


_FUNCTIONS: dict[str, Any] = {
    "Fraction": Fraction, "bisect_left": bisect_left, "estimate": estimate, "number": values.number,
    "money": values.money, "string": values.string,
    "scalar": values.scalar, "truth": values.truth, "equal": values.equal,
    "differs": values.differs, "ordered": values.ordered, "plus": values.plus, "minus": values.minus,
    "times": values.times, "divided": values.divided,
    "plain_value": values.plain_value, "format_money": format_money,
}  # fmt: skip
_PRELUDE = {
    "V": "p.totals", "K": "p.marks", "X": "p.latest", "A": "p.attributes", "S": "p.segments", "D": "p.distinct",
}  # fmt: skip
_FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_PLAIN = {"+": "plus", "-": "minus", "*": "times", "/": "divided"}


def locals_of(scope: Scope, needs: frozenset[str]) -> list[str]:
    """Lines that set the locals of features and scores which compiled code refers to."""
    lines = [f" f_{feature} = {term.code}" for feature, term in scope.features.items() if feature in needs]
    scores = [f" s_{score} = {term.code}" for score, term in scope.scores.items() if score in needs]
    return [*lines, f" q = {scope.recency}", *scores] if scores else lines


def compile_lines(scope: Scope, name: str, lines: Sequence[str], **names: Any) -> Callable[[Any, int], Any]:
    """A function of profile `p` and instant `T` with these lines as its body; `names` are known to it too."""
    text = "\n".join(lines)
    prelude = [f" {short} = {long}" for short, long in _PRELUDE.items() if f"{short}[" in text]
    source = "\n".join([f"def {name}(p, T):", *prelude, text])
    namespace = {**_FUNCTIONS, **scope.constants, **names}
    exec(compile(source, f"<{name}>", "exec"), namespace)  # noqa: S102 - the source is ours, see above
    function: Callable[[Any, int], Any] = namespace[name]
    return function


def compile_function(scope: Scope, name: str, needs: frozenset[str], code: str) -> Callable[[Any, int], Any]:
    """A function of profile and instant that yields an expression."""
    return compile_lines(scope, name, [*locals_of(scope, needs), f" return {code}"])


class Binder:
    """Checks and translates the trees of one condition or feature; notes crossings and comparisons."""

    def __init__(self, scope: Scope, text: str, *, where: bool = False) -> None:
        self.scope = scope
        self.text = text
        self.where = where
        self.crossings: list[Crossing] = []
        self.compared: list[Compared] = []
        self.uses: set[str] = set()
        self._temporary = 0

    def condition(self, node: ast.Node) -> Term:
        """A term that is true or false."""
        return self._as_truth(self.bind(node), node)

    def bind(self, node: ast.Node) -> Term:
        """The term of a tree. Raises ExpressionError with the place of what does not fit."""
        method = getattr(self, "_" + type(node).__name__.lower())
        term: Term = method(node)
        return term

    def _error(self, message: str, node: ast.Node, hint: str | None = None) -> ExpressionError:
        return ExpressionError(message, node.start, node.end, hint)

    def _temp(self) -> str:
        self._temporary += 1
        return f"t{self._temporary}"

    # Literals and names

    def _number(self, node: ast.Number) -> Term:
        return Term(kind=Kind.NUMBER, code=self.scope.constant(node.value), literal=node.value)

    def _period(self, node: ast.Period) -> Term:
        return Term(kind=Kind.DURATION, code=str(node.value), literal=node.value)

    def _text(self, node: ast.Text) -> Term:
        return Term(kind=Kind.STRING, code=repr(node.value), literal=node.value)

    def _truth(self, node: ast.Truth) -> Term:
        return Term(kind=Kind.BOOL, code=repr(node.value), literal=node.value)

    def _null(self, node: ast.Null) -> Term:  # noqa: ARG002 - one form for all nodes
        return Term(kind=Kind.NULL, code="None", nullable=True)

    def _name(self, node: ast.Name) -> Term:
        if self.where:
            return self._field(node)
        scope, name = self.scope, node.name
        if name in scope.features:
            term = scope.features[name]
            code = term.code if term.literal is not None else f"f_{name}"
        elif name in scope.scores:
            term, code = scope.scores[name], f"s_{name}"
        else:
            raise self._unknown(node)
        self.uses |= term.uses | {name}
        self.crossings += scope.hidden.get(name, ())
        return replace(term, code=code, uses=term.uses | {name})

    def _unknown(self, node: ast.Name) -> ExpressionError:
        scope = self.scope
        if node.name in scope.broken_features:
            return BrokenNameError(f"feature {node.name!r} is wrong", node.start, node.end)
        if node.name in scope.later_features:
            message = f"feature {node.name!r} does not stand earlier in the file"
            return self._error(message, node, "move it above what uses it; a feature cannot use itself")
        if node.name in ("r", "f", "m"):
            message = f"{node.name!r} is a score: there is no rfm: block, or it is used above it"
            return self._error(message, node, "scores are for when: and stay_when:, and need an rfm: block")
        hint = ast.suggest(node.name, [*scope.features, *scope.scores])
        if node.name in ast.FUNCTIONS:
            hint = f"write {node.name}(..)"
        if hint is None:
            hint = "declare it under features: above, or quote it if it is a text"
        return self._error(f"there is no feature {node.name!r}", node, hint)

    def _field(self, node: ast.Name) -> Term:
        if node.name == AMOUNT:
            return Term(kind=Kind.MONEY, code="M", nullable=True)
        return Term(kind=Kind.ANY, code=f"scalar(P.get({node.name!r}))", nullable=True)

    def _attribute(self, node: ast.Attribute) -> Term:
        self._outside(node)
        return Term(kind=Kind.ANY, code=f"A[{self.scope.layout.attribute(node.name)}]", nullable=True)

    def _segmentof(self, node: ast.SegmentOf) -> Term:
        self._outside(node)
        scope = self.scope
        if node.scheme not in scope.schemes:
            raise self._unknown_scheme(node)
        place, names = scope.schemes[node.scheme]
        return Term(kind=Kind.STRING, code=f"{scope.constant(names)}[S[{place}]]", literal=None)

    def _unknown_scheme(self, node: ast.SegmentOf) -> ExpressionError:
        scope, name = self.scope, node.scheme
        if name in scope.broken_schemes:
            return BrokenNameError(f"scheme {name!r} is wrong", node.start, node.end)
        if name == scope.own_scheme:
            return self._error("a scheme cannot refer to itself", node, "its own segment is what is being decided")
        if name in scope.later_schemes:
            return self._error(f"scheme {name!r} does not stand earlier in the file", node, "move it above this one")
        return self._error(f"there is no scheme {name!r}", node, ast.suggest(name, scope.later_schemes))

    def _outside(self, node: ast.Node) -> None:
        if self.where:
            raise self._error("not possible inside where: only fields of the event are", node)

    # Events

    def _tap(self, selector: ast.Selector) -> tuple[str, str]:
        if TYPE_NAME.fullmatch(selector.type) is None:
            raise self._error(f"{selector.type!r} is no event type", selector, "1 to 64 of A-Z a-z 0-9 _ . -")
        if selector.type in CONTROL:
            raise self._error(f"{selector.type!r} is a control event and is not counted", selector)
        if selector.where is None:
            return self.scope.layout.tap(selector.type, "", None)
        binder = Binder(self.scope, self.text, where=True)
        term = binder.condition(selector.where)
        namespace = {**_FUNCTIONS, **self.scope.constants}
        source = f"def passes(P, M):\n return {term.code}"
        exec(compile(source, "<where>", "exec"), namespace)  # noqa: S102 - the source is ours
        filter_: Filter = namespace["passes"]
        return self.scope.layout.tap(selector.type, " ".join(selector.where_text.split()), filter_, term.code)

    def _aggregate(self, node: ast.Aggregate) -> Term:
        self._outside(node)
        tap, window, name = self._tap(node.selector), node.window, node.selector.field or ""
        kind = Kind.MONEY if name == AMOUNT else Kind.NUMBER
        layout = self.scope.layout
        match node.function:
            case "count":
                return self._total(layout.total(tap, window, COUNT, ""), Kind.NUMBER, falls=True)
            case "sum":
                return self._total(layout.total(tap, window, SUM, name), kind, falls=name == AMOUNT)
            case "avg":
                total, numbers = (
                    layout.total(tap, window, SUM, name),
                    layout.total(tap, window, NUMBERS, name),
                )
                code = f"divided(V[{total.slot}], V[{numbers.slot}])"
                return Term(kind=kind, code=code, nullable=True, windows=_windows(total.key))
            case "distinct":
                tracker, slot, key = layout.distinct(tap, window, name)
                code = f"estimate(V[{slot}], D[{tracker}][1])"
                return Term(kind=Kind.NUMBER, code=code, windows=_windows(key))
            case _:
                slot, key = layout.extreme(tap, window, name, greatest=node.function == "max")
                return Term(kind=kind, code=f"V[{slot}]", nullable=True, windows=_windows(key))

    def _total(self, total: Total, kind: Kind, *, falls: bool) -> Term:
        known = total if falls and total.series >= 0 else None
        return Term(kind=kind, code=f"V[{total.slot}]", windows=_windows(total.key), total=known)

    def _occurrence(self, node: ast.Occurrence) -> Term:
        self._outside(node)
        tap, layout = self._tap(node.selector), self.scope.layout
        if node.function == "last":
            name = node.selector.field or ""
            place = layout.latest(tap, name)
            return Term(kind=Kind.MONEY if name == AMOUNT else Kind.ANY, code=f"X[{place}]", nullable=True)
        mark, temp = layout.mark(tap, first=node.function == "age"), self._temp()
        code = f"(None if ({temp} := K[{mark}]) is None else T - {temp})"
        return Term(kind=Kind.DURATION, code=code, nullable=True, degree=1, elapsed=mark)

    # Arithmetic

    def _negative(self, node: ast.Negative) -> Term:
        zero = Term(kind=Kind.NUMBER, code="0", literal=0)
        operand = self.bind(node.operand)
        if operand.kind is Kind.NUMBER and operand.literal is not None:
            return replace(operand, code=self.scope.constant(-operand.literal), literal=-operand.literal)
        if operand.kind in (Kind.DURATION, Kind.MONEY):
            zero = replace(zero, kind=operand.kind)
        return self._combine(node, "-", zero, operand)

    def _arithmetic(self, node: ast.Arithmetic) -> Term:
        return self._combine(node, node.operator, self.bind(node.left), self.bind(node.right))

    def _combine(self, node: ast.Node, sign: str, left: Term, right: Term) -> Term:
        left, right = self._as_exact(left, node), self._as_exact(right, node)
        kind, left, right = self._arithmetic_kind(node, sign, left, right)
        nullable = left.nullable or right.nullable or sign == "/"
        code = f"{_PLAIN[sign]}({left.code}, {right.code})" if nullable else f"({left.code} {sign} {right.code})"
        windows = left.windows | right.windows
        if sign in "+-":
            degree = max(left.degree, right.degree)
        elif sign == "*":
            degree = left.degree + right.degree
        else:
            degree = left.degree if not right.degree else NONLINEAR
        uses = left.uses | right.uses
        return Term(kind=kind, code=code, nullable=nullable, degree=degree, windows=windows, uses=uses)

    def _as_exact(self, term: Term, node: ast.Node) -> Term:
        if term.kind is Kind.ANY:
            return replace(term, kind=Kind.NUMBER, code=f"number({term.code})")
        if term.kind in (Kind.NUMBER, Kind.MONEY, Kind.DURATION):
            return term
        raise self._error(f"cannot calculate with {term.kind}", node)

    def _arithmetic_kind(self, node: ast.Node, sign: str, left: Term, right: Term) -> tuple[Kind, Term, Term]:
        kinds = (left.kind, right.kind)
        number, money, duration = Kind.NUMBER, Kind.MONEY, Kind.DURATION
        if left.kind is right.kind and sign in "+-":
            return left.kind, left, right
        if sign in "+-" and set(kinds) == {number, money}:
            return money, self._as_money(left), self._as_money(right)
        if sign == "*" and number in kinds:
            return (right.kind if left.kind is number else left.kind), left, right
        if sign == "/" and right.kind is number:
            return left.kind, left, right
        if sign == "/" and left.kind is right.kind and left.kind in (money, duration):
            return number, left, right
        if sign == "/" and kinds == (number, money):
            return number, self._as_money(left), right
        words = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
        hint = "write a duration, such as 30d" if duration in kinds and number in kinds else None
        raise self._error(f"cannot {words[sign]} {left.kind} and {right.kind}", node, hint)

    def _as_money(self, term: Term) -> Term:
        """A number of major units as money."""
        scale = self.scope.scale
        if term.kind is Kind.MONEY:
            return term
        if term.kind is Kind.ANY:
            return replace(term, kind=Kind.MONEY, code=f"money({term.code}, {scale})")
        if term.literal is not None:
            exact = Fraction(term.literal) * scale
            minor = exact.numerator if exact.denominator == 1 else exact
            return replace(term, kind=Kind.MONEY, code=self.scope.constant(minor), literal=minor)
        code = f"times({term.code}, {scale})" if term.nullable else f"({term.code} * {scale})"
        return replace(term, kind=Kind.MONEY, code=code, total=None)

    # Conditions

    def _as_truth(self, term: Term, node: ast.Node) -> Term:
        if term.kind is Kind.BOOL:
            return term
        if term.kind is Kind.ANY:
            return Term(kind=Kind.BOOL, code=f"({term.code} is True)", uses=term.uses)
        raise self._error(f"a condition must be true or false; this is {term.kind}", node, "compare it, as in x >= 1")

    def _not(self, node: ast.Not) -> Term:
        operand = self.condition(node.operand)
        return Term(kind=Kind.BOOL, code=f"(not {operand.code})", uses=operand.uses)

    def _both(self, node: ast.Both) -> Term:
        return self._joined("and", node.operands)

    def _either(self, node: ast.Either) -> Term:
        return self._joined("or", node.operands)

    def _joined(self, word: str, nodes: Sequence[ast.Node]) -> Term:
        terms = [self.condition(node) for node in nodes]
        code = "(" + f" {word} ".join(term.code for term in terms) + ")"
        return Term(kind=Kind.BOOL, code=code, uses=frozenset().union(*(term.uses for term in terms)))

    def _member(self, node: ast.Member) -> Term:
        operand = self.bind(node.operand)
        terms = [self._compare(node, "==", operand, self.bind(item), item) for item in node.items]
        code = "(" + " or ".join(term.code for term in terms) + ")"
        return Term(kind=Kind.BOOL, code=code, uses=frozenset().union(*(term.uses for term in terms)))

    def _comparison(self, node: ast.Comparison) -> Term:
        return self._compare(node, node.operator, self.bind(node.left), self.bind(node.right), node.right)

    def _compare(self, node: ast.Node, sign: str, left: Term, right: Term, item: ast.Node) -> Term:
        if left.literal is not None and right.literal is None and right.kind is not Kind.NULL:
            left, right, sign = right, left, _FLIPPED[sign]
        uses = left.uses | right.uses
        if Kind.NULL in (left.kind, right.kind):
            code = self._against_null(node, sign, left, right)
        else:
            left, right = self._comparable(node, sign, left, right, item)
            code = self._comparison_code(sign, left, right)
        self._note(node, sign, left, right)
        return Term(kind=Kind.BOOL, code=code, uses=uses)

    def _note(self, node: ast.Node, sign: str, left: Term, right: Term) -> None:
        if max(left.degree, right.degree) > 1:
            raise self._error(
                "time enters other than linearly, so the instant of the change cannot be computed", node,
                "compare each time with a duration",
            )  # fmt: skip
        if not self.where:
            self.compared.append(Compared(self.text[node.start : node.end], sign, left, right))
        if left.windows or right.windows or left.degree or right.degree:
            self.crossings.append(Crossing(sign, left, right))

    def _against_null(self, node: ast.Node, sign: str, left: Term, right: Term) -> str:
        if sign not in ("==", "!="):
            raise self._error("null is only compared by == and !=", node)
        term = right if left.kind is Kind.NULL else left
        return f"({term.code} is {'not ' if sign == '!=' else ''}None)"

    def _comparable(self, node: ast.Node, sign: str, left: Term, right: Term, item: ast.Node) -> tuple[Term, Term]:
        kinds = {left.kind, right.kind}
        if kinds == {Kind.MONEY, Kind.NUMBER}:
            left, right = self._as_money(left), self._as_money(right)
        elif len(kinds) == 2 and not (Kind.ANY in kinds and Kind.DURATION not in kinds):
            raise self._mismatch(node, left, right, item)
        if sign not in ("==", "!=") and Kind.BOOL in kinds:
            raise self._error("true and false have no order", node)
        self._known_segment(left, right, item)
        return left, right

    def _mismatch(self, node: ast.Node, left: Term, right: Term, item: ast.Node) -> ExpressionError:
        hint = None
        if (left.kind, right.kind) == (Kind.DURATION, Kind.NUMBER) and isinstance(right.literal, int):
            hint = f"write a unit: {right.literal}d"
        elif (left.kind, right.kind) == (Kind.NUMBER, Kind.DURATION) and right.literal is not None:
            hint = "a number has no unit"
        elif isinstance(item, ast.Text) and item.value.isdigit() and left.kind in (Kind.NUMBER, Kind.MONEY):
            hint = "a number is written without quotes"
        return self._error(f"cannot compare {left.kind} with {right.kind}", node, hint)

    def _known_segment(self, left: Term, right: Term, item: ast.Node) -> None:
        for place, names in self.scope.schemes.values():
            if left.code.endswith(f"[S[{place}]]") and isinstance(right.literal, str) and right.literal not in names:
                raise self._error(
                    f"the scheme has no segment {right.literal!r}", item, ast.suggest(right.literal, names)
                )

    def _comparison_code(self, sign: str, left: Term, right: Term) -> str:
        if Kind.ANY in (left.kind, right.kind):
            return self._property_code(sign, left, right)
        guards, sides = [], []
        for term in (left, right):
            if term.nullable and term.code.isidentifier():
                guards.append(f"{term.code} is not None")
                sides.append(term.code)
            elif term.nullable:
                temp = self._temp()
                guards.append(f"({temp} := {term.code}) is not None")
                sides.append(temp)
            else:
                sides.append(term.code)
        return "(" + " and ".join([*guards, f"{sides[0]} {sign} {sides[1]}"]) + ")"

    def _property_code(self, sign: str, left: Term, right: Term) -> str:
        if sign == "==" and isinstance(right.literal, str):
            return f"({left.code} == {right.code})"
        left, right = self._exact_side(left, right), self._exact_side(right, left)
        if sign == "==":
            return f"equal({left.code}, {right.code})"
        if sign == "!=":
            return f"differs({left.code}, {right.code})"
        return f"ordered({sign!r}, {left.code}, {right.code})"

    def _exact_side(self, term: Term, other: Term) -> Term:
        """Money against a property: the property's number is in major units, so the money is brought there."""
        if term.kind is not Kind.MONEY or other.kind is not Kind.ANY:
            return term
        return replace(term, code=f"divided({term.code}, {self.scope.scale})", nullable=True)


def _windows(key: WindowKey) -> frozenset[WindowKey]:
    return frozenset() if key[1] == ast.ALL else frozenset({key})
