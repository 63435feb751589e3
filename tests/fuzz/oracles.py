"""What must hold of anything that is read, whatever its bytes: each oracle takes bytes and raises if it does not.

They return a word for what became of the bytes, so that a test can tell whether it tried anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.errors import RejectedEvent
from streamseg.core.event import CONTROL, FINGERPRINT_BYTES, PROFILE, PURCHASE, REFUND, Event
from streamseg.core.profile import Profile
from streamseg.core.segmenter import Segmenter
from streamseg.core.units import DAY, MAX_AMOUNT, Instant
from streamseg.formats import state as records
from streamseg.formats.definitions_yaml import DefinitionsError, load_definitions
from streamseg.formats.event_json import EventDecoder
from streamseg.formats.messages import Origin, change_data, dead_letter_headers, decode_json
from streamseg.formats.rejection import REASONS
from streamseg.formats.state import Sent, State, StateError
from streamseg.worker.loading import ForeignRecordError, Loaded
from tests.worker.running_worker import EVERY_FEATURE

NOW: Instant = 1_800_000_000_000
LATEST = NOW + 300_000
RATES = b"rates: {EUR: 1.1, JPY: 0.0067}\n"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
EVENTS = [
    (
        b'{"id":"1","type":"purchase","customer_id":"c","time":1800000000000,"amount":"49.90","order_id":"o","props":'
        b'{"items":2,"category":"shoes","coupon":true}}'
    ),
    b'{"id":"2","type":"page_view","customer_id":"c","time":1800000001000,"props":{"category":"books"}}',
    b'{"id":"3","type":"profile","customer_id":"c","time":1800000002000,"attributes":{"plan":"free"}}',
    b'{"id":"4","type":"refund","customer_id":"c","time":1800000003000,"order_id":"o"}',
]


@lru_cache(1)
def every_feature() -> Definitions:
    """Definitions that look at all that can be looked at."""
    return load_definitions(EVERY_FEATURE.read_bytes() + RATES)


class _Shelf(dict[str, Profile]):
    def put(self, customer: str, profile: Profile) -> None:
        self[customer] = profile


def _is_id(text: str) -> bool:
    return 1 <= len(text.encode()) <= 256 and _CONTROL.search(text) is None


# Events


@lru_cache(1)
def _decoder() -> EventDecoder:
    definitions = every_feature()
    return EventDecoder(definitions.currency, definitions.digits, definitions.rates)


def event(data: bytes) -> str:
    """An event is rejected for a reason that there is, or is one, and can be applied, stored, and published."""
    try:
        decoded = _decoder().decode(data, "t/0/", 7, LATEST)
    except RejectedEvent as error:
        return _checked_reason(error)
    _check_event(decoded, data)
    _apply(every_feature(), [decoded], decoded.time + 400 * DAY)
    return decoded.type


def _checked_reason(rejected: RejectedEvent) -> str:
    assert rejected.reason in REASONS, rejected.reason
    assert len(rejected.detail) <= 200
    assert all(isinstance(content, bytes) for _, content in dead_letter_headers(rejected, Origin("t", 0, 7)))
    return rejected.reason


def _check_event(decoded: Event, data: bytes) -> None:
    assert len(data) <= 64 * 1024
    assert _TYPE.fullmatch(decoded.type)
    assert decoded.type not in CONTROL
    assert _is_id(decoded.customer)
    assert _is_id(decoded.name)
    assert type(decoded.time) is int
    assert 0 <= decoded.time <= LATEST
    assert decoded.amount is None or (type(decoded.amount) is int and 0 <= decoded.amount <= MAX_AMOUNT)
    assert decoded.amount is not None or decoded.type != PURCHASE
    assert len(decoded.fingerprint) == FINGERPRINT_BYTES
    assert len(decoded.order) == (FINGERPRINT_BYTES if decoded.type in (PURCHASE, REFUND) else 0)
    assert isinstance(decoded.props, Mapping)
    assert decoded.type == PROFILE or not decoded.attributes
    assert all(isinstance(value, str | int | float | None) for value in decoded.attributes.values())


def _apply(definitions: Definitions, events: list[Event], until: Instant) -> None:
    """Evaluate events and what time does after them; store each customer in between."""
    changes: list[Change] = []
    shelf = _Shelf()
    segmenter = Segmenter(definitions, shelf, changes.append)
    for each in events:
        segmenter.take(each)
    for customer, profile in shelf.items():
        head, body = records.encode_state(State(profile, {"t": 7}), definitions.layout, 1)
        stored = records.in_this_format(records.record(head, body, [Sent(1, 2, b"{}")]))
        back = records.decode_state(stored, definitions.layout).profile
        back.queued = profile.queued
        shelf[customer] = back
    segmenter.advance(until)
    for change in changes:
        assert decode_json(change_data(change))["customer_id"] == change.customer


# Definitions


def definitions(data: bytes) -> str:
    """Definitions are refused with a place in the file, or can be evaluated."""
    try:
        loaded = load_definitions(data, "d.yaml")
    except DefinitionsError as error:
        _check_problems(error)
        return "refused"
    decoder = EventDecoder(loaded.currency, loaded.digits, loaded.rates)
    decoded = [decoder.decode(each, "t/0/", number) for number, each in enumerate(EVENTS)]
    _apply(loaded, decoded, NOW + 400 * DAY)
    return "loaded"


def _check_problems(refused: DefinitionsError) -> None:
    assert refused.problems
    for problem in refused.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.length >= 1
        assert f"d.yaml:{problem.line}:{problem.column}: error: {problem.message}" in str(refused)


# States


@lru_cache(1)
def stored_states() -> tuple[bytes, ...]:
    """Records as a worker writes them: states with and without changes in them, a checkpoint, a fence."""
    definitions = every_feature()
    shelf = _Shelf()
    segmenter = Segmenter(definitions, shelf, lambda _: None)
    found = []
    for number, each in enumerate(EVENTS):
        segmenter.take(_decoder().decode(each, "t/0/", number))
        head, body = records.encode_state(State(shelf["c"], {"t": number}), definitions.layout, 3)
        found += [records.record(head, body, []), records.record(head, body, [Sent(number, NOW, b'{"to":"x"}')])]
    checkpoint = records.Checkpoint(5, 5, NOW, {"t": 4}, -1, definitions.hash)
    return (*found, records.encode_checkpoint(checkpoint), records.encode_fence(3))


def state(data: bytes) -> str:
    """Whatever stands in a changelog is refused with a StateError, or read."""
    for key in (records.CHECKPOINT_KEY, records.FENCE_KEY, b"\x00?"):
        _load(key, data)
    if not _load(b"c", data):
        return "refused"
    definitions = every_feature()
    data = records.in_this_format(data)
    _ = records.read_header(data), records.epoch_of(data), records.has_outbox(data), records.summary(data)
    try:
        records.read_outbox(data)
        records.decode_state(records.without_outbox(data), definitions.layout)
    except StateError:
        return "broken"
    return "read"


class _Record(NamedTuple):
    """A record of the changelog."""

    key: bytes
    value: bytes
    offset: int


def _load(key: bytes, data: bytes) -> bool:
    """Whether a record is taken, alone or after the fence of its writer."""
    try:
        Loaded().take([_Record(key, data, 5)])
        Loaded().take([_Record(records.FENCE_KEY, records.encode_fence(3), 4), _Record(key, data, 5)])
    except ForeignRecordError:
        return False
    return True


ORACLES: Mapping[str, Callable[[bytes], Any]] = {"event": event, "definitions": definitions, "state": state}
