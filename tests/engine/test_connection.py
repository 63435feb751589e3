"""What comes from a broker, and goes to it, is the same bytes, however it is cut."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, conn
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.consumer import fetcher
from aiokafka.protocol.produce import ProduceRequest
from hypothesis import given
from hypothesis import strategies as st
from streamseg_engine import Room

from streamseg.worker.app import ShellSettings, build_app
from streamseg.worker.connection import (
    LARGE_BYTES,
    STAGE_BYTES,
    Connection,
    FramedProtocol,
    Frames,
    produced,
)
from streamseg.worker.fetches import PlainRecords, SentRecords

T = TypeVar("T")
SIZES = st.lists(
    st.sampled_from([0, 1, 4, 100, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1, STAGE_BYTES, 3 * STAGE_BYTES]),
    min_size=1,
    max_size=6,
)


class Told(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def eof_received(self) -> None:
        self.heard.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append(f"lost: {exc}")

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")


def receive(frames: Frames, data: bytes, most: int) -> None:
    """Receive as a transport does: at most so many bytes at once, and no more than there is room for."""
    while data:
        place = frames.get_buffer(-1)
        size = min(most, len(place), len(data))
        assert size > 0
        place[:size] = data[:size]
        frames.buffer_updated(size)
        data = data[size:]


def sent(contents: list[bytes]) -> bytes:
    return b"".join(struct.pack(">i", len(each)) + each for each in contents)


def at_once(coroutine: Awaitable[T]) -> T:
    async def run() -> T:
        return await asyncio.wait_for(coroutine, 5)

    return asyncio.run(run())


@given(SIZES, st.sampled_from([3, 1_000, 65_536, 1_000_000]))
def test_frames_come_whole_and_in_order_however_they_are_cut(sizes: list[int], most: int) -> None:
    contents = [(b"%d of %d, " % (number, size) * (size // 4))[:size] for number, size in enumerate(sizes)]
    frames = Frames(Told(), bytearray)

    receive(frames, sent(contents), max(most, sum(sizes) // 500))

    assert [bytes(at_once(frames.next())) for _ in contents] == contents


def test_a_large_frame_is_received_where_it_stays_and_a_small_one_is_bytes() -> None:
    rooms = []

    def room(size: int) -> bytearray:
        rooms.append(bytearray(size))
        return rooms[-1]

    frames = Frames(Told(), room)
    receive(frames, sent([b"small", b"x" * LARGE_BYTES * 8]), 100_000)

    assert at_once(frames.next()) == b"small"
    large = at_once(frames.next())
    assert isinstance(large, memoryview)
    assert large.obj is rooms[0]
    assert [len(each) for each in rooms] == [LARGE_BYTES * 8]


@pytest.mark.parametrize("lose", [lambda frames: frames.eof_received(), lambda frames: frames.connection_lost(None)])
def test_whoever_waits_for_a_frame_amid_which_the_connection_ends_is_told(lose: Callable[[Frames], None]) -> None:
    async def wait() -> None:
        frames = Frames(Told(), bytearray)
        receive(frames, sent([b"whole", b"x" * STAGE_BYTES * 2])[:-1], 1_000)
        assert await frames.next() == b"whole"
        waiting = asyncio.ensure_future(frames.next())
        await asyncio.sleep(0)
        lose(frames)
        with pytest.raises(ConnectionError):
            await waiting
        with pytest.raises(ConnectionError):
            await frames.next()

    asyncio.run(wait())


def test_whoever_is_no_broker_is_not_listened_to() -> None:
    frames = Frames(Told(), bytearray)
    receive(frames, sent([b"whole"]) + b"\xff\xff\xff\x00 and more", 1_000)
    assert at_once(frames.next()) == b"whole"
    with pytest.raises(ConnectionError, match="a frame of -256 bytes"):
        at_once(frames.next())


def test_the_protocol_of_aiokafka_hears_of_all_else() -> None:
    told = Told()
    frames = Frames(told, bytearray)
    frames.pause_writing()
    frames.resume_writing()
    frames.eof_received()
    frames.connection_lost(OSError("broken"))
    assert told.heard == ["pause", "resume", "eof", "lost: broken"]


TOPICS = st.lists(
    st.tuples(
        st.text(st.characters(codec="ascii"), max_size=9),
        st.lists(st.tuples(st.integers(0, 9), st.binary()), max_size=3),
    ),
    max_size=3,
)


@given(TOPICS, st.sampled_from([None, "mine"]), st.sampled_from([-1, 0, 1]))
def test_what_is_appended_is_written_as_aiokafka_writes_it(topics: Any, transactional: str | None, acks: int) -> None:
    request = ProduceRequest(required_acks=acks, timeout=1_000, topics=topics, transactional_id=transactional)
    for version in (3, 5, 7):
        prepared = request.prepare({request.API_KEY: (version, version)})
        assert b"".join(produced(prepared)) == prepared.encode()


def test_what_nobody_looks_at_any_more_is_room_for_what_comes() -> None:
    def place(room: Any) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(room))

    first = Room(300_000)
    part = memoryview(first)[1_000:2_000]
    part[:3] = b"abc"
    where = place(first)
    del first
    second = Room(300_000)
    assert len(second) == 300_000
    assert place(second) != where
    assert bytes(part[:3]) == b"abc"
    del part
    gc.collect()
    assert where in {place(each) for each in [Room(250_000) for _ in range(8)]}


def test_large_and_small_records_go_to_a_broker_and_come_back(kafka: str, prefix: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(conn, "AIOKafkaConnection", Connection)
    monkeypatch.setattr(conn, "AIOKafkaProtocol", FramedProtocol)
    monkeypatch.setattr(fetcher, "MemoryRecords", SentRecords)
    values = [(b"%d, " % size * size)[:size] for size in (2, 5_000, 40_000, 400_000, 7, 900_000)]

    async def there_and_back() -> list[bytes]:
        topic = TopicPartition(f"{prefix}-sent", 0)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        await admin.create_topics([NewTopic(topic.topic, 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=2_000_000) as producer:
            for value in values:
                await producer.send_and_wait(topic.topic, value, partition=0)
        async with AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
            consumer.assign([topic])
            return [(await asyncio.wait_for(consumer.getone(), 30)).value for _ in values]

    assert asyncio.run(there_and_back()) == values


def test_the_first_connections_of_a_worker_are_such_already(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(conn, "AIOKafkaConnection", conn.AIOKafkaConnection)
    monkeypatch.setattr(conn, "AIOKafkaProtocol", conn.AIOKafkaProtocol)
    for name in ("PartitionRecords", "FetchResult", "MemoryRecords"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    for name in ("topics", "compiled"):
        monkeypatch.setattr(PlainRecords, name, getattr(PlainRecords, name))
    settings = ShellSettings(
        kafka=("127.0.0.1:1",), event_topics=("events",), group="g", changelog_topic="c", partitions=1,
        data_dir=tmp_path, compiled=True,
    )  # fmt: skip

    build_app(settings, cast("Any", SimpleNamespace(full=lambda _partition: False)))

    assert conn.AIOKafkaConnection is Connection
