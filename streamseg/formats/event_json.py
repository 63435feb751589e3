"""Events as JSON, the native form: bytes in, an `Event` or a `RejectedEvent` out; nothing else is ever raised.

Reasons are a fixed set, with what each means: `formats/rejection.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import msgspec
from xxhash import xxh3_64_digest

from streamseg.core.errors import RejectedEvent
from streamseg.core.event import CONTROL, FINGERPRINT_BYTES, PROFILE, PURCHASE, REFUND, TYPE_NAME, Event
from streamseg.core.units import CURRENCY, Instant, check_instant, parse_amount, parse_instant

MAX_BYTES = 64 * 1024
MAX_ID_BYTES = 256
SHORT_ID = MAX_ID_BYTES // 4
"""A text of so many characters at most has not too many bytes."""
KNOWN_TYPES = 1_000
"""Types that were checked are remembered, up to so many."""

_NO_AMOUNT = msgspec.Raw(b"")
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCALARS = (str, int, float, bool, type(None))


class _Wire(msgspec.Struct):
    """What an event may hold; unknown fields are ignored."""

    type: str
    customer_id: str
    time: str | int
    id: str | None = None
    order_id: str | None = None
    amount: msgspec.Raw = _NO_AMOUNT
    currency: str | None = None
    props: dict[str, Any] | None = None
    attributes: dict[str, Any] | None = None


_new_event = tuple.__new__
"""Makes an Event in half the time of its constructor."""
_decode = msgspec.json.Decoder(_Wire).decode
_decode_text = msgspec.json.Decoder(str).decode


class EventDecoder:
    """Decodes events for definitions of one currency and its rates."""

    def __init__(self, currency: str, digits: int, rates: Mapping[str, Fraction]) -> None:
        self._currency = currency
        self._digits = digits
        self._rates = rates
        self._types: set[str] = set()

    def decode(self, data: bytes | None, place: str, number: int, latest: Instant | None = None) -> Event:
        """The event in `data`; `place` and `number` name it if it has no id.

        Raises RejectedEvent for anything that is no event, and for one later than `latest` if that is given.
        """
        wire = _read(data)
        type_ = wire.type
        if type_ not in self._types:
            self._check_type(type_)
        customer, time = wire.customer_id, wire.time
        if not (customer.isprintable() and 0 < len(customer) <= SHORT_ID):
            _check_id("customer_id", customer)
        try:
            time = parse_instant(time) if type(time) is str else check_instant(time)  # type: ignore[arg-type]
        except ValueError as error:
            raise RejectedEvent("bad_time", f"time: {error}") from None
        if latest is not None and time > latest:
            raise RejectedEvent("future_time", "time lies too far ahead of the clock")
        name = wire.id
        if name is None:
            name = f"{place}{number}"
        elif not (name.isprintable() and 0 < len(name) <= SHORT_ID):
            _check_id("id", name)
        raw = bytes(wire.amount)
        amount = None if not raw or raw == b"null" else self._amount(raw, wire.currency)
        fingerprint = xxh3_64_digest(name.encode())[:FINGERPRINT_BYTES]
        order = b""
        if type_ == PURCHASE:
            if amount is None:
                raise RejectedEvent("missing_field", "a purchase needs an amount")
            order = fingerprint if wire.order_id is None else _order(wire.order_id)
        elif type_ == REFUND:
            if wire.order_id is None:
                raise RejectedEvent("missing_field", "a refund needs an order_id")
            order = _order(wire.order_id)
        attributes = _attributes(wire.attributes) if type_ == PROFILE else _NOTHING
        props = _NOTHING if wire.props is None else wire.props
        return _new_event(Event, (type_, customer, time, name, fingerprint, order, amount, props, attributes))

    def _check_type(self, type_: str) -> None:
        if TYPE_NAME.fullmatch(type_) is None:
            raise RejectedEvent("bad_type", "type: 1 to 64 of A-Z a-z 0-9 _ . -")
        if type_ in CONTROL:
            raise RejectedEvent("unsupported_type", f"{type_} events are not supported yet")
        if len(self._types) < KNOWN_TYPES:
            self._types.add(type_)

    def _amount(self, raw: bytes, currency: str | None) -> int:
        rate = None if currency is None or currency == self._currency else self._rate(currency)
        try:
            return parse_amount(_amount_text(raw), self._digits, rate)
        except OverflowError as error:
            raise RejectedEvent("out_of_range", str(error)) from None
        except ValueError as error:
            negative = str(error) == "negative amount"
            raise RejectedEvent("negative_amount" if negative else "bad_amount", f"amount: {error}") from None

    def _rate(self, currency: str) -> Fraction:
        rate = self._rates.get(currency)
        if rate is not None:
            return rate
        if CURRENCY.fullmatch(currency) is None:
            raise RejectedEvent("bad_currency", "currency: three letters of ISO 4217")
        raise RejectedEvent("unknown_currency", f"no rate for {currency} in the definitions")


def _read(data: bytes | None) -> _Wire:
    if data is None:
        raise RejectedEvent("null_value", "a record without a value")
    if len(data) > MAX_BYTES:
        raise RejectedEvent("too_large", f"{len(data)} bytes; an event has at most {MAX_BYTES}")
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except msgspec.DecodeError as error:
        empty = not data.strip()
        raise RejectedEvent("empty" if empty else "malformed_json", str(error)) from None
    except UnicodeDecodeError:
        raise RejectedEvent("invalid_utf8", "the value is not UTF-8") from None
    except RecursionError:
        raise RejectedEvent("too_deep", "nested too deeply") from None


def _invalid(message: str) -> RejectedEvent:
    if message.startswith("Expected `object`, got") and "$" not in message:
        return RejectedEvent("not_an_object", message)
    if message.startswith("Object missing"):
        return RejectedEvent("missing_field", message)
    if message.startswith(("Number out of range", "Integer")):
        return RejectedEvent("out_of_range", message)
    return RejectedEvent("wrong_type", message)


def _check_id(field: str, text: str) -> None:
    if not text or len(text.encode()) > MAX_ID_BYTES:
        raise RejectedEvent("bad_id", f"{field}: 1 to {MAX_ID_BYTES} bytes")
    if _CONTROL_CHARACTER.search(text) is not None:
        raise RejectedEvent("bad_id", f"{field}: no control characters")


def _order(text: str) -> bytes:
    _check_id("order_id", text)
    return xxh3_64_digest(text.encode())[:FINGERPRINT_BYTES]


def _amount_text(raw: bytes) -> str:
    if raw[:1] == b'"':
        return raw[1:-1].decode() if b"\\" not in raw else _decode_text(raw)
    if raw[:1] in b"{[tf":
        raise ValueError("neither a number nor a decimal string")
    return raw.decode()


def _attributes(attributes: dict[str, Any] | None) -> Mapping[str, Any]:
    if attributes is None:
        raise RejectedEvent("missing_field", "a profile event needs attributes")
    for name, value in attributes.items():
        if not isinstance(value, _SCALARS):
            raise RejectedEvent("bad_attributes", f"attributes are flat; {name[:40]!r} is not")
    return attributes
