"""Stored states: what is read back goes on exactly as what was written, and what cannot be read says so."""

from __future__ import annotations

import base64
import json
import random
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.profile import UNSET, Profile
from streamseg.core.segmenter import Segmenter
from streamseg.core.units import DAY
from streamseg.formats import state as records
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.messages import change_data
from streamseg.formats.state import Checkpoint, Header, Sent, State, StateError
from streamseg.replay import Replay
from streamseg.shop import Shop

RICH = b"""\
version: 1
currency: USD
features:
  orders: count(purchase, 30d)
  spend: sum(purchase.amount, 90d)
  mean: avg(purchase.amount, 60d)
  dearest: max(purchase.amount, 45d)
  cheapest: min(purchase.amount, all)
  items: sum(purchase.items, 30d)
  colours: distinct(page_view.category, 7d)
  ever_seen: distinct(page_view.category, all)
  views: count(page_view where category == "shoes" or category == "wine", 3d)
  quiet: since(any)
schemes:
  value:
    default: rest
    segments:
      - name: top
        when: orders >= 2 and (spend >= 80 or mean > 45.5) and dearest < 300
        stay_when: orders >= 1
        min_stay: 2d
      - name: some
        when: items >= 1 or cheapest < 15
  browsing:
    default: nothing
    segments:
      - name: wide
        when: colours >= 3
      - name: shoes
        when: views > 0 and last(page_view.category) != "toys"
      - name: seen
        when: ever_seen >= 1 and quiet <= 5d and attr(plan) in ["pro", "plus"]
"""
STARTER = files("streamseg").joinpath("definitions/starter.yaml").read_bytes()


def lines(seed: int) -> list[bytes]:
    shop = Shop(seed=seed, customers=60, events=2_000, span_ms=120 * DAY, late_ratio=0.05, duplicate_ratio=0.05)
    return [line for _, line in shop.lines()]


def stored_and_read(definitions: Definitions, profile: Profile) -> Profile:
    """What comes back of a profile when it goes through a record as a worker writes it, outbox and all."""
    head, body = records.encode_state(State(profile, {"events": 7}), definitions.layout, 3)
    record = records.record(head, body, [Sent(1, 2, b"{}")])
    assert records.without_outbox(record) == records.kept(head, body)
    return records.decode_state(record, definitions.layout).profile


def replayed(definitions: Definitions, events: list[bytes], until: int, dice: random.Random | None) -> list[bytes]:
    changes: list[Change] = []
    replay = Replay(definitions, changes.append)
    for event in events:
        replay.feed(event)
        if dice is not None and replay.profiles and dice.random() < 0.3:
            customer = dice.choice(sorted(replay.profiles))
            queued = replay.profiles[customer].queued
            replay.profiles[customer] = stored_and_read(definitions, replay.profiles[customer])
            replay.profiles[customer].queued = queued  # is of the heap, not of the state
    replay.segmenter.advance(replay.segmenter.clock + until)
    return [change_data(change) for change in changes]


@pytest.mark.parametrize("file", [RICH, STARTER], ids=["every kind of feature", "the starter's"])
@pytest.mark.parametrize("seed", [1, 2])
def test_customers_stored_and_read_at_random_moments_have_the_same_changes(file: bytes, seed: int) -> None:
    definitions, events = load_definitions(file), lines(seed)
    expected = replayed(definitions, events, 400 * DAY, None)
    assert len(expected) > 100
    assert replayed(definitions, events, 400 * DAY, random.Random(seed)) == expected


@pytest.fixture
def definitions() -> Definitions:
    return load_definitions(RICH)


@pytest.fixture
def profile(definitions: Definitions) -> Profile:
    replay = Replay(definitions, lambda _: None)
    replay.run(lines(4))
    return max(replay.profiles.values(), key=lambda each: len(each.orders))


def written(definitions: Definitions, state: State, outbox: list[Sent] | None = None) -> bytes:
    head, body = records.encode_state(state, definitions.layout, 3)
    return records.record(head, body, outbox or [])


def read(definitions: Definitions, data: bytes) -> State:
    return records.decode_state(data, definitions.layout)


def test_everything_of_a_customer_comes_back(definitions: Definitions, profile: Profile) -> None:
    state = State(profile, {"events": 41, "web": 7}, worth=12_345)
    back = read(definitions, written(definitions, state))
    assert (back.offsets, back.worth) == ({"events": 41, "web": 7}, 12_345)
    kept = [name for name in Profile.__slots__ if name != "queued"]
    assert {name: getattr(back.profile, name) for name in kept} == {name: getattr(profile, name) for name in kept}


def test_what_was_read_and_written_again_is_the_same_bytes(definitions: Definitions, profile: Profile) -> None:
    data = written(definitions, State(profile, {"events": 41}, worth=5))
    assert written(definitions, read(definitions, data)) == data


def test_the_header_is_told_without_reading_the_rest(definitions: Definitions, profile: Profile) -> None:
    data = written(definitions, State(profile, {"events": 41, "web": 7}, worth=-12))
    header = records.read_header(data)
    assert header == Header(profile.at, profile.wake, -12, tuple(profile.segments))
    new = Profile(definitions.layout, 2)
    assert records.read_header(written(definitions, State(new, {}))).segments == (UNSET, UNSET)


def test_the_newer_of_two_records_has_the_greater_age(definitions: Definitions, profile: Profile) -> None:
    older = written(definitions, State(profile, {"events": 255}))
    newer = written(definitions, State(profile, {"events": 256}))
    profile.at += 1
    later = written(definitions, State(profile, {"events": 256}))
    assert records.age(older) < records.age(newer) < records.age(later)


def test_changes_travel_in_the_outbox_byte_for_byte(definitions: Definitions, profile: Profile) -> None:
    outbox = [Sent(7, 1_700_000_000_000, b'{"to":"champion"}'), Sent(8, 1_700_000_000_001, bytes(range(256)))]
    data = written(definitions, State(profile, {"events": 1}), outbox)
    assert records.has_outbox(data)
    assert records.read_outbox(data) == outbox
    plain = records.without_outbox(data)
    assert not records.has_outbox(plain)
    assert records.read_outbox(plain) == []
    assert plain == written(definitions, State(profile, {"events": 1}))
    assert records.without_outbox(plain) == plain


BIG = [2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**40, Fraction(1, 3), Fraction(10**40, 7)]


@pytest.mark.parametrize("number", BIG, ids=str)
def test_numbers_of_any_size_come_back_exactly(
    definitions: Definitions, profile: Profile, number: int | Fraction
) -> None:
    profile.totals[1] = number
    profile.attributes[0] = number
    back = read(definitions, written(definitions, State(profile, {"events": 1}))).profile
    assert back.totals == profile.totals
    assert back.attributes == profile.attributes
    assert back.orders == profile.orders


@pytest.mark.parametrize("form", [0, records.FORMAT + 1, 255])
def test_a_state_of_another_format_is_refused(definitions: Definitions, profile: Profile, form: int) -> None:
    data = bytearray(written(definitions, State(profile, {"events": 1})))
    assert data[0] == records.FORMAT
    data[0] = form
    data[36] = form
    with pytest.raises(
        StateError, match=f"a state of format {form}; this streamseg reads 1 to {records.FORMAT}: run the"
    ):
        read(definitions, bytes(data))


def test_a_state_of_other_definitions_is_refused(definitions: Definitions, profile: Profile) -> None:
    data = written(definitions, State(profile, {"events": 1}))
    with pytest.raises(StateError, match="made with other definitions"):
        read(load_definitions(STARTER), data)


@pytest.mark.parametrize("length", [0, 1, 20, 37, 60, 200])
def test_a_state_that_is_cut_off_is_refused(definitions: Definitions, profile: Profile, length: int) -> None:
    data = written(definitions, State(profile, {"events": 1}))
    with pytest.raises(StateError):
        read(definitions, data[:length])


def test_a_checkpoint_comes_back_and_garbage_is_refused() -> None:
    checkpoint = Checkpoint(12, 10, 1_700_000_000_000, {"events": 5}, -1, "sha256:ab")
    assert records.read_checkpoint(records.encode_checkpoint(checkpoint)) == checkpoint
    with pytest.raises(StateError, match="a checkpoint cannot be read"):
        records.read_checkpoint(b"\xc1")


def test_a_checkpoint_from_before_there_was_a_choice_of_partitions_is_read() -> None:
    written = msgspec.msgpack.encode([12, 10, 1_700_000_000_000, {"events": 5}, -1, "sha256:ab", 9, 3, "redis-1"])
    read = records.read_checkpoint(written)
    assert (read.whole, read.placement) == ("redis-1", "")


def test_a_position_rises_with_every_event_from_wherever_it_was_sent_on(
    definitions: Definitions, profile: Profile
) -> None:
    state = State(profile, {"events": 41})
    positions = [41 + 1]
    for source, offset in (("events/0", 0), ("events/3", 7), ("events/3", 9), ("events", 42), ("web/3", 0)):
        state.offsets[source] = offset
        positions.append(records.age(written(definitions, state))[0])
    assert positions == sorted(set(positions))
    assert read(definitions, written(definitions, state)).offsets == state.offsets


class Shelf(dict[str, Profile]):
    """Customers in memory."""

    def put(self, customer: str, profile: Profile) -> None:
        self[customer] = profile


def stored_before() -> list[tuple[int, dict[str, Any]]]:
    """Customers of earlier versions, with the format, and the changes that time made of them."""
    folder = Path(__file__).parent
    return [(1, json.loads((folder / "states_of_format_1.json").read_text()))] + [
        (2, each) for each in json.loads((folder / "states_of_format_2.json").read_text())
    ]


@pytest.mark.parametrize(("form", "stored"), stored_before(), ids=["1", "2, every kind of feature", "2, the starter's"])
def test_what_was_written_in_an_earlier_format_goes_on_exactly_as_it_would_have(
    form: int, stored: dict[str, Any]
) -> None:
    definitions = load_definitions(stored["definitions"].encode())
    changes, shelf = list[Change](), Shelf()
    for number, each in enumerate(stored["customers"]):
        record = records.in_this_format(base64.b64decode(each["record"]))
        assert records.epoch_of(record) == (0 if form == 1 else 5)
        assert records.read_outbox(record) == ([Sent(1, 2, b"{}")] if form == 1 or number % 2 else [])
        state = read(definitions, records.without_outbox(record))
        if form == 2:
            assert (state.offsets, state.worth, state.profile.at) == (each["offsets"], each["worth"], each["at"])
        again = written(definitions, state)
        assert again[0] == records.FORMAT
        shelf[each["customer"]] = read(definitions, again).profile
        assert (shelf[each["customer"]].segments, shelf[each["customer"]].wake) == (each["segments"], each["wake"])
    segmenter = Segmenter(definitions, shelf, changes.append)
    segmenter.clock = stored["clock"]
    segmenter.expect([(profile.wake, customer) for customer, profile in shelf.items()])
    segmenter.advance(stored["until"])
    for each in stored["customers"]:
        mine = [json.loads(change_data(change)) for change in changes if change.customer == each["customer"]]
        assert mine == each["changes"]


def test_a_fence_comes_back_and_garbage_is_refused() -> None:
    assert records.read_fence(records.encode_fence(70_000)) == 70_000
    with pytest.raises(StateError, match="a fence cannot be read"):
        records.read_fence(b"\x00")
