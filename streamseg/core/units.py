"""Instants, durations and money: integers with one meaning each.

An instant is milliseconds since 1970-01-01 UTC; a duration is milliseconds; money is a count of the
currency's minor unit.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache

Instant = int
Duration = int

MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
DAY = MILLISECONDS["d"]
LAST_INSTANT = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last instant RFC 3339 can write."""
MAX_AMOUNT = 10**15
"""The largest amount of one event, in minor units: sums of thousands of them still fit in 64 bits."""

DAYS_KEPT, HOURS_KEPT, TEXTS_KEPT = 512, 4_096, 4_096
"""Days and hours whose instants, and instants whose texts are at hand. A stream soon meets the same again, or never:
more would make a worker grow for as long as time goes by, and nothing faster."""

_DURATION = re.compile(r"(\d{1,15})(ms|s|m|h|d|w)", re.ASCII)
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EXACT = Context(prec=200)


def parse_duration(text: str) -> Duration:
    """Milliseconds of a literal such as `30d`. Raises ValueError when it is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: write a whole number and a unit, one of ms s m h d w")
    return int(match[1]) * MILLISECONDS[match[2]]


@lru_cache(maxsize=DAYS_KEPT)
def _midnight(day: str) -> Instant:
    return (date.fromisoformat(day).toordinal() - _EPOCH_DAY) * DAY


def parse_instant(text: str) -> Instant:
    """The instant of an RFC 3339 time with an offset; parts of a millisecond are cut off.

    Raises ValueError when the text is none, or lies before 1970.
    """
    hour = _HOURS.get(text[:14])
    if hour is not None and len(text) in (20, 24) and text[16] == ":" and text[-1] == "Z":
        digits = text[14:16] + text[17:19] + (text[20:23] or "000")
        point = "Z" if len(text) == 20 else "."
        if digits.isdigit() and digits.isascii() and digits[0] < "6" > digits[2] and text[19] == point:
            number = int(digits)
            return hour + number // 100_000 * 60_000 + number % 100_000
    instant = _parse_any(text)
    if text[-1] == "Z":
        if len(_HOURS) > HOURS_KEPT:
            _HOURS.clear()
        _HOURS[text[:14]] = instant - instant % 3_600_000
    return instant


_HOURS: dict[str, Instant] = {}
"""Hours whose text was parsed in full before: most times of a stream share theirs with many others."""


def _parse_any(text: str) -> Instant:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not an RFC 3339 time with an offset, such as 2026-11-21T10:00:00Z")
    day, hours, minutes, seconds, fraction, zulu, sign, offset_hours, offset_minutes = match.groups()
    hour, minute, second = int(hours), int(minutes), int(seconds)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("hour, minute or second out of range")
    instant = _midnight(day) + hour * 3_600_000 + minute * 60_000 + second * 1_000
    if fraction:
        instant += int(fraction[:3].ljust(3, "0"))
    if not zulu:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:
            raise ValueError("offset out of range")
        offset = int(offset_hours) * 3_600_000 + int(offset_minutes) * 60_000
        instant += offset if sign == "-" else -offset
    return check_instant(instant)


def check_instant(instant: Instant) -> Instant:
    """The instant itself. Raises ValueError outside of 1970-01-01 to 9999-12-31."""
    if not 0 <= instant <= LAST_INSTANT:
        raise ValueError("instant out of range: 1970-01-01 to 9999-12-31, milliseconds if an integer")
    return instant


@lru_cache(maxsize=DAYS_KEPT)
def _day_text(day: int) -> str:
    return date.fromordinal(_EPOCH_DAY + day).isoformat()


@lru_cache(maxsize=TEXTS_KEPT)
def format_instant(instant: Instant) -> str:
    """RFC 3339, UTC, three decimals, `Z`: the one form of output."""
    day, rest = divmod(instant, DAY)
    seconds, milliseconds = divmod(rest, 1_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_day_text(day)}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"


def day_of(instant: Instant) -> str:
    """The UTC day as `yyyy-mm-dd`."""
    return _day_text(instant // DAY)


def round_half_even(value: Fraction) -> int:
    """The nearest integer, the even one on a tie."""
    return round(value)


def parse_amount(text: str, digits: int, rate: Fraction | None = None) -> int:
    """Minor units of a decimal text, converted with `rate` if given, rounded half to even.

    `digits` is the number of decimals of the resulting currency. Raises ValueError when the text is no
    finite, non-negative decimal, OverflowError above `MAX_AMOUNT`.
    """
    if text.isdigit() and text.isascii() and rate is None and len(text) < 16:
        minor: int = int(text) * 10**digits
    else:
        minor = _exact_amount(text, digits, rate)
    if minor > MAX_AMOUNT:
        raise OverflowError(f"amount above {MAX_AMOUNT} minor units")
    return minor


def _exact_amount(text: str, digits: int, rate: Fraction | None) -> int:
    whole, point, decimals = text.partition(".")
    if rate is None and point and len(decimals) <= digits and len(whole) < 16 and (whole + decimals).isdigit():
        if not text.isascii() or not whole or not decimals:
            raise ValueError("not a decimal number")
        return int(whole + decimals) * int(10 ** (digits - len(decimals)))
    value = parse_decimal(text)
    if value < 0:
        raise ValueError("negative amount")
    if value.adjusted() > 20:
        raise OverflowError("amount out of range")
    if value.adjusted() < -30:
        return 0
    exact = Fraction(value) * 10**digits
    return round_half_even(exact if rate is None else exact * rate)


_DECIMAL = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,6})?", re.ASCII)


def parse_decimal(text: str) -> Decimal:
    """A decimal number as JSON writes it. Raises ValueError for anything else, and for more than 200 digits."""
    if len(text) > 200 or _DECIMAL.fullmatch(text) is None:
        raise ValueError("not a decimal number")
    try:
        return _EXACT.create_decimal(text)
    except InvalidOperation as error:
        raise ValueError("not a decimal number") from error


def format_money(minor: int | Fraction, digits: int) -> str:
    """Major units with the currency's decimals; more of them only where a quotient needs them (four at most)."""
    if type(minor) is int and minor >= 0 and digits:
        text = str(minor)
        if len(text) <= digits:
            text = text.rjust(digits + 1, "0")
        return f"{text[:-digits]}.{text[-digits:]}"
    value = Fraction(minor)
    extra = 0 if value.denominator == 1 else 4
    scaled = round_half_even(value * 10**extra)
    sign, text = ("-" if scaled < 0 else ""), str(abs(scaled)).rjust(digits + extra + 1, "0")
    places = digits + extra
    if not places:
        return sign + text
    whole, decimals = text[:-places], text[-places:]
    kept = decimals[:digits] + decimals[digits:].rstrip("0")
    return f"{sign}{whole}.{kept}" if kept else sign + whole


# Decimals of the currencies of ISO 4217 that do not have two.
_DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_DIGITS = {code: digits for digits, codes in _DECIMALS.items() for code in codes.split()}
CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


def currency_digits(currency: str) -> int:
    """How many decimals a currency's minor unit has (ISO 4217): EUR 2, JPY 0, KWD 3."""
    return _DIGITS.get(currency, 2)
