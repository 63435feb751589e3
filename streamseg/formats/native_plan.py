"""Definitions in the form that the compiled core takes, as far as it can apply them.

Conditions were checked and bound by streamseg.core; here their Python is read, and becomes a tree. What the compiled
core has no word for raises UnsupportedError: then the definitions are applied in Python.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import msgspec

from streamseg.core import ledger, profile
from streamseg.core.definitions import Definitions, SchemeCode
from streamseg.core.expression import ALL
from streamseg.core.layout import COUNT, NUMBERS, SUM, Layout, Tap
from streamseg.core.profile import MAX_TEXT
from streamseg.core.tile import KEPT_BEFORE_WINDOW
from streamseg.core.value import Kind

Node = str | dict[str, Any]
"""As serde reads an enum: the name of a variant, or its name with its content."""
MOST_LOCALS = 40
LARGE = 1 << 50
"""Hundreds of numbers below this, which is what an expression has room for, add up to one of 64 bits."""
MOST_FILTERED = 63
"""Filtered selections that fit into the bits of an order's entry."""

_WHAT = {COUNT: "Count", NUMBERS: "Numbers", SUM: "Sum"}
_SIGNS: dict[type[ast.cmpop], str] = {
    ast.Lt: "Less", ast.LtE: "LessEqual", ast.Gt: "Greater", ast.GtE: "GreaterEqual", ast.NotEq: "NotEqual",
}  # fmt: skip
_ORDERED = {"<": "Less", "<=": "LessEqual", ">": "Greater", ">=": "GreaterEqual"}
_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "Add", ast.Sub: "Subtract", ast.Mult: "Multiply"}
_CALLS = {
    "plus": "Add", "minus": "Subtract", "times": "Multiply", "divided": "Divide", "equal": "Same",
    "differs": "Differs",
}  # fmt: skip
_PLACES = {"V": "Total", "X": "Latest", "A": "Attribute"}
_UNSURE = ("Multiply", "Divide", "Ratio", "Number", "Latest", "Attribute")
"""With one of these an evaluation may come to what only Python knows."""


class UnsupportedError(Exception):
    """The definitions ask for something that the compiled core has no word for."""


class Translator:
    """Reads the Python of expressions."""

    def __init__(self, definitions: Definitions) -> None:
        self.unsure = False
        self._definitions = definitions
        self._constants = definitions.source.constants
        self._places = {local: place for place, (local, _) in enumerate(definitions.source.locals.values())}
        self._named: dict[str, Node] = {}

    def read(self, code: str) -> Node:
        """The tree of an expression."""
        self._named = {}
        return self._node(ast.parse(code, mode="eval").body)

    def _made(self, variant: str, *content: Any) -> Node:
        self.unsure |= variant in _UNSURE
        return {variant: content[0] if len(content) == 1 else list(content)}

    def _node(self, tree: ast.AST) -> Node:
        match tree:
            case ast.Constant(value=None):
                return "Null"
            case ast.Constant(value=bool(value)):
                return self._made("Bool", value)
            case ast.Constant(value=value):
                return self._literal(value)
            case ast.Name(id="M"):
                return "Amount"
            case ast.Name(id=name):
                return self._name(name)
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                self._named[name] = self._node(value)
                return self._named[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return self._made(_OPERATORS[type(op)], self._node(left), self._node(right))
            case ast.BoolOp(op=ast.And(), values=values):
                return self._both([self._node(value) for value in values])
            case ast.BoolOp(op=ast.Or(), values=values):
                return self._made("Or", [self._node(value) for value in values])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return self._made("Not", self._node(operand))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int(value))):
                return self._literal(-value)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._comparison(left, op, right)
            case ast.IfExp():
                return self._choice(tree)
            case ast.Subscript(value=ast.Name(id=name), slice=place):
                return self._place(name, place)
            case ast.Call(func=func, args=args):
                return self._call(ast.unparse(func), args)
        raise UnsupportedError(ast.dump(tree))

    def _literal(self, value: Any) -> Node:
        if isinstance(value, str):
            return self._made("Text", value)
        if isinstance(value, Fraction):
            return self._made("Ratio", *_fits(value.numerator), *_fits(value.denominator))
        if isinstance(value, int):
            self.unsure |= abs(value) >= LARGE
            return self._made("Int", *_fits(value))
        raise UnsupportedError(f"a constant {value!r}")

    def _name(self, name: str) -> Node:
        if name in self._named:
            return self._named[name]
        if name in self._places:
            return self._made("Local", self._places[name])
        if name in self._constants:
            return self._literal(self._constants[name])
        raise UnsupportedError(f"a name {name}")

    def _both(self, nodes: list[Node]) -> Node:
        # A comparison is false of null by itself: guards before it are not needed.
        last = nodes[-1]
        if isinstance(last, dict) and (compared := last.get("Compare") or last.get("Same")):
            nodes = [node for node in nodes if not any(node == {"Not": {"IsNull": side}} for side in compared)]
        return nodes[0] if len(nodes) == 1 else self._made("And", nodes)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Node:
        match op, right:
            case ast.Is(), ast.Constant(value=None):
                return self._made("IsNull", self._node(left))
            case ast.IsNot(), ast.Constant(value=None):
                return self._made("Not", self._made("IsNull", self._node(left)))
            case ast.Is(), ast.Constant(value=True):
                return self._made("IsTrue", self._node(left))
            case ast.Eq(), _:
                return self._made("Same", self._node(left), self._node(right))
        if type(op) not in _SIGNS:
            raise UnsupportedError(ast.dump(op))
        return self._made("Compare", _SIGNS[type(op)], self._node(left), self._node(right))

    def _choice(self, tree: ast.IfExp) -> Node:
        match tree:
            case ast.IfExp(
                test=ast.Compare(
                    left=ast.NamedExpr(value=ast.Subscript(value=ast.Name(id="K"), slice=ast.Constant(value=mark)))
                ),
                body=ast.Constant(value=None),
                orelse=ast.BinOp(left=ast.Name(id="T"), op=ast.Sub()),
            ):
                return self._made("Since", mark)
        return self._made("If", self._node(tree.test), self._node(tree.body), self._node(tree.orelse))

    def _place(self, name: str, place: ast.expr) -> Node:
        match place:
            case ast.Constant(value=int(number)) if name in _PLACES:
                return self._made(_PLACES[name], number)
            case ast.Subscript(value=ast.Name(id="S"), slice=ast.Constant(value=int(number))):
                if self._constants[name] == self._definitions.schemes[number].scheme.names:
                    return self._made("Segment", number)
        raise UnsupportedError(f"{name}[{ast.unparse(place)}]")

    def _call(self, function: str, args: list[ast.expr]) -> Node:
        if function in _CALLS:
            return self._made(_CALLS[function], *map(self._node, args))
        match function, args:
            case "number", [operand]:
                return self._made("Number", self._node(operand))
            case "money", [operand, scale]:
                return self._made("Multiply", self._made("Number", self._node(operand)), self._node(scale))
            case "scalar", [operand]:
                return self._node(operand)
            case "P.get", [ast.Constant(value=str(field))]:
                return self._made("Field", field)
            case "ordered", [ast.Constant(value=str(sign)), left, right]:
                return self._made("Ordered", _ORDERED[sign], self._node(left), self._node(right))
            case "bisect_left", [ast.Name(id=points), operand]:
                return self._made("Below", [_ratio(point) for point in self._constants[points]], self._node(operand))
        raise UnsupportedError(f"{function}(..)")


def _fits(value: int) -> tuple[int]:
    if not -(2**62) < value < 2**62:
        raise UnsupportedError(f"a number {value}")
    return (value,)


def _ratio(value: int | Fraction) -> tuple[int, int]:
    return (*_fits(Fraction(value).numerator), *_fits(Fraction(value).denominator))


def plan(definitions: Definitions) -> bytes:
    """The definitions for the compiled core, as MessagePack. Raises UnsupportedError."""
    return msgspec.msgpack.encode(_plan(definitions))


def _plan(definitions: Definitions) -> dict[str, Any]:
    source, layout = definitions.source, definitions.layout
    if layout.trackers:
        raise UnsupportedError("distinct(..)")
    if len(source.locals) > MOST_LOCALS:
        raise UnsupportedError(f"more than {MOST_LOCALS} features and scores")
    translator = Translator(definitions)
    locals_ = [translator.read(code) for _, code in source.locals.values()]
    schemes = [_scheme(definitions, place, code, translator) for place, code in enumerate(source.schemes)]
    turns = source.turns
    return {
        "hash": definitions.hash,
        "layout_mark": layout.fingerprint,
        "currency": definitions.currency,
        "digits": definitions.digits,
        "refund_window": _fits(definitions.refund_window)[0],
        "max_orders": ledger.MAX_ORDERS,
        "max_waiting_orders": ledger.MAX_WAITING,
        "max_waiting": ledger.MAX_WAITING,
        "remembered_bytes": profile.RING_BYTES,
        "kept_before_window": KEPT_BEFORE_WINDOW,
        "max_text": MAX_TEXT,
        **_layout(layout, translator),
        "locals": locals_,
        "schemes": schemes,
        "worth": _read(source.worth, translator),
        "rises": [{"mark": one.mark, "offsets": list(one.offsets)} for one in turns.rises],
        "falls": [
            {"slot": one.slot, "window": one.window.index, "column": one.column - 1, "limits": list(one.limits)}
            for one in turns.falls
        ],
        "steps": [
            {
                "windows": [window.index for window in one.windows],
                "difference": translator.read(one.code) if one.code else None,
            }
            for one in turns.steps
        ],
        # Whatever is a number of somebody's JSON may be a float, or too large.
        "may_fail": translator.unsure or any(set(tap.fields) - {"amount"} for tap in layout.taps),
    }


def _read(code: str | None, translator: Translator) -> Node | None:
    return None if code is None else translator.read(code)


def _scheme(definitions: Definitions, place: int, code: SchemeCode, translator: Translator) -> dict[str, Any]:
    compiled = definitions.schemes[place]
    shown = [
        {"name": name, "node": translator.read(local), "money": kind is Kind.MONEY}
        for name, (local, kind) in code.values.items()
    ]
    return {
        "name": compiled.scheme.name,
        "names": list(compiled.scheme.names),
        "whens": [translator.read(when) for when in code.whens],
        "stays": [_read(stay, translator) for stay in code.stays],
        "min_stays": [_fits(stay)[0] for stay in compiled.rules.min_stays],
        "values": shown,
        "longest": 0 if compiled.longest == ALL else compiled.longest,
        "endless": compiled.longest == ALL,
    }


def _layout(layout: Layout, translator: Translator) -> Mapping[str, Any]:
    if any(tap.filter is not None and tap.index >= MOST_FILTERED for tap in layout.taps):
        raise UnsupportedError(f"more than {MOST_FILTERED} selections")
    return {
        "taps": [_tap(tap, translator) for tap in layout.taps],
        "by_type": [(name, [tap.index for tap in taps]) for name, taps in layout.by_type.items()],
        "engagement": [tap.index for tap in layout.engagement],
        "series": [
            {
                "tile": one.tile,
                "sums": one.sums,
                "extremes": list(one.extremes),
                "windows": [window.index for window in one.windows],
            }
            for one in layout.series
        ],
        "windows": [
            {
                "series": window.series,
                "length": window.length,
                "tile": window.tile,
                "sums": [(column - 1, slot) for column, slot in window.sums],
                "extremes": [
                    (column - 1 - layout.series[window.series].sums, slot, greatest)
                    for column, slot, greatest in window.extremes
                ],
            }
            for window in layout.windows
        ],
        "totals": list(layout.totals),
        "marks": layout.marks,
        "latest": layout.latest,
        "attributes": sorted(layout.attributes, key=lambda name: layout.attributes[name]),
        "reversible": list(layout.reversible),
    }


def _tap(tap: Tap, translator: Translator) -> dict[str, Any]:
    return {
        "filter": translator.read(tap.filter_code) if tap.filter is not None else None,
        "bit": 1 << tap.index if tap.filter is not None else 0,
        "first_mark": tap.first_mark if tap.first_mark >= 0 else None,
        "last_mark": tap.last_mark if tap.last_mark >= 0 else None,
        "latest": list(tap.latest),
        "fields": list(tap.fields),
        "series": [
            {
                "series": one.series.index,
                "sums": [(_WHAT[what], max(place, 0)) for what, place in one.sums],
                "extremes": list(one.extremes),
            }
            for one in tap.series
        ],
        "forever_sums": [(_WHAT[what], max(place, 0), slot) for what, place, slot in tap.forever_sums],
        "forever_extremes": list(tap.forever_extremes),
        "counts": tap.counts,
    }
