"""Expressions of the reference model: a recursive-descent parser into nodes, and their value.

Shares no code with the product. A node is a tuple ("kind", part, ...), in which the parts that are
tuples are nodes. What the published semantics leave open is decided like this: `a == b` of two nulls is
false, only the literal `null` asks for null; kinds (number, string, boolean) are never equal to each
other, so `!=` between them is true and an ordering is false, as it is between booleans; `not` of anything
but true is true.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

Node = tuple[Any, ...]
Value = Fraction | str | bool | None  # numbers, money in major units and durations in ms are all Fractions

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
DURATION = r"\d+(?:ms|[smhdw])\b"


@dataclass(eq=False)
class Term:
    """Holds one aggregate of an expression, as `count(page_view where category == "shoes", 7d)`."""

    function: str
    type: str
    field: str
    where: Node | None
    window: int | None  # ms; None: no window, or `all`


class Parser:
    """A recursive-descent parser of one expression."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def take(self, pattern: str) -> str | None:
        """Step over the pattern, after blanks, and give what it matched; None if it does not stand here."""
        match = re.compile(r"\s*(" + pattern + ")").match(self.text, self.at)
        if match:
            self.at = match.end()
            return match[1]
        return None

    def need(self, pattern: str) -> str:
        """As `take`, but the pattern must stand here."""
        found = self.take(pattern)
        assert found is not None, f"expected {pattern} at {self.at} of {self.text}"
        return found

    def whole(self) -> Node:
        """Parse the whole text."""
        node = self.either()
        self.need(r"\Z")
        return node

    def either(self) -> Node:
        node = self.both()
        while self.take(r"or\b"):
            node = ("or", node, self.both())
        return node

    def both(self) -> Node:
        node = self.negation()
        while self.take(r"and\b"):
            node = ("and", node, self.negation())
        return node

    def negation(self) -> Node:
        return ("not", self.negation()) if self.take(r"not\b") else self.comparison()

    def comparison(self) -> Node:
        operands, operators = [self.sum()], []
        if self.take(r"in\b"):
            return ("in", operands[0], *self.items())
        while operator := self.take("==|!=|<=|>=|<|>"):
            operators.append(operator)
            operands.append(self.sum())
        return ("compare", operators, *operands) if operators else operands[0]

    def items(self) -> list[Node]:
        self.need(r"\[")
        nodes = [self.sum()]
        while self.take(","):
            nodes.append(self.sum())
        self.need(r"\]")
        return nodes

    def sum(self) -> Node:
        node = self.product()
        while operator := self.take("[+-]"):
            node = ("arithmetic", operator, node, self.product())
        return node

    def product(self) -> Node:
        node = self.unary()
        while operator := self.take("[*/]"):
            node = ("arithmetic", operator, node, self.unary())
        return node

    def unary(self) -> Node:
        if self.take("-"):
            return ("arithmetic", "-", ("value", Fraction(0)), self.unary())
        return self.atom()

    def atom(self) -> Node:
        if self.take(r"\("):
            node = self.either()
            self.need(r"\)")
            return node
        if duration := self.take(DURATION):
            return ("value", Fraction(milliseconds(duration)))
        if number := self.take(r"\d+(?:\.\d+)?"):
            return ("value", Fraction(number))
        if string := self.take(r'"[^"]*"'):
            return ("value", string[1:-1])
        name = self.need(r"[A-Za-z_]\w*")
        constants = {"true": True, "false": False, "null": None}
        if name in constants:
            return ("value", constants[name])
        return self.call(name) if self.take(r"\(") else ("name", name)

    def call(self, function: str) -> Node:
        selector = self.need(r"[A-Za-z0-9_.-]+")
        if function in ("attr", "segment"):
            self.need(r"\)")
            return (function, selector)
        wanted = ""
        if function in ("sum", "avg", "min", "max", "distinct", "last"):
            selector, _, wanted = selector.rpartition(".")
        where = self.either() if self.take(r"where\b") else None
        window = None
        if function not in ("since", "age", "last"):
            self.need(",")
            window = None if self.take(r"all\b") else milliseconds(self.need(DURATION))
        self.need(r"\)")
        return ("term", Term(function, selector, wanted, where, window))


def milliseconds(duration: str) -> int:
    """Give the length of a duration literal."""
    match = re.fullmatch(r"(\d+)(ms|[smhdw])", duration)
    assert match, f"no duration: {duration}"
    return int(match[1]) * UNITS[match[2]]


def evaluate(node: Node, leaf: Callable[[Node], Value]) -> Value:
    """Give the value of a node; `leaf` gives that of names, terms, attributes and segments."""
    kind, *parts = node
    if kind == "value":
        return parts[0]  # type: ignore[no-any-return]
    if kind == "not":
        return evaluate(parts[0], leaf) is not True
    if kind in ("and", "or"):
        return (all if kind == "and" else any)(evaluate(part, leaf) is True for part in parts)
    if kind == "compare":
        return all(compare(o, *pair, leaf) for o, pair in zip(parts[0], pairs(node), strict=True))
    if kind == "in":
        return any(compare("==", *pair, leaf) for pair in pairs(node))
    if kind == "arithmetic":
        return calculate(parts[0], evaluate(parts[1], leaf), evaluate(parts[2], leaf))
    return leaf(node)


def pairs(node: Node) -> list[tuple[Node, Node]]:
    """Give the pairs of operands which a node compares."""
    if node[0] == "compare":
        return list(pairwise(node[2:]))
    return [(node[1], item) for item in node[2:]] if node[0] == "in" else []


def compare(operator: str, left_node: Node, right_node: Node, leaf: Callable[[Node], Value]) -> bool:
    left, right = evaluate(left_node, leaf), evaluate(right_node, leaf)
    asks_for_null = ("value", None) in (left_node, right_node)
    if (left is None or right is None) and not (asks_for_null and operator in ("==", "!=")):
        return False
    if operator in ("==", "!="):
        return (type(left) is type(right) and left == right) == (operator == "==")
    if type(left) is not type(right) or isinstance(left, bool):
        return False
    below, equal = left < right, left == right  # type: ignore[operator]
    return {"<": below, "<=": below or equal, ">": not (below or equal), ">=": not below}[operator]


def calculate(operator: str, left: Value, right: Value) -> Fraction | None:
    if not isinstance(left, Fraction) or not isinstance(right, Fraction) or (operator == "/" and right == 0):
        return None
    if operator in "+-":
        return left + right if operator == "+" else left - right
    return left * right if operator == "*" else left / right


def nodes(node: Node) -> Iterator[Node]:
    """Give the node and all below it, but for the insides of terms."""
    yield node
    for part in node[1:]:
        if isinstance(part, tuple):
            yield from nodes(part)
