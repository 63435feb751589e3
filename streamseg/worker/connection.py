"""Connections to brokers that do not copy what they carry.

aiokafka puts what comes from a socket into one buffer, then into bytes of each response, then into those of each
partition, and does the same backwards, and once more, with what it sends. Under load that is a quarter of a worker's
CPU, most of it for clearing the new pages that each copy takes. Here a response is received where it stays, and a
request is written in the pieces it is made of.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from aiokafka import conn
from aiokafka.conn import AIOKafkaConnection, AIOKafkaProtocol, CloseReason
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.types import Int16, Int32, String
from aiokafka.util import wait_for

if TYPE_CHECKING:
    from typing_extensions import Buffer

LARGE_BYTES = 16 << 10
"""From this size on a response is received in a room of its own."""
STAGE_BYTES = 64 << 10
SHARED_BYTES = 4 << 10
"""From this size on a part of a response is not copied."""
_SIZE = struct.Struct(">i")
_FETCH: int = FetchRequest.API_KEY
_PRODUCE: int = ProduceRequest.API_KEY
_PRODUCE_VERSIONS = range(3, 8)
"""Those of one form."""


class Frames(asyncio.BufferedProtocol):
    """Cuts what is received into frames: a size, and as many bytes. Tells all else to aiokafka's own protocol.

    `room` gives a writable buffer of a size; small frames come as bytes.
    """

    def __init__(self, own: asyncio.Protocol, room: Callable[[int], Buffer]) -> None:
        self._own = own
        self._room = room
        self._stage = memoryview(bytearray(STAGE_BYTES))
        self._start = self._end = 0
        self._frame: memoryview | None = None
        """The large one that is being received, and how much of it is there."""
        self._filled = 0
        self._whole = deque[bytes | memoryview]()
        self._waiter: asyncio.Future[None] | None = None
        self._lost: BaseException | None = None

    async def next(self) -> bytes | memoryview:
        """Wait for the next frame. Raises ConnectionError or what the connection was lost by, if none will come."""
        while not self._whole:
            if self._lost is not None:
                raise self._lost
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._whole.popleft()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the place for what is received next."""
        del sizehint
        return self._stage[self._end :] if self._frame is None else self._frame[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of what was received."""
        if self._frame is None:
            self._end += nbytes
            self._cut()
        else:
            self._filled += nbytes
            self._end_frame(self._frame)
        if self._whole:
            self._wake()

    def _cut(self) -> None:
        while self._end - self._start >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._stage, self._start)
            start, end = self._start + _SIZE.size, self._start + _SIZE.size + size
            if size < 0:
                self._lose(ConnectionError(f"a frame of {size} bytes: whoever answers is no Kafka broker"))
                self._end = self._start
            elif end <= self._end:
                self._whole.append(bytes(self._stage[start:end]))
                self._start = end
            elif size >= LARGE_BYTES:
                self._frame, self._filled = memoryview(self._room(size)).cast("B"), self._end - start
                self._frame[: self._filled] = self._stage[start : self._end]
                self._start = self._end
            else:
                break
        left = self._end - self._start
        self._stage[:left] = self._stage[self._start : self._end]
        self._start, self._end = 0, left

    def _end_frame(self, frame: memoryview) -> None:
        if self._filled == len(frame):
            self._whole.append(frame)
            self._frame = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _lose(self, error: BaseException) -> None:
        self._lost = self._lost or error
        self._wake()

    def eof_received(self) -> bool | None:
        """End: nothing more comes."""
        self._lose(ConnectionError("the broker has closed the connection"))
        return self._own.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and say so to whoever waits."""
        self._lose(exc or ConnectionError("the connection to the broker is closed"))
        self._own.connection_lost(exc)

    def pause_writing(self) -> None:
        """Have whoever writes wait."""
        self._own.pause_writing()

    def resume_writing(self) -> None:
        """Let them go on."""
        self._own.resume_writing()


class FramedProtocol(AIOKafkaProtocol):  # type: ignore[misc]
    """aiokafka's, which lets frames come in."""

    frames: Frames

    def connection_made(self, transport: Any) -> None:
        """Take over from here on."""
        from streamseg_engine import Room

        super().connection_made(transport)
        self.frames = Frames(self, Room)
        transport.set_protocol(self.frames)


class Part:
    """Reads a frame from its beginning, as aiokafka's decoders do; what is long is not copied."""

    def __init__(self, frame: memoryview) -> None:
        self._frame = frame
        self._at = 0

    def read(self, size: int) -> bytes | memoryview:
        """Give the next bytes."""
        part = self._frame[self._at : self._at + size]
        self._at += size
        return part if size >= SHARED_BYTES else bytes(part)


class Connection(AIOKafkaConnection):  # type: ignore[misc]
    """aiokafka's, for large fetches and for what is produced."""

    _protocol: FramedProtocol
    _requests: deque[tuple[int | None, Any, asyncio.Future[Any]]]

    @staticmethod
    async def _read(self_ref: Callable[[], Connection | None]) -> None:
        self = self_ref()
        if self is None:
            return
        frames = self._protocol.frames
        del self  # nobody else may hold it: see aiokafka
        while True:
            frame = await frames.next()
            self = self_ref()
            if self is None:
                return
            self._take(frame)
            del self, frame

    def _take(self, frame: bytes | memoryview) -> None:
        number, request, waiting = self._requests[0]
        if isinstance(frame, bytes) or number is None or request.API_KEY != _FETCH or _number(frame) != number:
            self._handle_frame(bytes(frame))
            return
        data = Part(frame)
        request.parse_response_header(data)
        if not waiting.done():
            waiting.set_result(request.RESPONSE_TYPE.decode(data))
        self._last_action = time.monotonic()
        self._requests.popleft()

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request; see aiokafka."""
        if self._writer is None or not expect_response or request.API_KEY != _PRODUCE:
            return super().send(request, expect_response)
        prepared = request.prepare(self._versions)
        if prepared.API_VERSION not in _PRODUCE_VERSIONS:
            return super().send(request, expect_response)
        number = self._next_correlation_id()
        head = prepared.build_request_header(correlation_id=number, client_id=self._client_id).encode()
        pieces = [head, *produced(prepared)]
        try:
            self._writer.writelines([_SIZE.pack(sum(map(len, pieces))), *pieces])
        except OSError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self._host}:{self._port} broken: {error}") from error
        answer = self._loop.create_future()
        self._requests.append((number, prepared, answer))
        return wait_for(answer, self._request_timeout)


def _number(frame: memoryview) -> int:
    """Give the correlation id that a response begins with."""
    (number,) = _SIZE.unpack_from(frame)
    return int(number)


def produced(request: Any) -> Iterator[Buffer]:
    """Encode a request to append, in pieces: the batches are as they are, not copied.

    https://kafka.apache.org/protocol#The_Messages_Produce, versions 3 to 7.
    """
    head = String("utf-8").encode(request.transactional_id) + Int16.encode(request.required_acks)
    head += Int32.encode(request.timeout) + Int32.encode(len(request.topics))
    for topic, partitions in request.topics:
        head += String("utf-8").encode(topic) + Int32.encode(len(partitions))
        for partition, batch in partitions:
            yield head + Int32.encode(partition) + Int32.encode(len(batch))
            yield batch
            head = b""
    yield head


def copy_nothing() -> None:
    """Have connections of this process be such from now on; it takes the compiled core."""
    conn.AIOKafkaConnection, conn.AIOKafkaProtocol = Connection, FramedProtocol
