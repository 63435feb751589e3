"""Records that are no events, each with the reason for which it must be rejected; and odd ones that are events.

What is done to a live worker, and where:

| input | result | test |
|---|---|---|
| no value, no bytes, white space | `null_value`, `empty` | `bad_records` |
| value not UTF-8, overlong UTF-8; a lone surrogate | `invalid_utf8`; `malformed_json` | `bad_records` |
| key missing, of somebody else, not UTF-8, a megabyte | `key_missing`, `key_mismatch` | `bad_records` |
| another partitioner than other producers have | accepted: a worker cannot tell | `test_same_as_replay` |
| nested 20,000 deep; more than 64 KB, to 10 MB, key or value | `too_deep`; `too_large`, cut off | `bad_records` |
| JSON but no object; not JSON, two of it, compressed, Avro, NaN | `not_an_object`; `malformed_json` | `bad_records` |
| field missing, of another type; number beyond all | `missing_field`, `wrong_type`, `out_of_range` | `bad_records` |
| amount: text, negative, huge; -0, tiny, more decimals | rejected by kind; rounded half to even | both |
| time: none, beyond 9999; ahead by five minutes, at once or in steps | `bad_time`, `future_time` | `test_hostile` |
| time of 1970, or in seconds; however late | accepted, at its own time | `odd_events` |
| unknown type, a thousand fields, a field twice, integers beyond 64 bits | accepted | `odd_events` |
| currency unknown, or 64 of them; 200 types | `unknown_currency`, accepted; no new series | both |
| customer empty, too long, with control characters | `bad_id` | `bad_records` |
| customer like a path, a pattern, a format; spaces, emoji, right to left | accepted, as it is | `odd_events` |
| an id twice; an offset again | dropped as a duplicate; skipped | `test_dead_letters`; `test_kill` |
| 10,000 headers, Faust's reply header, a header name not UTF-8 | ignored; nobody is answered | `test_dead_letters` |
| `__faust` in the value | data: `missing_field`, or accepted | both |
| record stamps of -1, or the broker's | ignored | `odd_events`, `test_hostile` |
| gaps between offsets | passed | `test_hostile` |
| changelog: garbage, another version; nobody's | refused with its place; passed over | `test_loading`, `test_hostile` |
| dead letters refused | nothing acknowledged, exit 70 | `test_hostile` |
| too much of all that | nothing more taken, exit 1 | `test_tolerance` |
| definitions: aliases, tags; a megabyte, depth, NaN | exit 1 with the place | `test_hostile`; `test_definitions_yaml` |
| the port: paths, methods, slow connections | 400, 404, 405; the oldest is closed | `test_hostile` |
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from streamseg.core.units import Instant, format_instant
from tests.worker.running_worker import Sent

CUSTOMER, STRANGER = "c-good", "c-other"
"""Of two partitions, one belongs to 0 and the other to 1."""
KEY = CUSTOMER.encode()


@dataclass(frozen=True, slots=True)
class Bad:
    """A record and why it is none."""

    name: str
    reason: str
    record: Sent


def view(now: Instant, **changes: Any) -> dict[str, Any]:
    """A good event, with other or no (None) fields."""
    event = {"id": "b-1", "type": "page_view", "customer_id": CUSTOMER, "time": format_instant(now), **changes}
    return {name: value for name, value in event.items() if value is not None}


def text(now: Instant, **changes: Any) -> bytes:
    return json.dumps(view(now, **changes)).encode()


def purchase(now: Instant, amount: str) -> bytes:
    """A purchase with the amount as JSON text."""
    return text(now, type="purchase", amount="AMOUNT").replace(b'"AMOUNT"', amount.encode())


def bad_records(now: Instant) -> list[Bad]:
    """All kinds of bad records, for partition 0 of 2 and `--keys reject`; `now` is the wall clock."""
    found = [Bad(name, reason, Sent(value, KEY)) for name, reason, value in _bad_values(now)]
    good, elsewhere = text(now), text(now, customer_id=STRANGER)
    found += [
        Bad("no key", "key_missing", Sent(good)),
        Bad("an empty key", "key_mismatch", Sent(good, b"")),
        Bad("another customer's key", "key_mismatch", Sent(good, STRANGER.encode())),
        Bad("a key that is not UTF-8", "key_mismatch", Sent(good, b"\xff\xfe\x00")),
        Bad("a key of a megabyte", "key_mismatch", Sent(good, b"k" * 1_000_000)),
        Bad("another partition's customer", "wrong_partition", Sent(elsewhere, STRANGER.encode())),
        Bad("no key and no value", "null_value", Sent(None)),
        Bad("a key of ten megabytes and no value", "null_value", Sent(None, b"k" * (10 << 20))),
    ]
    return found


def _bad_values(now: Instant) -> Iterator[tuple[str, str, bytes | None]]:
    good = text(now)
    yield "no value", "null_value", None
    yield "no bytes", "empty", b""
    yield "spaces", "empty", b" \n\t"
    yield "not UTF-8", "invalid_utf8", good.replace(b"b-1", b"caf\xe9")
    yield "overlong UTF-8", "invalid_utf8", good.replace(b"b-1", b"\xc0\xaf")
    yield "a lone surrogate", "malformed_json", good.replace(b"b-1", rb"\ud800")
    yield "nested too deeply", "too_deep", good[:-1] + b',"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    yield "64 KB and a byte", "too_large", good[:-1] + b" " * (64 * 1024 - len(good) + 1) + b"}"
    yield "ten megabytes", "too_large", good[:-1] + b" " * (10 << 20) + b"}"
    yield "nested so deeply that it is too large", "too_large", b"[" * 100_000 + b"]" * 100_000
    for name, value in {"array": b"[]", "text": b'"x"', "number": b"7", "null": b"null", "truth": b"true"}.items():
        yield f"a JSON {name}", "not_an_object", value
    yield from _broken_json(now)
    yield from _bad_fields(now)
    yield from _bad_amounts(now)
    yield from _bad_times(now)


def _broken_json(now: Instant) -> Iterator[tuple[str, str, bytes]]:
    good = text(now)
    yield "cut off", "malformed_json", good[:-9]
    yield "a byte order mark", "malformed_json", b"\xef\xbb\xbf" + good
    yield "something behind it", "malformed_json", good + b"x"
    yield "two documents", "malformed_json", good + good
    yield "compressed", "malformed_json", gzip.compress(good)
    yield "Avro or Protobuf", "malformed_json", b"\x00\x00\x00\x00\x01" + good
    yield "a raw control character", "malformed_json", good.replace(b"b-1", b"b\n1")
    for number in ("NaN", "Infinity", "-Infinity"):
        yield number, "malformed_json", purchase(now, number)


def _bad_fields(now: Instant) -> Iterator[tuple[str, str, bytes]]:
    for field in ("type", "customer_id", "time"):
        yield f"no {field}", "missing_field", text(now, **{field: None})
    yield "a request to Faust", "missing_field", b'{"__faust":{"ns":"@ReqRepRequest"},"reply_to":"victim"}'
    yield "a purchase without amount", "missing_field", text(now, type="purchase")
    yield "a refund without order", "missing_field", text(now, type="refund")
    yield "a customer that is a number", "wrong_type", text(now, customer_id=7)
    yield "props that are a list", "wrong_type", text(now, props=[1])
    yield "a number beyond all numbers", "out_of_range", text(now, props={"n": "N"}).replace(b'"N"', b"1e999")
    yield "an empty customer", "bad_id", text(now, customer_id="")
    yield "a customer of 300 bytes", "bad_id", text(now, customer_id="x" * 300)
    yield "a customer of 65 emoji", "bad_id", text(now, customer_id="🦀" * 65)
    yield "a zero character in the customer", "bad_id", text(now, customer_id="a\x00b")
    yield "a line break in the customer", "bad_id", text(now, customer_id="a\r\nSET x")
    yield "a control character in the id", "bad_id", text(now, id="\x07")
    for name in ("", "page view", "x" * 65, "é"):
        yield f"type {name[:10]!r}", "bad_type", text(now, type=name)
    yield "attributes within attributes", "bad_attributes", text(now, type="profile", attributes={"a": {"b": 1}})


def _bad_amounts(now: Instant) -> Iterator[tuple[str, str, bytes]]:
    for amount in ("true", "{}", "[1]", '"12,50"', '"abc"', '""', "1" * 5000):
        yield f"amount {amount[:10]}", "bad_amount", purchase(now, amount)
    yield "amount null", "missing_field", purchase(now, "null")
    for amount in ("1e999", "1e18", str(10**30), str(2**64)):
        yield f"amount {amount[:10]}", "out_of_range", purchase(now, amount)
    for amount in ("-1", '"-0.01"', "-1e9"):
        yield f"amount {amount}", "negative_amount", purchase(now, amount)
    yield "a currency of four", "bad_currency", text(now, type="purchase", amount=1, currency="XXX1")
    for letters in product("ABEU", repeat=3):
        currency = "".join(letters)
        yield f"currency {currency}", "unknown_currency", text(now, type="purchase", amount=1, currency=currency)


def _bad_times(now: Instant) -> Iterator[tuple[str, str, bytes]]:
    for time in ("yesterday", "", "2026-02-30T10:00:00Z", "2026-02-03T10:00:00", "1969-12-31T23:59:59Z", -1):
        yield f"time {time!r}", "bad_time", text(now, time=time)
    yield "a time that is true", "wrong_type", text(now, time=True)
    yield "a time that is null", "wrong_type", text(now, time="T").replace(b'"T"', b"null")
    yield "a time of 5000 digits", "out_of_range", text(now, time="T").replace(b'"T"', b"1" * 5000)
    yield "a fraction of a second", "wrong_type", text(now, time=now / 1000)
    yield "microseconds", "bad_time", text(now, time=now * 1000)
    yield "the year 9999", "future_time", text(now, time="9999-12-31T23:59:59Z")
    yield "ten minutes ahead", "future_time", text(now, time=now + 600_000)


def odd_events(now: Instant) -> dict[str, list[Sent]]:
    """Records that look bad and are good, by their customer; none has an id that another has."""
    many = {f"x{number}": number for number in range(1_000)}
    bomb = [(f"h{number}", b"x") for number in range(10_000)] + [("Faust-Ag-ReplyTo", b"victim")]
    found: dict[str, list[Sent]] = {}
    for number, customer in enumerate(
        ("../../etc/passwd", "a b", "🦀", "אבג\u200bd", "x" * 256, "%s{0}", "*:?[x]", "a:b")
    ):
        found[customer] = [Sent(text(now, id=f"o-{number}", customer_id=customer), customer.encode())]
    for number, amount in enumerate(("0", "-0.0", "5e-324", "0.005", '"12.3456"', "1e2")):
        key = f"c-amount-{number}"
        value = purchase(now, amount).replace(KEY, key.encode()).replace(b"b-1", b"a-%d" % number)
        found[key] = [Sent(value, key.encode())]
    found["c-many"] = [Sent(text(now, id="m", customer_id="c-many", **many), b"c-many")]
    found["c-twice"] = [Sent(text(now, id="t", customer_id="c-x")[:-1] + b',"customer_id":"c-twice"}', b"c-twice")]
    found["c-bomb"] = [Sent(text(now, id="h", customer_id="c-bomb"), b"c-bomb", bomb)]
    for number, quantity in enumerate((2**64, 10**30, -(10**30), 5e-324)):
        key = f"c-quantity-{number}"
        value = text(now, id=f"q-{number}", customer_id=key, type="purchase", amount=1, props={"quantity": quantity})
        found[key] = [Sent(value, key.encode())]
    found["c-faust"] = [Sent(text(now, id="f", customer_id="c-faust", __faust={"ns": "@ReqRepRequest"}), b"c-faust")]
    found["c-seconds"] = [Sent(text(now, id="u", customer_id="c-seconds", time=now // 1000), b"c-seconds")]
    found["c-types"] = [
        Sent(text(now, id=f"y-{number}", customer_id="c-types", type=f"type-{number}"), b"c-types")
        for number in range(200)
    ]
    found["c-1970"] = [Sent(text(now, id="z", customer_id="c-1970", time=0), b"c-1970")]
    found["c-stamp"] = [Sent(text(now, id="s", customer_id="c-stamp"), b"c-stamp", timestamp=-1)]
    return found
