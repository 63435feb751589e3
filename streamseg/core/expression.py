"""The language of conditions and features: text to a tree, with the place of every part.

or  >  and  >  not  >  comparison (chained), in  >  + -  >  * /  >  unary -  >  literal, name, call, ( )
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal as Choice

from streamseg.core.errors import ExpressionError
from streamseg.core.units import DAY, MILLISECONDS, Duration, parse_duration

Operator = Choice["==", "!=", "<", "<=", ">", ">="]
MIN_WINDOW, MAX_WINDOW = MILLISECONDS["m"], 1095 * DAY
ALL = -1
"""The window that never ends."""
MAX_LENGTH, MAX_DEPTH = 4_000, 40


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression; `start` and `end` are offsets in its text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number literal."""

    value: int | Fraction


@dataclass(frozen=True, slots=True)
class Period(Node):
    """A duration literal, milliseconds."""

    value: Duration


@dataclass(frozen=True, slots=True)
class Text(Node):
    """A string literal."""

    value: str


@dataclass(frozen=True, slots=True)
class Truth(Node):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Null(Node):
    """`null`."""


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A feature, a score, or within `where` a field of the event."""

    name: str


@dataclass(frozen=True, slots=True)
class Selector(Node):
    """Which events: a type, perhaps with a filter; and which of their fields, if any."""

    type: str
    field: str | None
    where: Node | None
    where_text: str


@dataclass(frozen=True, slots=True)
class Aggregate(Node):
    """`count sum avg min max distinct` over a window (milliseconds or `ALL`)."""

    function: str
    selector: Selector
    window: Duration


@dataclass(frozen=True, slots=True)
class Occurrence(Node):
    """`since age last` of a type."""

    function: str
    selector: Selector


@dataclass(frozen=True, slots=True)
class Attribute(Node):
    """`attr(name)`."""

    name: str


@dataclass(frozen=True, slots=True)
class SegmentOf(Node):
    """`segment(scheme)`."""

    scheme: str


@dataclass(frozen=True, slots=True)
class Negative(Node):
    """Unary minus."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    """`+ - * /`."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    """One comparison; a chain is an `and` of these."""

    operator: Operator
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Member(Node):
    """`x in [a, b]`."""

    operand: Node
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not(Node):
    """`not`."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Both(Node):
    """`and` of two or more."""

    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Either(Node):
    """`or` of two or more."""

    operands: tuple[Node, ...]


WINDOWED = ("count", "sum", "avg", "min", "max", "distinct")
OCCURRENCES = ("since", "age", "last")
FUNCTIONS = (*WINDOWED, *OCCURRENCES, "attr", "segment")
KEYWORDS = frozenset({"and", "or", "not", "in", "where", "true", "false", "null"})

_SPACE = re.compile(r"\s*")
_TOKEN = re.compile(
    r"""(?P<number>\d+(?:\.\d+)?)(?P<unit>[A-Za-z_]\w*)?
      | (?P<name>[A-Za-z_]\w*)
      | (?P<string>"(?:[^"\\\n]|\\["\\nt])*"|'(?:[^'\\\n]|\\['\\nt])*')
      | (?P<symbol>==|!=|<=|>=|[<>+\-*/()\[\],])""",
    re.VERBOSE | re.ASCII,
)
_TYPE = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
_FIELD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_ESCAPE = re.compile(r"\\(.)")
_CHARACTER_HINTS = {
    "=": "write == to compare", "!": "write not", "&": "write and", "|": "write or", "%": "write / 100",
    "=>": "write >=",
}  # fmt: skip
_WORD_HINTS = {
    ",": "write numbers without separators, and lists in [..]", ">": "write != for `not equal`",
    "=": "write == to compare",
}  # fmt: skip
_ESCAPED = {"n": "\n", "t": "\t"}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int
    unit: str = ""


def parse(text: str) -> Node:
    """The tree of an expression. Raises ExpressionError with the place of what is wrong."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression is longer than {MAX_LENGTH} characters", 0, 1)
    parser = _Parser(text)
    node = parser.disjunction()
    if parser.token.kind != "end":
        raise parser.unexpected()
    return node


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.depth = 0
        self.previous_end = 0
        self.token = self.scan(0)

    def scan(self, position: int) -> _Token:
        start = self.skip(position)
        if start == len(self.text):
            return _Token("end", "", start, start)
        match = _TOKEN.match(self.text, start)
        if match is None:
            raise self.bad_character(start)
        kind = match.lastgroup if match.lastgroup != "unit" else "number"
        assert kind is not None
        if kind == "name" and match[0] in KEYWORDS:
            kind = "keyword"
        return _Token(kind, match[0], start, match.end(), match["unit"] or "")

    def skip(self, position: int) -> int:
        match = _SPACE.match(self.text, position)
        assert match is not None
        return match.end()

    def bad_character(self, start: int) -> ExpressionError:
        character = self.text[start]
        if character in "\"'":
            return ExpressionError("a string that does not end", start, len(self.text), "close it with the same quote")
        hint = _CHARACTER_HINTS.get(self.text[start : start + 2]) or _CHARACTER_HINTS.get(character)
        if character == ".":
            number = self.text[start + 1 : start + 2].isdigit()
            hint = "a number begins with a digit: 0.5" if number else "a field is read by last(type.field)"
        return ExpressionError(f"unexpected character {character!r}", start, start + 1, hint)

    def advance(self) -> _Token:
        token = self.token
        self.previous_end = token.end
        self.token = self.scan(token.end)
        return token

    def accept(self, *texts: str) -> _Token | None:
        if self.token.kind in ("symbol", "keyword") and self.token.text in texts:
            return self.advance()
        return None

    def expect(self, text: str, hint: str | None = None) -> _Token:
        token = self.accept(text)
        if token is None:
            raise self.unexpected(f"expected {text!r}", hint)
        return token

    def unexpected(self, expected: str = "", hint: str | None = None) -> ExpressionError:
        token = self.token
        found = "the end of the expression" if token.kind == "end" else repr(token.text)
        message = f"{expected}, found {found}" if expected else f"unexpected {found}"
        if hint is None and token.kind == "name" and token.text.lower() in KEYWORDS:
            hint = f"write {token.text.lower()}"
        hint = hint or _WORD_HINTS.get(token.text)
        return ExpressionError(message, token.start, max(token.end, token.start + 1), hint)

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"nested deeper than {MAX_DEPTH}", self.token.start, self.token.start + 1)

    def disjunction(self) -> Node:
        self.enter()
        operands = [self.conjunction()]
        while self.accept("or"):
            operands.append(self.conjunction())
        self.depth -= 1
        return operands[0] if len(operands) == 1 else Either(operands[0].start, self.previous_end, tuple(operands))

    def conjunction(self) -> Node:
        operands = [self.negation()]
        while self.accept("and"):
            operands.append(self.negation())
        return operands[0] if len(operands) == 1 else Both(operands[0].start, self.previous_end, tuple(operands))

    def negation(self) -> Node:
        token = self.accept("not")
        if token is None:
            return self.comparison()
        self.enter()
        operand = self.negation()
        self.depth -= 1
        return Not(token.start, self.previous_end, operand)

    def comparison(self) -> Node:
        left = self.sum()
        if self.accept("in"):
            return self.member(left)
        if self.token.text == "not" and self.token.kind == "keyword":
            raise ExpressionError(
                "'not' stands before a comparison, not in it", self.token.start, self.token.end, "write not (x in [..])"
            )
        links: list[Node] = []
        while operator := self.accept("==", "!=", "<", "<=", ">", ">="):
            right = self.sum()
            links.append(Comparison(left.start, right.end, operator.text, left, right))  # type: ignore[arg-type]
            left = right
        if not links:
            return left
        return links[0] if len(links) == 1 else Both(links[0].start, links[-1].end, tuple(links))

    def member(self, operand: Node) -> Node:
        self.expect("[", "write a list: in [1, 2]")
        items = [self.sum()]
        while self.accept(","):
            items.append(self.sum())
        self.expect("]")
        return Member(operand.start, self.previous_end, operand, tuple(items))

    def sum(self) -> Node:
        left = self.product()
        while operator := self.accept("+", "-"):
            right = self.product()
            left = Arithmetic(left.start, right.end, operator.text, left, right)
        return left

    def product(self) -> Node:
        left = self.sign()
        while operator := self.accept("*", "/"):
            right = self.sign()
            left = Arithmetic(left.start, right.end, operator.text, left, right)
        return left

    def sign(self) -> Node:
        token = self.accept("-")
        if token is None:
            return self.atom()
        self.enter()
        operand = self.sign()
        self.depth -= 1
        return Negative(token.start, operand.end, operand)

    def atom(self) -> Node:
        token = self.token
        if token.kind == "number":
            return self.number()
        if token.kind == "string":
            self.advance()
            return Text(token.start, token.end, unquote(token.text))
        if token.kind == "keyword" and token.text in ("true", "false"):
            self.advance()
            return Truth(token.start, token.end, token.text == "true")
        if token.kind == "keyword" and token.text == "null":
            self.advance()
            return Null(token.start, token.end)
        if token.kind == "name":
            return self.name_or_call()
        if self.accept("("):
            node = self.disjunction()
            self.expect(")")
            return node
        raise self.unexpected("expected a value")

    def number(self) -> Node:
        token = self.advance()
        if not token.unit:
            value = Fraction(token.text)
            return Number(token.start, token.end, value.numerator if value.denominator == 1 else value)
        try:
            return Period(token.start, token.end, parse_duration(token.text))
        except ValueError:
            exponent = token.unit[0] in "eE" and token.unit[1:].isdigit()
            hint = "write the number out" if exponent else duration_hint(token.text)
            raise ExpressionError(f"{token.text!r} is no duration", token.start, token.end, hint) from None

    def name_or_call(self) -> Node:
        token = self.token
        after = self.skip(token.end)
        if self.text[after : after + 1] != "(":
            self.advance()
            return Name(token.start, token.end, token.text)
        if token.text not in FUNCTIONS:
            raise ExpressionError(
                f"there is no function {token.text!r}", token.start, token.end, suggest(token.text, FUNCTIONS)
            )
        return self.call(token.text, token.start, after + 1)

    def call(self, function: str, start: int, inside: int) -> Node:
        if function in ("attr", "segment"):
            return self.named(function, start, inside)
        selector = self.selector(function, inside)
        if function in OCCURRENCES:
            self.expect(")", f"{function}(..) takes no window" if self.token.text == "," else None)
            return Occurrence(start, self.previous_end, function, selector)
        if self.token.text == ")":
            example = f"{function}({selector.type}{'.' + selector.field if selector.field else ''}, 30d)"
            raise ExpressionError(
                f"{function}(..) needs a window", self.token.start, self.token.end, f"such as {example}, or all"
            )
        self.expect(",")
        window = self.window()
        self.expect(")")
        return Aggregate(start, self.previous_end, function, selector, window)

    def named(self, function: str, start: int, inside: int) -> Node:
        begin = self.skip(inside)
        match = _TYPE.match(self.text, begin)
        if match is None:
            quoted = self.text[begin : begin + 1] in ("'", '"')
            hint = "it is written without quotes" if quoted else None
            raise ExpressionError(f"{function}(..) needs a name", begin, begin + 1, hint)
        self.previous_end, self.token = match.end(), self.scan(match.end())
        self.expect(")")
        if function == "attr":
            return Attribute(start, self.previous_end, match[0])
        return SegmentOf(start, self.previous_end, match[0])

    def selector(self, function: str, inside: int) -> Selector:
        begin = self.skip(inside)
        match = _TYPE.match(self.text, begin)
        if match is None:
            quoted = self.text[begin : begin + 1] in ("'", '"')
            hint = "it is written without quotes" if quoted else f"such as {function}(purchase..)"
            raise ExpressionError(f"{function}(..) needs an event type", begin, begin + 1, hint)
        kind, field = self.split(function, match[0], begin)
        self.previous_end, self.token = match.end(), self.scan(match.end())
        where, text = None, ""
        if opened := self.accept("where"):
            where = self.disjunction()
            text = self.text[self.skip(opened.end) : self.previous_end]
        return Selector(begin, self.previous_end, kind, field, where, text)

    def split(self, function: str, text: str, begin: int) -> tuple[str, str | None]:
        if function in ("count", "since", "age"):
            return text, None
        kind, point, field = text.rpartition(".")
        if not point or not kind or _FIELD.fullmatch(field) is None:
            raise ExpressionError(
                f"{function}(..) needs a field of an event type", begin, begin + len(text),
                f"such as {function}({kind or text}.amount{', 30d' if function in WINDOWED else ''})",
            )  # fmt: skip
        return kind, field

    def window(self) -> Duration:
        token = self.advance()
        if token.kind == "name" and token.text == "all":
            return ALL
        if token.kind != "number" or not token.unit:
            raise ExpressionError(
                f"{token.text!r} is no window", token.start, max(token.end, token.start + 1),
                f"write a unit: {token.text}d" if token.text.isdigit() else "a duration such as 30d, or all",
            )  # fmt: skip
        try:
            window = parse_duration(token.text)
        except ValueError:
            hint: str | None = duration_hint(token.text)
            raise ExpressionError(f"{token.text!r} is no duration", token.start, token.end, hint) from None
        if not MIN_WINDOW <= window <= MAX_WINDOW:
            hint = "all is a window without end" if window > MAX_WINDOW else None
            raise ExpressionError("a window is 1m to 1095d long, or all", token.start, token.end, hint)
        return window


def unquote(text: str) -> str:
    """The value of a quoted string literal."""
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), text[1:-1])


def duration_hint(text: str) -> str:
    """How a text that was meant as a duration is written: `30d` for `30 days`."""
    match = re.fullmatch(r"(\d+)[ _]*([A-Za-z]*)", text, re.ASCII)
    if match is not None:
        word = match[2].lower().removesuffix("s") if len(match[2]) > 1 else match[2].lower()
        for unit, words in _UNIT_WORDS.items():
            if word in words:
                return f"write {match[1]}{unit}"
        if not word:
            return f"write a unit: {match[1]}d"
    return "a whole number and one of ms s m h d w, such as 30d"


_UNIT_WORDS = {
    "d": ("d", "day"), "h": ("h", "hr", "hour"), "m": ("min", "minute"), "s": ("s", "sec", "second"),
    "w": ("w", "week", "wk"), "ms": ("msec", "milli", "millisecond"),
}  # fmt: skip


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one, if any is."""
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def suggest(name: str, known: Iterable[str]) -> str | None:
    """`did you mean ...?` for a name that is close to one of the known ones."""
    likely = closest(name, known)
    return None if likely is None else f"did you mean `{likely}`?"
