"""Records batched by the compiled core are, byte for byte, what aiokafka would have made of them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import example, given
from hypothesis import strategies as st
from streamseg_engine import Records

from streamseg.worker.log import Item

HEAD = 61
CRC = slice(17, 21)
NOW = 1_764_000_000_123
PRODUCER = 4_000_000_007, 3, 250_000

contents = st.binary(max_size=300) | st.integers(0, 3000).map(bytes)
headers = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=70), contents), max_size=3)
items = st.lists(st.tuples(st.none() | contents, st.none() | contents, headers), max_size=80)


def filled(items: list[Item], batch_bytes: int, max_record_bytes: int = 1 << 20) -> Records:
    records = Records(batch_bytes, max_record_bytes)
    for item in items:
        records.push(*item)
    return records


def ours(items: list[Item], batch_bytes: int, compression: Literal["snappy", "none"]) -> list[tuple[int, bytes]]:
    sealed = filled(items, batch_bytes).seal(NOW, compression)
    for batch in sealed:
        batch.stamp(*PRODUCER)
    return [(batch.count, bytes(batch)) for batch in sealed]


def aiokafkas(items: list[Item], batch_bytes: int, codec: int) -> list[tuple[int, bytes]]:
    builders: list[Any] = []
    for key, value, headers in items:
        record = {"timestamp": NOW, "key": key, "value": value, "headers": headers}
        if not builders or builders[-1].append(**record) is None:
            builders.append(BatchBuilder(batch_bytes, codec))
            builders[-1].append(**record)
    for builder in builders:
        builder._set_producer_state(*PRODUCER)
    return [(builder.record_count(), bytes(builder._build())) for builder in builders]


@given(items, st.sampled_from([0, 100, 600, 16_384, 1 << 20]))
@example([(None, None, []), (None, None, []), (None, None, [("0", b""), ("0", bytes(12))])], 100)  # just as large
def test_batches_without_compression_are_aiokafkas_to_the_last_byte(items: list[Item], batch_bytes: int) -> None:
    assert ours(items, batch_bytes, "none") == aiokafkas(items, batch_bytes, 0)


@given(items, st.sampled_from([600, 16_384, 1 << 20]))
def test_batches_with_snappy_read_as_aiokafkas_but_stay_plain_where_it_makes_them_no_smaller(
    items: list[Item], batch_bytes: int
) -> None:
    for (count, batch), (_, plain), (other_count, other) in zip(
        ours(items, batch_bytes, "snappy"),
        aiokafkas(items, batch_bytes, 0),
        aiokafkas(items, batch_bytes, 2),
        strict=True,
    ):
        assert count == other_count
        assert read(batch) == read(other)
        if len(batch) == len(plain):
            assert batch == plain
        else:
            assert len(batch) < len(plain)
            assert batch[CRC.stop : HEAD + 16] == other[CRC.stop : HEAD + 16]


@given(items, st.sampled_from(["none", "snappy"]))
def test_what_goes_in_is_what_consumers_read(items: list[Item], compression: Literal["snappy", "none"]) -> None:
    batches = ours(items, 2000, compression)
    read_back = [each for _, batch in batches for each in read(batch)]
    assert [(key, value, headers) for _, _, key, value, headers in read_back] == items
    assert [offset for offset, *_ in read_back] == [each for count, _ in batches for each in range(count)]


@given(items)
def test_records_can_be_had_back_for_another_way_of_sending_them(items: list[Item]) -> None:
    records = filled(items, 2000)
    assert len(records) == len(items)
    assert records.items() == items


def read(batch: bytes) -> list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes]]]]:
    memory = MemoryRecords(batch)
    found = memory.next_batch()
    assert memory.next_batch() is None
    assert found is not None
    assert found.validate_crc()
    return [
        (record.offset, record.timestamp, record.key, record.value, [(name, value) for name, value in record.headers])
        for record in found
    ]


def test_snappy_is_used_where_it_helps_over_many_blocks() -> None:
    [(count, batch)] = ours([(b"%d" % each, b"state " * 40, []) for each in range(1500)], 1 << 20, "snappy")
    assert count == 1500
    assert len(batch) < 100_000
    assert DefaultRecordBatch(batch).compression_type == DefaultRecordBatch.CODEC_SNAPPY
    assert [value for _, _, _, value, _ in read(batch)] == [b"state " * 40] * 1500


def test_a_record_larger_than_a_batch_gets_one_of_its_own() -> None:
    items: list[Item] = [(b"a", b"x", []), (b"b", b"y" * 3_000_000, []), (b"c", None, []), (None, b"", [])]
    batches = ours(items, 16_384, "none")
    assert [count for count, _ in batches] == [1, 1, 2]
    assert batches == aiokafkas(items, 16_384, 0)


def test_the_largest_record_is_told_as_the_log_counts_and_of_those_that_are_too_large_the_first() -> None:
    assert filled([], 1000).largest() == (0, b"")
    items: list[Item] = [(b"a", b"xyz", []), (b"bc", None, [("id", b"7")]), (None, b"x" * 10, [])]
    assert filled(items, 1000).largest() == (2 + 2 + 1 + 12, b"bc")
    too_large: list[Item] = [*items, (b"first", b"x" * 80, []), (b"second", b"x" * 800, [])]
    assert filled(too_large, 1000, 200).largest() == (85, b"first")


def test_what_cannot_be_sealed_or_stamped_is_refused() -> None:
    with pytest.raises(ValueError, match="no compression of this name: zstd"):
        filled([(b"a", b"b", [])], 1000).seal(NOW, "zstd")  # type: ignore[arg-type]
    [sealed] = filled([(b"a", b"b", [])], 1000).seal(NOW, "none")
    with memoryview(sealed) as view:
        assert view.readonly
        with pytest.raises(BufferError, match="somebody looks at this batch"):
            sealed.stamp(*PRODUCER)
    sealed.stamp(*PRODUCER)


def test_a_batch_made_where_another_was_has_nothing_of_it() -> None:
    large: list[Item] = [(b"a", b"x" * 100_000, [])]
    small: list[Item] = [(b"b", b"y" * 50_000, [])]
    for items in (large, small, large):
        assert ours(items, 1 << 20, "none") == aiokafkas(items, 1 << 20, 0)
