"""The state record: a customer's state and the changes it just made, in one Kafka record.

    header   fixed, big endian; see `Header`; first the position and the instant, so that two records of a
             customer are told apart as to age by comparing bytes; last the epoch of the writer
    segments one byte a scheme, 255 for none
    outbox   length (4 bytes) and MessagePack: the changes that this record made, as they are published
    body     MessagePack: the offsets applied, by where the events came from, and the profile

What a worker keeps in memory is the same with an empty outbox.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from struct import Struct
from struct import error as StructError  # noqa: N812 - as other errors are named
from typing import Any, NamedTuple

import msgspec

from streamseg.core.errors import StreamsegError
from streamseg.core.layout import Layout
from streamseg.core.profile import UNSET, Profile
from streamseg.core.units import Instant

FORMAT = 2
_HEADER = Struct(">QqqqIBIB")  # position, at, wake, worth, version, format, epoch, schemes
_FORMAT_AT = 36
_FIELDS = 15
"""Parts of the body."""
_EPOCH = Struct(">I")
_EPOCH_AT = 37
_NO_EPOCH = _EPOCH.pack(0)
WRITER = slice(_FORMAT_AT, _EPOCH_AT + _EPOCH.size)
"""Format and epoch: equal to `writer(epoch)` in a record that this version wrote in that epoch."""
_SUMMARY = Struct(">qq")  # wake, worth
_SUMMARY_AT = 16
AGE = slice(0, 16)
"""Position and instant: of two records of a customer the one with the greater bytes here is newer."""
_LENGTH = Struct(">I")
_NO_OUTBOX = _LENGTH.pack(0)
NO_SEGMENT = 255
"""The byte of a scheme that has not put the customer anywhere."""
FIRST_CUSTOMER = b"\x01"
"""Keys below are of no customer: ids are not empty, and have no control characters."""
CHECKPOINT_KEY = b"\x00checkpoint"
"""The key of the record that tells how far a partition is."""
FENCE_KEY = b"\x00fence"
"""The key of the record by which a worker takes a partition over."""
MAX_STATE_BYTES = 900_000
"""A state above this is counted as large: what is kept of a customer is bounded, so it should not come to this."""


class StateError(StreamsegError):
    """A stored state cannot be read: it is of another format, or of other definitions."""


class Header(NamedTuple):
    """What of a state can be told without decoding it."""

    position: int
    """The sum of the next offsets over all that events came from: rises with every event applied."""
    at: Instant
    wake: Instant
    worth: int
    """Minor units of money."""
    version: int
    segments: tuple[int, ...]


class Sent(NamedTuple):
    """A change in the outbox."""

    version: int
    at: Instant
    data: bytes


@dataclass(slots=True)
class State:
    """A decoded state."""

    profile: Profile
    offsets: dict[str, int]
    """The offset of the last event applied, by where events come from: a topic, or topic/partition for those that
    were sent on from another partition."""
    worth: int = 0
    counted: tuple[int, bytes] | None = None
    """The worth and the segments that the census has of it; None if it counts nowhere."""


def _extend(value: Any) -> Any:
    if isinstance(value, Fraction):
        return msgspec.msgpack.Ext(1, str(value).encode())
    raise TypeError(f"a state holds no {type(value).__name__}")


def _restore(code: int, data: memoryview) -> Any:
    if code != 1:
        raise StateError(f"a state with an unknown extension {code}: it is of a newer streamseg")
    return Fraction(bytes(data).decode())


_encode = msgspec.msgpack.Encoder(enc_hook=_extend).encode
_decode = msgspec.msgpack.Decoder(ext_hook=_restore).decode
_encode_outbox = msgspec.msgpack.Encoder().encode
_decode_outbox = msgspec.msgpack.Decoder(list[Sent]).decode


def encode_state(state: State, layout_mark: bytes, epoch: int) -> tuple[bytes, bytes]:
    """The parts of a record around its outbox.

    `layout_mark` tells the layout the profile is of, `epoch` the worker that writes it.
    """
    profile = state.profile
    position = sum(state.offsets.values()) + len(state.offsets)
    head = _HEADER.pack(
        position, profile.at, profile.wake, state.worth, profile.version, FORMAT, epoch, len(profile.segments)
    ) + bytes([NO_SEGMENT if segment == UNSET else segment for segment in profile.segments])
    content = [
        layout_mark, state.offsets, profile.entered, profile.recent, profile.orders, profile.waiting, profile.rows,
        profile.positions, profile.totals, profile.marks, profile.latest, profile.attributes,
        profile.attribute_times, profile.distinct, profile.expires,
    ]  # fmt: skip
    try:
        return head, _encode(content)
    except OverflowError:
        return head, _encode(_bounded(content))


def _bounded(value: Any) -> Any:
    """Integers that are too large for MessagePack as fractions."""
    if isinstance(value, list | tuple):
        return [_bounded(item) for item in value]
    if isinstance(value, dict):
        return {key: _bounded(item) for key, item in value.items()}
    return Fraction(value) if isinstance(value, int) and not -(2**63) <= value < 2**64 else value


def kept(head: bytes, body: bytes) -> bytes:
    """A state as it is kept in memory, and sent to the changelog when it made no changes."""
    return head + _NO_OUTBOX + body


def record(head: bytes, body: bytes, outbox: list[Sent]) -> bytes:
    """A state as it is sent to the changelog."""
    if not outbox:
        return kept(head, body)
    sent = _encode_outbox(outbox)
    return head + _LENGTH.pack(len(sent)) + sent + body


def read_header(data: bytes) -> Header:
    """The header of a state. Raises StateError for another format."""
    try:
        position, at, wake, worth, version, form, _, schemes = _HEADER.unpack_from(data)
    except StructError:
        raise _cut_off(data) from None
    if form != FORMAT:
        raise _unknown_format(form)
    segments = data[_HEADER.size : _HEADER.size + schemes]
    return Header(position, at, wake, worth, version, tuple(UNSET if s == NO_SEGMENT else s for s in segments))


def _unknown_format(form: int) -> StateError:
    return StateError(f"a state of format {form}; this streamseg reads 1 to {FORMAT}: run the version that wrote it")


def in_this_format(data: bytes) -> bytes:
    """A record as this version writes it; format 1 had no epoch. Raises StateError for an unknown format."""
    form = data[_FORMAT_AT] if len(data) > _FORMAT_AT else FORMAT
    if form == 1:
        data = data[:_FORMAT_AT] + bytes([FORMAT]) + _NO_EPOCH + data[_FORMAT_AT + 1 :]
    elif form != FORMAT:
        raise _unknown_format(form)
    _outbox_bounds(data)  # of what is cut off nothing can be told
    return data


def epoch_of(data: bytes) -> int:
    """The epoch of the worker that wrote a record of this format."""
    return _epoch_at(data, _EPOCH_AT)


def _epoch_at(data: bytes, place: int) -> int:
    """The epoch that stands at a place."""
    epoch: int = _EPOCH.unpack_from(data, place)[0]
    return epoch


def writer(epoch: int) -> bytes:
    """What records of this format and epoch have at `WRITER`."""
    return bytes([FORMAT]) + _EPOCH.pack(epoch)


def encode_fence(epoch: int) -> bytes:
    """The value of a fence: from it on, only records of this epoch and of higher ones count."""
    return _EPOCH.pack(epoch)


def read_fence(data: bytes) -> int:
    """The epoch in a fence. Raises StateError."""
    if len(data) != _EPOCH.size:
        raise StateError("a fence cannot be read: it is of another streamseg")
    return _epoch_at(data, 0)


def summary(data: bytes) -> tuple[Instant, int, bytes]:
    """What of a state can be told at once: when time may change it, its worth, its segments (one byte a scheme)."""
    wake, worth = _SUMMARY.unpack_from(data, _SUMMARY_AT)
    return wake, worth, data[_HEADER.size : _HEADER.size + data[_HEADER.size - 1]]


def _outbox_bounds(data: bytes) -> tuple[int, int]:
    try:
        start = _HEADER.size + data[_HEADER.size - 1] + _LENGTH.size
        (length,) = _LENGTH.unpack_from(data, start - _LENGTH.size)
    except (IndexError, StructError):
        raise _cut_off(data) from None
    if start + length >= len(data):
        raise _cut_off(data)
    return start, start + length


def _cut_off(data: bytes) -> StateError:
    return StateError(f"a state of {len(data)} bytes is cut off")


def has_outbox(data: bytes) -> bool:
    """Whether a record carries changes."""
    start = _HEADER.size + data[_HEADER.size - 1]
    return data[start : start + _LENGTH.size] != _NO_OUTBOX


def read_outbox(data: bytes) -> list[Sent]:
    """The changes that a record carries."""
    start, end = _outbox_bounds(data)
    try:
        return _decode_outbox(data[start:end]) if end > start else []
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StateError("the changes in a state are broken") from error


def without_outbox(data: bytes) -> bytes:
    """A record as it is kept in memory."""
    start, end = _outbox_bounds(data)
    return data if end == start else data[: start - _LENGTH.size] + _NO_OUTBOX + data[end:]


def decode_state(data: bytes, layout: Layout, layout_mark: bytes) -> State:
    """The state in a record. Raises StateError if it is of another layout or format, or broken."""
    header = read_header(data)
    try:
        content = _decode(memoryview(data)[_outbox_bounds(data)[1] :])
    except (msgspec.MsgspecError, ValueError, TypeError, ZeroDivisionError, RecursionError) as error:
        raise StateError("a stored state is broken") from error
    if type(content) is not list or len(content) != _FIELDS:
        raise StateError("a stored state is broken: it has other parts")
    if content[0] != layout_mark:
        raise StateError("a stored state was made with other definitions")
    profile = Profile(layout, 0)
    profile.at, profile.wake, profile.version = header.at, header.wake, header.version
    profile.segments = list(header.segments)
    (
        _, offsets, profile.entered, profile.recent, profile.orders, profile.waiting, profile.rows, profile.positions,
        profile.totals, profile.marks, profile.latest, profile.attributes, profile.attribute_times, profile.distinct,
        profile.expires,
    ) = content  # fmt: skip
    return State(profile, offsets, header.worth)


class Rejections(msgspec.Struct, array_like=True, frozen=True):
    """Which of the latest events of a topic were rejected, as of where the checkpoint says to read on."""

    run: int = 0
    """How many in a row, up to the last one."""
    events: int = 0
    """How many events the newest slice holds so far."""
    slices: tuple[dict[str, int], ...] = ()
    """Slices of equally many events, the oldest first: how many of them were rejected, by reason."""


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """How far a partition is, all of one moment; written to the changelog under `CHECKPOINT_KEY`."""

    published: int
    """Changes in changelog records before this offset are published."""
    viewed: int
    """Redis knows what is in changelog records before this offset."""
    clock: Instant
    """The partition's clock when the events before `sources` had been applied."""
    sources: dict[str, int]
    """Where to read on, by event topic."""
    observed_from: Instant
    """Since when the input was observed; -1 from its very beginning."""
    definitions: str
    """The hash of the definitions that the states were made with."""
    foreseen: int = 0
    """The forecasts shown are those of what is in changelog records before this offset."""
    epoch: int = 0
    """Of the worker that wrote it."""
    whole: str = ""
    """The identity of the Redis that knows all customers."""
    rejections: dict[str, Rejections] = {}
    """Which of the latest events before `sources` were rejected, by event topic."""
    placement: str = ""
    """By which rule customers were put into partitions; empty in what was written before there was a choice."""
    current: int = -1
    """Before this offset the assignments on the compacted topic are right; -1 if that is not known of any."""


_decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode


def encode_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The value of a checkpoint record."""
    return _encode_outbox(checkpoint)


def read_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint in a record. Raises StateError."""
    try:
        return _decode_checkpoint(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StateError("a checkpoint cannot be read: it is of another streamseg") from error
