"""Kinds of values in expressions, and the rules for null and for values whose kind is known only at run time.

Numbers are exact: integers and fractions, never floats. Money is a number of minor units. A property or an
attribute may hold anything; it takes part only where its kind fits.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from enum import StrEnum
from fractions import Fraction
from functools import lru_cache
from typing import Any

from streamseg.core.units import format_money


class Kind(StrEnum):
    """What an expression yields."""

    NUMBER = "a number"
    MONEY = "money"
    DURATION = "a duration"
    STRING = "a string"
    BOOL = "a condition"
    NULL = "null"
    ANY = "a property"


Exact = int | Fraction


LIMIT = 10**30
"""Numbers of this size and above are none: exact sums of them would make states of any size."""


@lru_cache(maxsize=8192)
def _shortest(value: float) -> Fraction | None:
    if abs(value) >= LIMIT:
        return None
    return Fraction(repr(value)) if abs(value) * LIMIT >= 1 else Fraction(0)


def number(value: Any) -> Exact | None:
    """The exact number of a JSON number (its shortest decimal text), None for anything else."""
    kind = type(value)
    if kind is int:
        return value if -LIMIT < value < LIMIT else None
    if kind is float:
        return _shortest(value)
    # A stored integer beyond 64 bits is read back as a fraction; what was none before it was stored is none after.
    return value if kind is Fraction and -LIMIT < value < LIMIT else None


def money(value: Any, scale: int) -> Exact | None:
    """Minor units of a JSON number of major units, None for anything else."""
    exact = number(value)
    return None if exact is None else exact * scale


def scalar(value: Any) -> Any:
    """The value of a property; one that is a list or an object is null."""
    return value if isinstance(value, str | int | float) else None


def string(value: Any) -> str | None:
    """The value if it is a string."""
    return value if type(value) is str else None


def truth(value: Any) -> bool | None:
    """The value if it is true or false."""
    return value if type(value) is bool else None


def equal(left: Any, right: Any) -> bool:
    """Equality of two properties: of one kind, and neither null."""
    if type(left) is bool or type(right) is bool:
        return left is right
    exact_left, exact_right = number(left), number(right)
    if exact_left is not None and exact_right is not None:
        return exact_left == exact_right
    return type(left) is str and bool(left == right)


def differs(left: Any, right: Any) -> bool:
    """`!=` of two properties: neither is null and they are not equal."""
    return left is not None and right is not None and not equal(left, right)


_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def ordered(sign: str, left: Any, right: Any) -> bool:
    """`< <= > >=` of two properties: two numbers or two strings, else false."""
    if type(left) is str and type(right) is str:
        return bool(_ORDER[sign](left, right))
    exact_left, exact_right = number(left), number(right)
    if exact_left is None or exact_right is None:
        return False
    return bool(_ORDER[sign](exact_left, exact_right))


def plain_value(value: Any, kind: Kind, digits: int) -> Any:
    """A value as JSON shows it: money as a decimal text of major units, durations in milliseconds."""
    if value is None:
        return None
    if kind is Kind.MONEY:
        return format_money(value, digits)
    if type(value) is Fraction:
        return value.numerator if value.denominator == 1 else float(value)
    return value


def plus(left: Exact | None, right: Exact | None) -> Exact | None:
    """Sum; null if either is."""
    return None if left is None or right is None else left + right


def minus(left: Exact | None, right: Exact | None) -> Exact | None:
    """Difference; null if either is."""
    return None if left is None or right is None else left - right


def times(left: Exact | None, right: Exact | None) -> Exact | None:
    """Product; null if either is."""
    return None if left is None or right is None else left * right


def divided(left: Exact | None, right: Exact | None) -> Exact | None:
    """Exact quotient; null if either is, and by zero."""
    if left is None or not right:
        return None
    quotient = Fraction(left) / right
    return quotient.numerator if quotient.denominator == 1 else quotient
