"""Fetches that the compiled core reads bring, record by record, what aiokafka would have made of them."""

from __future__ import annotations

import gc
import struct
import weakref
from itertools import accumulate
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st
from streamseg_engine import Fetched

from streamseg.worker.fetches import PlainRecords, SentRecords

GZIP, SNAPPY, LZ4 = 1, 2, 3
TRANSACTIONAL, CONTROL, APPEND_TIME = 16, 32, 8
ATTRIBUTES, CRC = 21, 17
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"
NOW = 1_764_000_000_123

contents = st.none() | st.binary(max_size=40) | st.integers(0, 2000).map(bytes)
headers = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=9), contents), max_size=2)
records = st.lists(st.tuples(contents, contents, headers, st.integers(-5_000, 5_000)), min_size=1, max_size=12)


class Sent(NamedTuple):
    """A record batch as a broker sends it."""

    base: int
    data: bytes


def batch(base: int, records: list[Any], codec: int = 0, attributes: int = 0, producer: int = -1) -> Sent:
    builder = DefaultRecordBatchBuilder(2, codec, bool(attributes & TRANSACTIONAL), producer, 0, 0, 1 << 20)
    for number, (key, value, headers, later) in enumerate(records):
        builder.append(number, NOW + later, key, value, headers)
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, base)
    data[ATTRIBUTES + 1] |= attributes
    struct.pack_into(">I", data, CRC, calc_crc32c(memoryview(data)[ATTRIBUTES:]))
    return Sent(base, bytes(data))


def marker(base: int, producer: int, kind: bytes) -> Sent:
    return batch(base, [(kind, b"\0\0\0\0\0\0", [], 0)], 0, TRANSACTIONAL | CONTROL, producer)


def as_tuple(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.key, record.value, list(record.headers)


def aiokafkas(data: bytes, start: int, aborted: list[tuple[int, int]]) -> tuple[list[tuple[Any, ...]], int]:
    tp = TopicPartition("events", 0)
    found = PartitionRecords(tp, MemoryRecords(data), aborted, start, None, None, True, READ_COMMITTED)
    return [as_tuple(record) for record in found], found.next_fetch_offset


def ours(data: bytes | memoryview, start: int, aborted: list[tuple[int, int]]) -> tuple[list[tuple[Any, ...]], int]:
    found = Fetched.read(data, start, aborted)
    assert found is not None
    return [as_tuple(record) for record in found], found.next_offset


def amid_a_response(data: bytes) -> memoryview:
    return memoryview(b"before" + data + b"behind")[6:-6]


@given(st.lists(st.tuples(records, st.sampled_from([0, SNAPPY]), st.sampled_from([0, APPEND_TIME]))), st.data())
def test_a_fetch_brings_what_aiokafka_reads_from_it(batches: list[Any], data: st.DataObject) -> None:
    bases = accumulate((len(records) + data.draw(st.integers(0, 2)) for records, _, _ in batches), initial=100)
    sent = b"".join(batch(base, *one).data for base, one in zip(bases, batches, strict=False))
    start = data.draw(st.integers(95, 99 + len(batches[0][0]) if batches else 95))  # a fetch begins with its batch
    assert ours(sent, start, []) == aiokafkas(sent, start, [])
    cut = sent[: data.draw(st.integers(0, len(sent)))]
    assert ours(cut, start, []) == ours(amid_a_response(cut), start, []) == aiokafkas(cut, start, [])


@given(st.lists(st.tuples(st.sampled_from("tno"), st.sampled_from([7, 8]), st.booleans()), max_size=12), st.data())
def test_events_of_aborted_transactions_never_happened(steps: list[tuple[str, int, bool]], data: st.DataObject) -> None:
    """Each step appends a batch amid a producer's transaction, ends the transaction, or appends one of nobody's."""
    sent, aborted, begun, base = b"", [], dict[int, int](), 0
    for kind, producer, aborts in steps:
        one: list[Any] = [(b"k", b"v%d" % base, [], 0)]
        if kind == "t":
            begun.setdefault(producer, base)
            sent += batch(base, one, data.draw(st.sampled_from([0, SNAPPY])), TRANSACTIONAL, producer).data
        elif kind == "n":
            sent += batch(base, one).data
        elif producer in begun:
            first = begun.pop(producer)
            aborted += [(producer, first)] if aborts else []
            sent += marker(base, producer, ABORT if aborts else COMMIT).data
        else:
            continue
        base += 1
    aborted = data.draw(st.permutations(aborted))
    assert ours(sent, 0, aborted) == aiokafkas(sent, 0, aborted)


@given(st.lists(records, min_size=1, max_size=4), st.lists(st.integers(1, 9), max_size=8))
def test_a_fetch_can_be_taken_in_parts(batches: list[Any], sizes: list[int]) -> None:
    bases = accumulate((len(records) for records in batches), initial=5)
    whole = Fetched.read(b"".join(batch(*one).data for one in zip(bases, batches, strict=False)), 5, [])
    assert whole is not None
    found: list[Any] = []
    left = whole
    for size in [*sizes, len(whole)]:
        part = left.part(0, size)
        assert part.next_offset == 5 + len(found) + len(part)
        found += map(as_tuple, part)
        left = left.part(len(part), len(left))
    assert found == [as_tuple(each) for each in whole]
    assert len(left) == 0
    assert left.next_offset == whole.next_offset


@given(st.lists(st.tuples(st.lists(records, min_size=1, max_size=3), st.integers(0, 3)), min_size=1, max_size=4))
def test_what_several_fetches_brought_is_one_after_the_other_when_they_are_joined(fetches: list[Any]) -> None:
    parts, base = [], 5
    for batches, left_out in fetches:
        bases = list(accumulate((len(records) for records in batches), initial=base))
        whole = Fetched.read(b"".join(batch(*one).data for one in zip(bases, batches, strict=False)), base, [])
        assert whole is not None
        parts.append(whole.part(left_out, len(whole)))
        base = bases[-1]
    joined = Fetched.joined(parts)
    assert [as_tuple(each) for each in joined] == [as_tuple(each) for part in parts for each in part]
    assert joined.next_offset == parts[-1].next_offset
    some = joined.part(1, 2)
    assert [as_tuple(each) for each in some] == [as_tuple(each) for each in joined][1:3]


def test_there_has_to_be_something_to_join() -> None:
    with pytest.raises(ValueError, match="nothing to join"):
        Fetched.joined([])


def test_the_last_record_can_be_asked_for_and_one_that_is_not_there_is_an_error() -> None:
    whole = Fetched.read(batch(7, [(b"a", b"1", [], 0), (b"b", None, [], 0)]).data, 0, [])
    assert whole is not None
    assert (whole[-1].offset, whole[-1].key, whole[-1].value) == (8, b"b", None)
    for place in (2, -3):
        with pytest.raises(IndexError):
            whole[place]


def test_a_header_whose_name_is_no_text_does_not_keep_a_record_away() -> None:
    data = bytearray(batch(0, [(b"k", b"v", [("name", b"x")], 0)]).data)
    place = data.index(b"name")
    data[place : place + 1] = b"\xff"
    struct.pack_into(">I", data, CRC, calc_crc32c(memoryview(data)[ATTRIBUTES:]))
    whole = Fetched.read(bytes(data), 0, [])
    assert whole is not None
    assert whole[0].headers == [("\ufffdame", b"x")]


@pytest.mark.parametrize("codec", [GZIP, LZ4])
def test_what_is_compressed_otherwise_is_left_to_aiokafka(codec: int) -> None:
    assert Fetched.read(batch(0, [(b"k", bytes(500), [], 0)], codec).data, 0, []) is None


@given(st.lists(records, min_size=1, max_size=3), st.sampled_from([0, SNAPPY]), st.data())
def test_what_is_damaged_is_left_to_aiokafka_which_says_so(batches: list[Any], codec: int, data: st.DataObject) -> None:
    sent = bytearray(b"".join(batch(0, records, codec).data for records in batches))
    place = data.draw(st.integers(ATTRIBUTES, struct.unpack_from(">i", sent, 8)[0] + 11))
    sent[place] ^= data.draw(st.integers(1, 255))
    assert Fetched.read(bytes(sent), 0, []) is None


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_or_refused(data: bytes, is_sealed: bool) -> None:
    """A checksum that is right does not mean that the rest makes sense."""
    if is_sealed:
        head = bytearray(struct.pack(">qiib", 0, len(data) + 9, 0, 2) + bytes(4) + data)
        struct.pack_into(">I", head, CRC, calc_crc32c(memoryview(head)[ATTRIBUTES:]))
        data = bytes(head)
    found = Fetched.read(data, 0, [])
    assert found is None or len([as_tuple(each) for each in found]) == len(found)


def test_what_was_taken_of_a_fetch_is_let_go_of_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainRecords, "topics", frozenset({"events"}))
    monkeypatch.setattr(PlainRecords, "compiled", True)
    sent = SentRecords(batch(0, [(b"c1", b"{}", [], 0), (b"c2", b"{}", [], 0)]).data)
    gc.disable()  # no collection may be needed: what waits for one is more than what is at work
    try:
        fetch = PlainRecords(TopicPartition("events", 0), sent, None, 0, None, None, True, READ_UNCOMMITTED)
        is_there = weakref.ref(fetch)
        assert [record.key for record in fetch.take(None)] == [b"c1", b"c2"]
        del fetch
        assert is_there() is None
    finally:
        gc.enable()
