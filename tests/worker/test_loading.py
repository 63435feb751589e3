"""What a changelog says of customers when workers wrote to it that had lost the partition without knowing."""

from __future__ import annotations

import pytest

from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.formats import state as records
from streamseg.formats.definitions_yaml import read_definitions
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, Checkpoint, Sent, State
from streamseg.worker.loading import ForeignRecordError, Loaded
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
    head, body = records.encode_state(held, definitions.layout.fingerprint.encode(), epoch)
    return records.record(head, body, [Sent(position, 0, b"%d by %d" % (position, epoch))])


def fence(epoch: int) -> bytes:
    return records.encode_fence(epoch)


def checkpoint(epoch: int, published: int) -> bytes:
    return records.encode_checkpoint(Checkpoint(published, published, 0, {}, -1, "", published, epoch))


def loaded(*log: tuple[bytes, bytes]) -> Loaded:
    read = Loaded()
    for offset, (key, value) in enumerate(log):
        read.add(key, value, offset)
    return read


def told(read: Loaded) -> list[bytes]:
    return [sent.data for _, _, sent in read.outbox]


def test_what_is_written_before_the_fence_of_a_successor_counts(definitions: Definitions) -> None:
    read = loaded((FENCE_KEY, fence(1)), (ADA, state(definitions, 1, 1)), (FENCE_KEY, fence(2)))
    assert records.read_header(read.states[ADA]).position == 1
    assert told(read) == [b"1 by 1"]
    assert (read.epoch, read.fenced_at, read.stale) == (2, 2, 0)


def test_what_is_written_behind_the_fence_of_a_successor_does_not_count_however_far_it_is(
    definitions: Definitions,
) -> None:
    read = loaded(
        (FENCE_KEY, fence(1)),
        (ADA, state(definitions, 1, 1)),
        (FENCE_KEY, fence(2)),
        (ADA, state(definitions, 2, 2)),
        (ADA, state(definitions, 3, 1)),
        (CHECKPOINT_KEY, checkpoint(1, 99)),
    )
    assert records.read_header(read.states[ADA]).position == 2
    assert told(read) == [b"1 by 1", b"2 by 2"]
    assert read.published == 0
    assert read.stale == 1
    # Compaction would keep only the record that does not count.
    assert list(read.shadowed) == [ADA]


def test_a_state_that_was_written_again_is_shadowed_no_more(definitions: Definitions) -> None:
    read = loaded(
        (FENCE_KEY, fence(2)),
        (ADA, state(definitions, 2, 2)),
        (ADA, state(definitions, 3, 1)),
        (ADA, state(definitions, 2, 2)),
    )
    assert records.read_header(read.states[ADA]).position == 2
    assert list(read.shadowed) == []


def test_records_tell_their_epoch_when_compaction_took_the_fence(definitions: Definitions) -> None:
    read = loaded((b"bob", state(definitions, 9, 2)), (ADA, state(definitions, 3, 1)), (FENCE_KEY, fence(3)))
    assert list(read.states) == [b"bob"]
    assert (read.epoch, read.fenced_at) == (3, 2)


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
        Loaded("state/3").add(key, value, 41)
    place = f"state/3 has at offset 41, under the key {key!r}"
    assert str(caught.value).startswith(f"{place}, a record that cannot be read: ")
    assert "start with the version that wrote it, or with another --group and --prefix" in str(caught.value)
    assert caught.value.exit_code == 70


def test_what_is_of_nobody_is_passed_over() -> None:
    read = loaded((b"\x00of another version", b"?"))
    read.add(ADA, None, 1)
    read.add(CHECKPOINT_KEY, None, 2)
    assert (read.states, read.checkpoint, read.stale) == ({}, None, 0)


def test_of_two_workers_with_one_epoch_the_first_to_write_its_fence_has_it() -> None:
    read = loaded((FENCE_KEY, fence(2)), (FENCE_KEY, fence(2)))
    assert (read.epoch, read.fenced_at) == (2, 0)
