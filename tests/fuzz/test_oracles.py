"""Whatever is read, however it was made, is taken or refused, and nothing else happens.

`make fuzz` tries the same for as long as one likes, guided by what the code does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamseg.formats import state as records
from streamseg.formats.rejection import REASONS
from tests.fuzz import oracles
from tests.properties.hand_written import DEFINITIONS
from tests.worker.bad_records import bad_records, odd_events
from tests.worker.running_worker import EVERY_FEATURE, STARTER

SHORT = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
NAMES = ["id", "order_id", "amount", "currency", "props", "attributes", "customer_id", "time", "type"]
PROPS = ["items", "category", "coupon", "device"]
GOOD: dict[str, Any] = {
    "id": "e", "type": "purchase", "customer_id": "c", "time": oracles.NOW, "amount": "5", "order_id": "o",
    "props": {"items": 1}, "attributes": {"plan": "free"},
}  # fmt: skip
FILES = [EVERY_FEATURE.read_text(), STARTER.read_text(), *DEFINITIONS]


@st.composite
def overwritten(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Bytes with some of them replaced, dropped or doubled."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = start + draw(st.integers(0, 8))
        noise = draw(st.binary(max_size=8) | st.just(bytes(data[start:end]) * 2))
        data[start:end] = noise
    return bytes(data)


# Events


@SHORT
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_event(data: bytes) -> None:
    assert oracles.event(data) in REASONS


@SHORT
@given(
    st.sampled_from(["purchase", "refund", "profile", "page_view", "merge"]),
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4),
    st.dictionaries(st.sampled_from(PROPS), ANYTHING, max_size=3),
    st.dictionaries(st.sampled_from(["plan", "email_consent"]), ANYTHING, max_size=2),
)
def test_an_event_of_any_fields_is_rejected_or_applied_and_stored(
    kind: str, changes: dict[str, Any], props: dict[str, Any], attributes: dict[str, Any]
) -> None:
    event = GOOD | {"type": kind, "props": props, "attributes": attributes} | changes
    data = json.dumps(event).encode("utf-8", "surrogatepass")
    assert oracles.event(data) in REASONS.keys() | {str(event["type"])}


@SHORT
@given(overwritten([json.dumps(GOOD).encode(), *oracles.EVENTS]))
def test_an_event_with_some_bytes_overwritten_is_rejected_or_applied(data: bytes) -> None:
    assert oracles.event(data)


def test_everything_that_is_sent_to_a_live_worker_is_rejected_or_applied() -> None:
    bad = [each.record.value or b"" for each in bad_records(oracles.NOW)]
    odd = [each.value or b"" for some in odd_events(oracles.NOW).values() for each in some]
    keyed = {"b-1"} | {oracles.event(value) for value in bad} - REASONS.keys()
    assert keyed <= {"b-1", "page_view"}  # those are rejected for their keys
    assert REASONS.keys() & {oracles.event(value) for value in odd} == set()


# Definitions


@SHORT
@given(overwritten([text.encode() for text in FILES]))
def test_definitions_with_some_bytes_overwritten_are_refused_with_their_place_or_evaluated(data: bytes) -> None:
    assert oracles.definitions(data) in ("refused", "loaded")


WORDS = [
    "version", "currency", "rates", "features", "rfm", "schemes", "segments", "default", "name", "when", "stay_when",
    "min_stay", "cuts", "refund_window", "1", "EUR", "30d", "count(any, 7d)", "since(purchase) > 3d", "a", "b", "null",
]  # fmt: skip
YAML = st.recursive(
    st.sampled_from(WORDS) | st.text(max_size=5) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=20,
)


@SHORT
@given(st.dictionaries(st.sampled_from(WORDS[:8]), YAML, max_size=6))
def test_a_file_of_any_structure_is_refused_with_its_place_or_evaluated(content: dict[str, Any]) -> None:
    data = {"version": 1, "currency": "EUR"} | content
    assert oracles.definitions(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))


# States


@SHORT
@given(st.binary(max_size=120) | overwritten(list(oracles.stored_states())))
def test_a_stored_record_with_some_bytes_overwritten_is_read_or_refused(data: bytes) -> None:
    assert oracles.state(data) in ("read", "broken", "refused")


def test_a_record_that_begins_like_an_old_one_and_names_this_format_is_refused() -> None:
    for state in oracles.stored_states()[:8]:
        data = bytearray(state)
        data[0], data[36] = 0, 3  # where the first two formats had theirs
        assert oracles.state(bytes(data)) == "refused"


@SHORT
@given(st.sampled_from(oracles.stored_states()[:8]), st.integers(0, 8), ANYTHING)
def test_a_state_with_a_part_replaced_is_read_or_refused(data: bytes, place: int, part: Any) -> None:
    head, content = _parts(data)
    content[place] = part
    try:
        body = msgspec.msgpack.encode(content)
    except (OverflowError, UnicodeEncodeError):
        return
    assert oracles.state(head + body) in ("read", "broken")


def _parts(data: bytes) -> tuple[bytes, list[Any]]:
    end = records._outbox_bounds(data)[1]
    return data[:end], msgspec.msgpack.decode(data[end:])


@pytest.mark.parametrize("oracle", oracles.ORACLES.values())
@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff" * 50, b"[" * 5_000], ids=["nothing", "zero", "ones", "deep"])
def test_what_is_nothing_at_all_is_refused(oracle: Callable[[bytes], str], data: bytes) -> None:
    assert oracle(data) not in ("purchase", "loaded", "read")


def test_the_oracles_also_see_what_is_right() -> None:
    assert [oracles.event(each) for each in oracles.EVENTS] == ["purchase", "page_view", "profile", "refund"]
    assert {oracles.definitions(text.encode()) for text in FILES} == {"loaded"}
    assert {oracles.state(data) for data in oracles.stored_states()[:8]} == {"read"}
