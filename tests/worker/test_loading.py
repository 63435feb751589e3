"""What a changelog says of customers when workers wrote to it that had lost the partition without knowing."""

from __future__ import annotations

import pytest

from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.formats import state as records
from streamseg.formats.definitions_yaml import read_definitions
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, Checkpoint, Sent, State
from streamseg.worker.loading import Loaded
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


def test_of_two_workers_with_one_epoch_the_first_to_write_its_fence_has_it() -> None:
    read = loaded((FENCE_KEY, fence(2)), (FENCE_KEY, fence(2)))
    assert (read.epoch, read.fenced_at) == (2, 0)
