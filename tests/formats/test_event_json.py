"""What is an event and what is not, byte by byte."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from typing import Any

import pytest

from streamseg.core.errors import RejectedEvent
from streamseg.core.event import FINGERPRINT_BYTES, Event
from streamseg.core.units import parse_instant
from streamseg.formats.event_json import MAX_BYTES, EventDecoder
from streamseg.formats.rejection import REASONS

RATES = {"USD": Fraction(9, 10), "JPY": Fraction(6, 10)}
DECODER = EventDecoder("EUR", 2, RATES)
NOON = "2026-11-21T12:00:00Z"
VIEW: dict[str, Any] = {"type": "page_view", "customer_id": "c1", "time": NOON}
PURCHASE = VIEW | {"type": "purchase", "id": "e-1", "order_id": "o-1", "amount": "49.90"}
ABSENT = object()


def encoded(event: dict[str, Any], **changes: Any) -> bytes:
    changed = {key: value for key, value in (event | changes).items() if value is not ABSENT}
    return json.dumps(changed, ensure_ascii=False).encode()


def with_amount(raw: bytes) -> bytes:
    """A purchase whose amount is this text of JSON."""
    return encoded(PURCHASE).replace(b'"49.90"', raw)


def decoded(data: bytes, latest: int | None = None) -> Event:
    return DECODER.decode(data, "events/3/", 17, latest)


def reason(data: bytes | None, latest: int | None = None) -> str:
    with pytest.raises(RejectedEvent) as caught:
        DECODER.decode(data, "events/3/", 17, latest)
    assert caught.value.reason in REASONS
    assert len(caught.value.detail) <= 200
    return caught.value.reason


def test_an_event_is_read_field_by_field() -> None:
    event = decoded(encoded(PURCHASE, props={"category": "shoes", "coupon": True}))
    assert (event.type, event.customer, event.name, event.amount) == ("purchase", "c1", "e-1", 4990)
    assert event.time == parse_instant(NOON)
    assert event.props == {"category": "shoes", "coupon": True}


REJECTED: dict[str, tuple[bytes | None, str]] = {
    "a record without a value": (None, "null_value"),
    "no bytes": (b"", "empty"),
    "blanks": (b" \t\r\n", "empty"),
    "bytes that are not UTF-8": (encoded(PURCHASE).replace(b"o-1", b"caf\xe9"), "invalid_utf8"),
    "an overlong form of a character": (encoded(PURCHASE).replace(b"c1", b"c\xc0\xaf"), "invalid_utf8"),
    "a surrogate in UTF-8": (encoded(PURCHASE).replace(b"c1", b"c\xed\xa0\x80"), "invalid_utf8"),
    "an escaped surrogate without its other half": (encoded(PURCHASE).replace(b"c1", b"c\\ud800"), "malformed_json"),
    "text": (b"hello", "malformed_json"),
    "a cut-off event": (encoded(PURCHASE)[:-5], "malformed_json"),
    "something behind the event": (encoded(PURCHASE) + b"x", "malformed_json"),
    "two events": (encoded(PURCHASE) * 2, "malformed_json"),
    "a byte order mark": (b"\xef\xbb\xbf" + encoded(PURCHASE), "malformed_json"),
    "gzip": (gzip.compress(encoded(PURCHASE)), "malformed_json"),
    "Avro of a registry": (b"\x00\x00\x00\x00\x07" + encoded(PURCHASE), "malformed_json"),
    "a raw control character in a text": (encoded(PURCHASE).replace(b"c1", b"c\x07"), "malformed_json"),
    "single quotes": (encoded(VIEW).replace(b'"', b"'"), "malformed_json"),
    "a comma at the end": (encoded(VIEW).replace(b"}", b",}"), "malformed_json"),
    "NaN": (with_amount(b"NaN"), "malformed_json"),
    "Infinity": (with_amount(b"Infinity"), "malformed_json"),
    "-Infinity": (with_amount(b"-Infinity"), "malformed_json"),
    "a plus sign": (with_amount(b"+1"), "malformed_json"),
    "a leading zero": (with_amount(b"007"), "malformed_json"),
    "JSON 20,000 deep": (b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "too_deep"),
    "a list": (b"[1, 2]", "not_an_object"),
    "a string": (b'"purchase"', "not_an_object"),
    "a number": (b"7", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "no type": (encoded(VIEW, type=ABSENT), "missing_field"),
    "no customer": (encoded(VIEW, customer_id=ABSENT), "missing_field"),
    "no time": (encoded(VIEW, time=ABSENT), "missing_field"),
    "an empty object": (b"{}", "missing_field"),
    "a message of Faust's own": (b'{"__faust":{"ns":"@ReqRepRequest"}}', "missing_field"),
    "a purchase without amount": (encoded(PURCHASE, amount=ABSENT), "missing_field"),
    "a purchase with null for an amount": (encoded(PURCHASE, amount=None), "missing_field"),
    "a refund without order": (encoded(VIEW, type="refund"), "missing_field"),
    "a profile without attributes": (encoded(VIEW, type="profile"), "missing_field"),
    "a type that is a number": (encoded(VIEW, type=7), "wrong_type"),
    "a customer that is a number": (encoded(VIEW, customer_id=7), "wrong_type"),
    "a customer that is null": (encoded(VIEW, customer_id=None), "wrong_type"),
    "an id that is a number": (encoded(VIEW, id=7), "wrong_type"),
    "an order that is a list": (encoded(PURCHASE, order_id=[1]), "wrong_type"),
    "a time that is null": (encoded(VIEW, time=None), "wrong_type"),
    "a time that is a fraction": (encoded(VIEW, time=1.5), "wrong_type"),
    "props that are a list": (encoded(VIEW, props=[1]), "wrong_type"),
    "attributes that are a text": (encoded(VIEW, type="profile", attributes="x"), "wrong_type"),
    "a currency that is a number": (encoded(PURCHASE, currency=978), "wrong_type"),
    "a type with a space": (encoded(VIEW, type="page view"), "bad_type"),
    "an empty type": (encoded(VIEW, type=""), "bad_type"),
    "a type of 65 characters": (encoded(VIEW, type="x" * 65), "bad_type"),
    "a type in Cyrillic letters": (encoded(VIEW, type="рurchase"), "bad_type"),
    "a type with a line end": (encoded(VIEW, type="page_view\n"), "bad_type"),
    "a merge": (encoded(VIEW, type="merge", from_id="a"), "unsupported_type"),
    "an erase": (encoded(VIEW, type="erase"), "unsupported_type"),
    "an empty customer": (encoded(VIEW, customer_id=""), "bad_id"),
    "a customer of 257 bytes": (encoded(VIEW, customer_id="x" * 257), "bad_id"),
    "a customer of 260 bytes in 65 characters": (encoded(VIEW, customer_id="😀" * 65), "bad_id"),
    "a customer with a null character": (encoded(VIEW, customer_id="c\x00"), "bad_id"),
    "a customer with a line end": (encoded(VIEW, customer_id="a\r\nSET x"), "bad_id"),
    "a customer with a control character of Latin-1": (encoded(VIEW, customer_id="a\x85b"), "bad_id"),
    "an empty id": (encoded(VIEW, id=""), "bad_id"),
    "an order of 257 bytes": (encoded(PURCHASE, order_id="x" * 257), "bad_id"),
    "a time that is a word": (encoded(VIEW, time="yesterday"), "bad_time"),
    "an empty time": (encoded(VIEW, time=""), "bad_time"),
    "a time without an offset": (encoded(VIEW, time="2026-11-21T12:00:00"), "bad_time"),
    "a day without a time": (encoded(VIEW, time="2026-11-21"), "bad_time"),
    "no such day": (encoded(VIEW, time="2026-02-30T12:00:00Z"), "bad_time"),
    "no such hour": (encoded(VIEW, time="2026-02-03T24:00:00Z"), "bad_time"),
    "a leap second": (encoded(VIEW, time="2016-12-31T23:59:60Z"), "bad_time"),
    "no such offset": (encoded(VIEW, time="2026-02-03T12:00:00+25:00"), "bad_time"),
    "digits of another script": (encoded(VIEW, time="２026-02-03T12:00:00Z"), "bad_time"),
    "a negative time": (encoded(VIEW, time=-1), "bad_time"),
    "a time before 1970": (encoded(VIEW, time="1969-12-31T23:59:59Z"), "bad_time"),
    "a time in microseconds": (encoded(VIEW, time=1_763_726_400_000_000), "bad_time"),
    "an amount with a comma": (encoded(PURCHASE, amount="12,50"), "bad_amount"),
    "an amount with a sign of money": (encoded(PURCHASE, amount="€5"), "bad_amount"),
    "an empty amount": (encoded(PURCHASE, amount=""), "bad_amount"),
    "an amount that is true": (encoded(PURCHASE, amount=True), "bad_amount"),
    "an amount that is an object": (encoded(PURCHASE, amount={}), "bad_amount"),
    "an amount that is a list": (encoded(PURCHASE, amount=[5]), "bad_amount"),
    "NaN as a text": (encoded(PURCHASE, amount="NaN"), "bad_amount"),
    "Infinity as a text": (encoded(PURCHASE, amount="Infinity"), "bad_amount"),
    "an amount with a blank": (encoded(PURCHASE, amount=" 5"), "bad_amount"),
    "an amount with underscores": (encoded(PURCHASE, amount="1_000"), "bad_amount"),
    "an amount in Arabic digits": (encoded(PURCHASE, amount="٥"), "bad_amount"),
    "an amount of 5,000 digits": (with_amount(b"1" * 5_000), "bad_amount"),
    "a negative amount": (encoded(PURCHASE, amount="-0.01"), "negative_amount"),
    "a negative number": (with_amount(b"-5"), "negative_amount"),
    "1e999": (with_amount(b"1e999"), "out_of_range"),
    "an amount of 1e18": (with_amount(b"1e18"), "out_of_range"),
    "an amount of 2**64": (with_amount(b"18446744073709551616"), "out_of_range"),
    "the first amount above the limit": (with_amount(b"10000000000000.01"), "out_of_range"),
    "a time of 10**30": (encoded(VIEW, time=10**30), "bad_time"),
    "a currency of four letters": (encoded(PURCHASE, currency="XXX1"), "bad_currency"),
    "a currency in small letters": (encoded(PURCHASE, currency="usd"), "bad_currency"),
    "an empty currency": (encoded(PURCHASE, currency=""), "bad_currency"),
    "a currency without a rate": (encoded(PURCHASE, currency="GBP"), "unknown_currency"),
    "an attribute that is a list": (encoded(VIEW, type="profile", attributes={"a": [1]}), "bad_attributes"),
    "an attribute that is an object": (encoded(VIEW, type="profile", attributes={"a": {}}), "bad_attributes"),
}


@pytest.mark.parametrize(("data", "expected"), REJECTED.values(), ids=REJECTED)
def test_what_is_no_event_is_rejected_for_its_reason(data: bytes | None, expected: str) -> None:
    assert reason(data) == expected


def test_an_event_has_at_most_64_kilobytes() -> None:
    room = MAX_BYTES - len(encoded(VIEW, props={"note": ""}))
    assert decoded(encoded(VIEW, props={"note": "x" * room})).props["note"] == "x" * room
    assert reason(encoded(VIEW, props={"note": "x" * (room + 1)})) == "too_large"
    assert reason(b"x" * 10_000_000) == "too_large"


def test_an_event_from_too_far_ahead_is_rejected_and_one_at_the_limit_is_not() -> None:
    noon = parse_instant(NOON)
    assert reason(encoded(VIEW), latest=noon - 1) == "future_time"
    assert decoded(encoded(VIEW), latest=noon).time == noon
    assert reason(encoded(VIEW, time="9999-12-31T23:59:59Z"), latest=noon) == "future_time"


AMOUNTS = {
    b"0": 0,
    b"-0": 0,
    b"-0.0": 0,
    b'"-0"': 0,
    b"5e-324": 0,
    b"0.005": 0,
    b"0.015": 2,
    b"0.025": 2,
    b"2.675": 268,
    b"1.005": 100,
    b'"49.90"': 4990,
    b"49.9": 4990,
    b"5": 500,
    b"1e2": 10_000,
    b"1.5E+1": 1500,
    b"12e-1": 120,
    b'"1e2"': 10_000,
    b'"\\u0035"': 500,
    b"10000000000000": 10**15,
    b"0.1000000000000000055511151231257827": 10,
}


@pytest.mark.parametrize(("raw", "minor"), AMOUNTS.items(), ids=[raw.decode() for raw in AMOUNTS])
def test_amounts_are_exact_decimals_rounded_half_to_even(raw: bytes, minor: int) -> None:
    assert decoded(with_amount(raw)).amount == minor


def test_an_amount_in_another_currency_is_converted_and_then_rounded_once() -> None:
    assert decoded(encoded(PURCHASE, currency="USD", amount="10.05")).amount == 904  # 9.045, a tie: to the even 4
    assert decoded(encoded(PURCHASE, currency="USD", amount="10.15")).amount == 914  # 9.135, a tie: to the even 4
    assert decoded(encoded(PURCHASE, currency="EUR")).amount == 4990


def test_a_refund_without_an_amount_has_none_and_one_with_it_has_it() -> None:
    refund = VIEW | {"type": "refund", "order_id": "o-1"}
    assert decoded(encoded(refund)).amount is None
    assert decoded(encoded(refund, amount=None)).amount is None
    assert decoded(encoded(refund, amount="1.50")).amount == 150


TIMES = {
    "2026-11-21T12:00:00Z": 0,
    "2026-11-21t12:00:00z": 0,
    "2026-11-21 12:00:00Z": 0,
    "2026-11-21T12:00:00.000Z": 0,
    "2026-11-21T12:00:00.5Z": 500,
    "2026-11-21T12:00:00.1239Z": 123,
    "2026-11-21T14:00:00+02:00": 0,
    "2026-11-21T06:30:00-05:30": 0,
    "2026-11-22T01:45:00.007+13:45": 7,
}


@pytest.mark.parametrize(("text", "after_noon"), TIMES.items(), ids=TIMES)
def test_times_are_read_with_their_offset_down_to_the_millisecond(text: str, after_noon: int) -> None:
    assert decoded(encoded(VIEW, time=text)).time == parse_instant(NOON) + after_noon


def test_a_time_may_be_milliseconds() -> None:
    assert decoded(encoded(VIEW, time=0)).time == 0
    assert decoded(encoded(VIEW, time=1_763_726_400_123)).time == 1_763_726_400_123


CUSTOMERS = [
    "😀",
    "😀" * 64,
    "x" * 256,
    "a b",
    "../../etc",
    "anna@example.com",
    "Ünïcødé",
    "שלום",
    "a\u200db",
    "7",
    "\ufeff",
]


@pytest.mark.parametrize("customer", CUSTOMERS)
def test_a_customer_id_is_free_text(customer: str) -> None:
    assert decoded(encoded(VIEW, customer_id=customer)).customer == customer


def test_escaped_texts_are_the_same_as_plain_ones() -> None:
    escaped = json.dumps(PURCHASE | {"customer_id": "Zoë 😀", "order_id": "ö"}).encode()
    assert b"\\u" in escaped
    plain = encoded(PURCHASE, customer_id="Zoë 😀", order_id="ö")
    assert decoded(escaped) == decoded(plain)
    assert decoded(escaped).customer == "Zoë 😀"


def test_unknown_fields_are_ignored_however_many() -> None:
    extra = {f"field_{number}": {"nested": [number]} for number in range(1000)}
    assert decoded(encoded(PURCHASE | extra)) == decoded(encoded(PURCHASE))


def test_of_two_equal_keys_the_last_one_counts() -> None:
    assert decoded(encoded(VIEW).replace(b'"c1"', b'"c1","customer_id":"c2"')).customer == "c2"


def test_an_event_without_an_id_is_named_by_its_place_and_its_order_by_the_event() -> None:
    event = decoded(encoded(PURCHASE, id=ABSENT, order_id=ABSENT))
    assert event.name == "events/3/17"
    assert event.order == event.fingerprint
    assert decoded(encoded(PURCHASE, id=None)).name == "events/3/17"


def test_ids_that_differ_have_different_fingerprints() -> None:
    first, second = decoded(encoded(PURCHASE)), decoded(encoded(PURCHASE, id="e-2", order_id="o-2"))
    assert len(first.fingerprint) == len(first.order) == FINGERPRINT_BYTES
    assert (first.fingerprint, first.order) != (second.fingerprint, second.order)
    assert decoded(encoded(PURCHASE)).fingerprint == first.fingerprint


def test_attributes_are_scalars() -> None:
    attributes = {"plan": "pro", "age": 41, "score": 0.5, "vip": True, "gone": None}
    assert decoded(encoded(VIEW, type="profile", attributes=attributes)).attributes == attributes


def test_what_does_not_belong_to_a_type_does_not_matter() -> None:
    assert decoded(encoded(VIEW, attributes={"a": [1]})).attributes == {}
    assert decoded(encoded(VIEW, order_id="")).order == b""
