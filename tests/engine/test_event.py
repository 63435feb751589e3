"""The compiled decoder of events gives what EventDecoder gives, or nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from streamseg_engine import decode_event, decode_many, props_field

from streamseg.core.errors import RejectedEvent
from streamseg.core.event import FINGERPRINT_BYTES, PURCHASE, Event
from streamseg.core.units import parse_instant
from streamseg.formats.event_json import MAX_BYTES, EventDecoder
from streamseg.shop import MALFORMED, Shop
from tests.formats.test_event_json import AMOUNTS, CUSTOMERS, REJECTED, TIMES, with_amount
from tests.worker.bad_records import bad_records, odd_events

THOROUGH = settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SHOP = Shop(customers=200, events=20_000, malformed_ratio=0.02)
LINES = [line for _, line in SHOP.lines()]
NOW = 1_800_000_000_000
VIEW = b'{"type":"page_view","customer_id":"c","time":"2026-11-21T12:00:00Z"}'
ORDER = (
    b'{"id":"e1","type":"purchase","customer_id":"c 1","time":"2026-02-28T23:59:59.999Z","order_id":"o",'
    b'"amount":49.90,"currency":"EUR","props":{"n":-1.5,"k\xc3\xa9":[{},[],null,"\\u00e9"]},"x":{"y":0}}'
)
REFUND = (
    b'{ "type" : "refund","customer_id":"c","time":1800000000000,"order_id":"o","id":null,"amount":"7","x":[true] }'
)
PLAIN = [VIEW, ORDER, REFUND]
DECODERS = {(currency, digits): EventDecoder(currency, digits, {}) for currency, digits in [("EUR", 2), ("USD", 2)]}


# What must hold of any bytes


def became(data: bytes, *, currency: str = "EUR", digits: int = 2, latest: int | None = None) -> str:
    """What became of the bytes: an event, rejected, or left to Python. Both decoders must agree on an event."""
    native = decode_event(data, currency, digits, latest)
    try:
        event = _decoder(currency, digits).decode(data, "t/0/", 7, latest)
    except RejectedEvent:
        assert native is None, data
        return "rejected"
    if native is None:
        return "left to Python"
    kind, customer, time, name, fingerprint, order, amount, props, attributes = native
    assert (kind, customer, time, amount) == (event.type, event.customer, event.time, event.amount)
    assert event.attributes == ({} if attributes is None else json.loads(attributes))
    _check_name(event, name, fingerprint)
    _check_order(event, order)
    _check_props(event.props, props)
    return "an event"


def _decoder(currency: str, digits: int) -> EventDecoder:
    return DECODERS.setdefault((currency, digits), EventDecoder(currency, digits, {}))


def _check_name(event: Event, name: str | None, fingerprint: bytes) -> None:
    if name is None:
        assert (event.name, fingerprint) == ("t/0/7", bytes(FINGERPRINT_BYTES))
    else:
        assert (event.name, event.fingerprint) == (name, fingerprint)


def _check_order(event: Event, order: bytes | None) -> None:
    own = event.fingerprint if event.type == PURCHASE else b""
    assert event.order == (own if order is None else order)


def _check_props(expected: Mapping[str, Any], props: bytes | None) -> None:
    assert expected == ({} if props is None else json.loads(props))
    for name, value in expected.items():
        assert props is not None
        found = props_field(props, name)
        assert found in (_kind(value), ("other", None)), (props, name)
        assert found is not None


def _kind(value: Any) -> tuple[str, object]:
    """What a value of the props is, at best."""
    if value is None or value is True or value is False:
        return json.dumps(value), None
    if type(value) is int and -(2**63) <= value < 2**63:
        return "int", value
    return ("text", value) if type(value) is str else ("other", None)


# Events that there are


def test_nearly_all_plain_events_of_a_shop_are_decoded_and_none_is_decoded_otherwise() -> None:
    results = Counter(became(line, currency="USD") for line in LINES)
    assert results["an event"] > 0.99 * (results["an event"] + results["left to Python"])
    assert results["rejected"] > 100


def test_many_events_are_decoded_as_each_of_them_is() -> None:
    assert decode_many(LINES, "USD", 2) == sum(decode_event(line, "USD", 2) is not None for line in LINES)


def test_an_event_is_read_field_by_field() -> None:
    native = decode_event(ORDER, "EUR", 2)
    assert native is not None
    kind, customer, time, name, fingerprint, order, amount, props, attributes = native
    assert (kind, customer, name, amount) == ("purchase", "c 1", "e1", 4990)
    assert time == parse_instant("2026-02-28T23:59:59.999Z")
    assert len(fingerprint) == FINGERPRINT_BYTES
    assert order is not None
    assert order != fingerprint
    assert attributes is None
    assert props == '{"n":-1.5,"ké":[{},[],null,"\\u00e9"]}'.encode()


@pytest.mark.parametrize("data", PLAIN)
def test_a_plain_event_is_not_left_to_python(data: bytes) -> None:
    assert became(data) == "an event"


def test_an_event_of_the_moment_is_taken_and_one_ahead_of_the_clock_is_not() -> None:
    noon = parse_instant("2026-11-21T12:00:00Z")
    assert became(VIEW, latest=noon) == "an event"
    assert became(VIEW, latest=noon - 1) == "rejected"


# Events that are none


@pytest.mark.parametrize(("data", "_"), REJECTED.values(), ids=REJECTED)
def test_what_is_rejected_is_not_decoded(data: bytes | None, _: str) -> None:
    assert data is None or became(data) == "rejected"


def test_no_bad_record_that_a_worker_is_tried_with_is_decoded_unless_only_its_key_is_bad() -> None:
    for bad in bad_records(NOW):
        value = bad.record.value
        if value is not None and bad.reason not in ("key_missing", "key_mismatch", "wrong_partition"):
            assert became(value, latest=NOW + 300_000) == "rejected", bad.name


def test_no_malformed_event_of_a_shop_is_decoded() -> None:
    for text in MALFORMED.values():
        line = text.format(id="bad-1", customer="c1", time="2026-02-03T10:00:00.000Z")
        assert became(line.encode("latin-1"), currency="USD") == "rejected"


# Events that look odd


def test_odd_events_are_decoded_alike_or_left_to_python() -> None:
    results = Counter(became(sent.value or b"") for some in odd_events(NOW).values() for sent in some)
    assert results["rejected"] == 0
    assert results["an event"] > 200


def test_odd_amounts_times_and_customers_are_decoded_alike_or_left_to_python() -> None:
    for raw in AMOUNTS:
        assert became(with_amount(raw)) != "rejected"
    for time in TIMES:
        assert became(VIEW.replace(b"2026-11-21T12:00:00Z", time.encode())) != "rejected"
    for customer in CUSTOMERS:
        assert became(VIEW.replace(b'"c"', json.dumps(customer, ensure_ascii=False).encode())) != "rejected"


def test_an_event_may_have_64_kilobytes() -> None:
    room = MAX_BYTES - len(VIEW)
    assert became(VIEW + b" " * room) == "an event"
    assert became(VIEW + b" " * (room + 1)) == "rejected"


def test_of_fields_that_are_doubled_python_decides() -> None:
    known = ["id", "type", "customer_id", "time", "order_id", "amount", "currency", "props", "attributes"]
    for name in known:
        twice = VIEW[:-1] + f',"{name}":null,"{name}":null}}'.encode()
        assert became(twice) in ("rejected", "left to Python")


def test_what_is_nested_deeply_is_left_to_python_and_what_is_not_is_decoded() -> None:
    for opening, closing in [("[", "]"), ('{"a":', "}")]:
        for depth, expected in [(10, "an event"), (31, "an event"), (32, "left to Python"), (200, "left to Python")]:
            value = opening * depth + ("null" if closing == "}" else "") + closing * depth
            assert became(VIEW[:-1] + f',"x":{value}}}'.encode()) == expected


def test_every_day_has_its_time_and_no_other_day_has_one() -> None:
    for year in [*range(1968, 2033), 2099, 2100, 2101, 2400, 9999]:
        for month in range(14):
            for day in range(33):
                time = f"{year:04}-{month:02}-{day:02}T07:08:09.010Z"
                data = VIEW.replace(b"2026-11-21T12:00:00Z", time.encode())
                assert became(data) != "left to Python"


@pytest.mark.parametrize("digits", [0, 2, 3, 4, 18, 4_000_000_000])
def test_amounts_have_the_decimals_of_their_currency(digits: int) -> None:
    for text in ["0", "7", "12.3", "12.34", "12.345", "12.3456", "0.0001", "999999999999999", "100000000000.0001"]:
        data = ORDER.replace(b"49.90", text.encode())
        if digits < 20:
            became(data, digits=digits)
        else:
            assert decode_event(data, "EUR", digits) is None


# Every byte


@pytest.mark.parametrize("data", PLAIN)
def test_whatever_byte_stands_in_place_of_another_or_between_two(data: bytes) -> None:
    results = Counter[str]()
    for place in range(len(data) + 1):
        for number in range(256):
            byte = bytes([number])
            results[became(data[:place] + byte + data[place:])] += 1
            results[became(data[:place] + byte + data[place + 1 :])] += 1
    assert min(results["an event"], results["rejected"]) > 1_000


@pytest.mark.parametrize("data", PLAIN)
def test_wherever_an_event_is_cut(data: bytes) -> None:
    for start in range(len(data)):
        for end in range(start, len(data)):
            became(data[:start] + data[end + 1 :])


def test_whatever_stands_behind_a_backslash() -> None:
    for number in range(256):
        for rest in (b"", b"0041", b"d83d", b"d83d\\ude00", b"00e", b"+041", b"0000"):
            text = b"\\" + bytes([number]) + rest
            became(VIEW[:-1] + b',"props":{"a":"x' + text + b'y"}}')
            became(VIEW[:-1] + b',"x' + text + b'":1}')
            became(VIEW.replace(b'"c"', b'"' + text + b'"'))


# Fields put together


TEXTS = ['"a"', '""', '"a b"', '"\\u0041"', '"\\n"', '"é"', '"\\ud83d\\ude00"', '"\\ud83d"', '"a\tb"', f'"{"x" * 64}"',
         f'"{"x" * 65}"', f'"{"x" * 257}"', '"\x7f"', '"\u2028"', '"EUR"', '"USD"']  # fmt: skip
NUMBERS = ["0", "-0", "1", "-1", "01", "1.", ".5", "1.5", "-0.0", "1e2", "1E400", "1.5e-3", "+1", "0x1", "--1", "1_0",
           "NaN", "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1" * 40,
           "1" * 41, "1" * 400, "0." + "1" * 60, "10000000000000", "10000000000000.01", "99.999", "1800000000000",
           "253402300799999", "253402300800000", "Infinity", "-"]  # fmt: skip
WORDS = ["null", "true", "false", "nul", "True", "{}", "[]", "[1,]", "{,}", '{"a":1,}', "[1 2]", '{"a" 1}', "[[[]]]"]
TIME_TEXTS = ["2026-11-21T12:00:00Z", "2024-02-29T00:00:00.000Z", "2023-02-29T00:00:00Z", "1970-01-01T00:00:00Z",
              "1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999Z", "2026-11-21T24:00:00Z", "2026-11-21T23:60:00Z",
              "2016-12-31T23:59:60Z", "2026-11-21t12:00:00z", "2026-11-21 12:00:00Z", "2026-11-21T12:00:00+00:00",
              "2026-11-21T12:00:00.5Z", "2026-11-21T12:00:00,500Z", "2026-11-21T12:00:00", ""]  # fmt: skip
SHOP_TYPES = [
    "page_view",
    "purchase",
    "refund",
    "profile",
    "merge",
    "erase",
    "a.b-c_D9",
    "a b",
    "é",
    "x" * 64,
    "x" * 65,
]
AMOUNT_TEXTS = [
    "1",
    "007",
    "12.5",
    "12.50",
    "12.505",
    ".5",
    "5.",
    "1e2",
    "-1",
    "",
    " 1",
    "1" * 15,
    "1" * 16,
    "٥",
    "1.2.3",
]


def quoted(texts: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from([f'"{text}"' for text in texts])


ANY_VALUE = st.sampled_from(TEXTS + NUMBERS + WORDS)
SPACE = st.sampled_from(["", "", "", " ", "\n", "\t\r", "\v", "\ufeff", "\0"])
PROPS = st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"é"', '"\\n"', '""', "a"]), ANY_VALUE), max_size=4).map(
    lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"
)
VALUES = {
    "type": quoted(SHOP_TYPES),
    "customer_id": st.sampled_from(TEXTS),
    "time": quoted(TIME_TEXTS) | st.sampled_from(NUMBERS),
    "id": st.sampled_from(TEXTS),
    "order_id": st.sampled_from(TEXTS),
    "amount": quoted(AMOUNT_TEXTS) | st.sampled_from(NUMBERS),
    "currency": quoted(["EUR", "USD", "eur", ""]),
    "props": PROPS,
    "attributes": PROPS,
    "x": ANY_VALUE | PROPS,
}
GOOD = {"type": '"purchase"', "customer_id": '"c"', "time": '"2026-11-21T12:00:00Z"', "amount": '"4.50"'}


@st.composite
def put_together(draw: st.DrawFn) -> bytes:
    """A good purchase with some fields changed, dropped, doubled or added, in any order, with odd spaces."""
    fields = [(name, value) for name, value in GOOD.items() if draw(st.integers(0, 9))]
    for name in draw(st.lists(st.sampled_from(list(VALUES)), max_size=4)):
        if draw(st.integers(0, 9)):
            fields = [field for field in fields if field[0] != name]
        fields.append((name, draw(VALUES[name] if draw(st.integers(0, 4)) else ANY_VALUE)))
    fields = draw(st.permutations(fields))
    space = draw(SPACE)
    inner = f"{space},".join(f'{space}"{name}"{space}:{space}{value}' for name, value in fields)
    return f"{space}{{{inner}{space}}}{space}".encode()


@st.composite
def overwritten(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Bytes with some of them replaced, dropped or doubled."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = start + draw(st.integers(0, 8))
        data[start:end] = draw(st.binary(max_size=8) | st.just(bytes(data[start:end]) * 2))
    return bytes(data)


@THOROUGH
@given(put_together(), st.none() | st.just(NOW))
@example(b'{"type":"page_view","customer_id":"c","time":"2026-11-21T12:00:00Z123Z"}', None)
def test_fields_put_together_are_decoded_alike_or_left_to_python(data: bytes, latest: int | None) -> None:
    became(data, latest=latest)


@THOROUGH
@given(overwritten(LINES[:2_000] + PLAIN))
def test_overwritten_events_are_decoded_alike_or_left_to_python(data: bytes) -> None:
    became(data, currency="USD")


@THOROUGH
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_not_decoded(data: bytes) -> None:
    assert became(data) == "rejected"


# Props


def test_of_props_that_are_doubled_the_last_one_counts() -> None:
    assert props_field(b'{"a":1,"b":null,"a":"x"}', "a") == ("text", "x")
    assert became(VIEW[:-1] + b',"props":{"a":1,"a":true,"a":"x"}}') == "an event"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("null", ("null", None)),
        ("true", ("true", None)),
        ("false", ("false", None)),
        ("0", ("int", 0)),
        ("-7", ("int", -7)),
        ("9223372036854775807", ("int", 2**63 - 1)),
        ("-9223372036854775808", ("int", -(2**63))),
        ("9223372036854775808", ("other", None)),
        ("-0", ("other", None)),
        ("1.0", ("other", None)),
        ('"shoes"', ("text", "shoes")),
        ('"é"', ("text", "é")),
        ('""', ("text", "")),
        ('"a\\u0041"', ("other", None)),
        ("[1]", ("other", None)),
        ('{"a":1}', ("other", None)),
    ],
)
def test_a_prop_is_what_it_is(raw: str, expected: tuple[str, object]) -> None:
    props = f'{{"b":{raw}, "é" : {raw} , "c":1}}'.encode()
    assert props_field(props, "b") == expected
    assert props_field(props, "é") == expected
    assert props_field(props, "a") is None


@THOROUGH
@given(st.binary(max_size=60) | overwritten([b'{"a":[1,"x\\n"],"b":{"a":-0.5}}']), st.sampled_from(["a", "b", ""]))
def test_bytes_that_are_no_props_have_no_fields_and_do_no_harm(props: bytes, name: str) -> None:
    found = props_field(props, name)
    assert found is None or f'"{name}"'.encode() in props
