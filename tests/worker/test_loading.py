"""What a changelog says of customers when workers wrote to it that had lost the partition without knowing."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.formats import state as records
from streamseg.formats.definitions_yaml import load_definitions, read_definitions
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, Checkpoint, Sent, State
from streamseg.worker.loading import ForeignRecordError, Loaded
from streamseg.worker.states import States
from tests.docs.markdown import ROOT
from tests.worker.running_worker import STARTER

ADA = b"ada"


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return read_definitions(STARTER)


def state(definitions: Definitions, position: int, epoch: int) -> bytes:
    """Ada's state after some events, with a change in the outbox."""
    profile = Profile(definitions.layout, len(definitions.schemes))
    profile.version = position
    held = State(profile, {"events": position - 1})
    head, body = records.encode_state(held, definitions.layout, epoch)
    return records.record(head, body, [Sent(position, 0, b"%d by %d" % (position, epoch))])


def fence(epoch: int) -> bytes:
    return records.encode_fence(epoch)


def checkpoint(epoch: int, published: int) -> bytes:
    return records.encode_checkpoint(Checkpoint(published, published, 0, {}, -1, "", published, epoch))


@dataclass(frozen=True)
class Written:
    """A record of the changelog."""

    key: bytes | None
    value: bytes | None
    offset: int


def written(log: Sequence[tuple[bytes, bytes | None]]) -> list[Written]:
    return [Written(key, value, offset) for offset, (key, value) in enumerate(log)]


def loaded(states: States, *log: tuple[bytes, bytes | None], ahead: int | None = None) -> Loaded:
    """What a log says; `ahead` is how many of its last records are looked at before."""
    read = Loaded(states)
    all_of_it = written(log)
    if ahead is not None:
        read.look_ahead(all_of_it[-ahead:])
    read.take(all_of_it[:2])
    read.take(all_of_it[2:])
    return read


def position(read: Loaded, customer: bytes) -> int:
    """How far the state of a customer is that counts."""
    found = read.states.get(customer)
    assert found is not None
    assert not records.has_outbox(found)
    return records.age(found)[0]


def told(read: Loaded) -> list[bytes]:
    return [sent.data for _, _, sent in read.outbox]


def test_what_is_written_before_the_fence_of_a_successor_counts(definitions: Definitions, states: States) -> None:
    read = loaded(states, (FENCE_KEY, fence(1)), (ADA, state(definitions, 1, 1)), (FENCE_KEY, fence(2)))
    assert position(read, ADA) == 1
    assert told(read) == [b"1 by 1"]
    assert (read.epoch, read.fenced_at, read.stale) == (2, 2, 0)


def test_what_is_written_behind_the_fence_of_a_successor_does_not_count_however_far_it_is(
    definitions: Definitions, states: States
) -> None:
    read = loaded(
        states,
        (FENCE_KEY, fence(1)),
        (ADA, state(definitions, 1, 1)),
        (FENCE_KEY, fence(2)),
        (ADA, state(definitions, 2, 2)),
        (ADA, state(definitions, 3, 1)),
        (CHECKPOINT_KEY, checkpoint(1, 99)),
    )
    assert position(read, ADA) == 2
    assert told(read) == [b"1 by 1", b"2 by 2"]
    assert read.published == 0
    assert read.stale == 1
    # Compaction would keep only the record that does not count.
    assert list(read.shadowed) == [ADA]


def test_a_state_that_was_written_again_is_shadowed_no_more(definitions: Definitions, states: States) -> None:
    read = loaded(
        states,
        (FENCE_KEY, fence(2)),
        (ADA, state(definitions, 2, 2)),
        (ADA, state(definitions, 3, 1)),
        (ADA, state(definitions, 2, 2)),
    )
    assert position(read, ADA) == 2
    assert list(read.shadowed) == []


def test_records_tell_their_epoch_when_compaction_took_the_fence(definitions: Definitions, states: States) -> None:
    read = loaded(states, (b"bob", state(definitions, 9, 2)), (ADA, state(definitions, 3, 1)), (FENCE_KEY, fence(3)))
    assert list(read.states) == [b"bob"]
    assert (read.epoch, read.fenced_at) == (3, 2)


def test_states_and_changes_of_an_earlier_format_count(states: States) -> None:
    (stored, _) = json.loads((ROOT / "tests" / "formats" / "states_of_format_2.json").read_text())
    definitions = load_definitions(stored["definitions"].encode())
    customers = [(each["customer"].encode(), b64decode(each["record"])) for each in stored["customers"]]
    late = [(key, value.replace(b"\x02\x00\x00\x00\x05", b"\x02\x00\x00\x00\x04", 1)) for key, value in customers[:1]]
    read = loaded(states, (FENCE_KEY, fence(5)), *customers, *late)
    assert (read.epoch, read.stale, list(read.shadowed)) == (5, 1, [customers[0][0]])
    assert told(read) == [b"{}"] * 4
    for each in stored["customers"]:
        kept = read.states.get(each["customer"].encode())
        assert kept is not None
        found = records.decode_state(kept, definitions.layout)
        assert (found.offsets, found.profile.wake) == (each["offsets"], each["wake"])
        assert records.age(kept) == (sum(each["offsets"].values()) + len(each["offsets"]), each["at"])


FOREIGN = {
    "no key": (None, b"x"),
    "a key that is no text": (b"\xff", b"x"),
    "garbage": (ADA, b"no state of anybody's, and long enough to be one"),
    "nothing": (ADA, b""),
    "a state that is cut off": (ADA, bytes(36) + b"\x02" + bytes(4)),
    "a state of a newer version": (ADA, bytes(36) + b"\x07" + bytes(40)),
    "changes longer than the record": (ADA, bytes(36) + b"\x02" + bytes(5) + b"\xff\xff\xff\xff" + bytes(9)),
    "a fence that is none": (FENCE_KEY, b"?"),
    "a checkpoint that is none": (CHECKPOINT_KEY, b"\xc1"),
    "a checkpoint that is no text": (CHECKPOINT_KEY, b"\x96\x00\x00\x00\x81\xa1\xff\x00\xff\xa0"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_no_worker_wrote_is_refused_with_its_place_and_the_way_out(name: str) -> None:
    key, value = FOREIGN[name]
    with pytest.raises(ForeignRecordError) as caught:
        Loaded(place="state/3").take([Written(key, value, 41)])
    place = f"state/3 has at offset 41, under the key {key!r}"
    assert str(caught.value).startswith(f"{place}, a record that cannot be read: ")
    assert "start with the version that wrote it, or with another --group and --prefix" in str(caught.value)
    assert caught.value.exit_code == 70


def test_what_is_of_nobody_is_passed_over(states: States) -> None:
    read = loaded(states, (b"\x00of another version", b"?"), (ADA, None), (CHECKPOINT_KEY, None))
    assert (read.empty, read.checkpoint, read.stale) == (True, None, 0)


def test_of_two_workers_with_one_epoch_the_first_to_write_its_fence_has_it(states: States) -> None:
    read = loaded(states, (FENCE_KEY, fence(2)), (FENCE_KEY, fence(2)))
    assert (read.epoch, read.fenced_at) == (2, 0)


def test_a_customer_of_times_before_epochs_is_where_the_highest_position_says(
    definitions: Definitions, states: States
) -> None:
    read = loaded(states, (ADA, state(definitions, 2, 0)), (ADA, state(definitions, 1, 0)), (FENCE_KEY, fence(1)))
    assert position(read, ADA) == 2
    assert list(read.shadowed) == [ADA]


def test_a_customer_who_was_deleted_is_unknown_and_one_who_came_back_is_known(
    definitions: Definitions, states: States
) -> None:
    first, again = state(definitions, 1, 1), state(definitions, 2, 1)
    read = loaded(
        states, (FENCE_KEY, fence(1)), (ADA, first), (b"bob", first), (ADA, None), (b"bob", None), (ADA, again)
    )
    assert list(read.states) == [ADA]
    assert position(read, ADA) == 2
    assert not read.empty


def test_what_a_checkpoint_at_the_end_says_is_done_is_not_kept(definitions: Definitions, states: States) -> None:
    log = [
        (FENCE_KEY, fence(1)),
        (ADA, state(definitions, 1, 1)),
        (b"bob", state(definitions, 2, 1)),
        (CHECKPOINT_KEY, checkpoint(1, 2)),
    ]
    read = loaded(states, *log, ahead=1)
    assert told(read) == [b"2 by 1"]
    assert list(read.touched) == [b"bob"]
    assert not read.misled
    assert (position(read, ADA), position(read, b"bob")) == (1, 2)


def test_a_checkpoint_of_a_worker_that_had_lost_the_partition_misleads_and_is_found_out(
    definitions: Definitions, states: States
) -> None:
    log = [
        (FENCE_KEY, fence(1)),
        (FENCE_KEY, fence(2)),
        (ADA, state(definitions, 1, 2)),
        (CHECKPOINT_KEY, checkpoint(1, 3)),
    ]
    assert loaded(states, *log, ahead=1).misled
    read = loaded(states, *log)
    assert not read.misled
    assert told(read) == [b"1 by 2"]
