"""The state record: a customer's state and the changes it just made, in one Kafka record.

    header   fixed, big endian: format and epoch of the writer, by which a loader tells records that count; the mark
             of the layout; then what is told of a customer without decoding it. See `Header`
    segments one byte a scheme, 255 for none
    outbox   a zero; or a one, a length (4 bytes) and MessagePack: the changes that this record made, as they are
             published
    body     MessagePack: the version, the offsets applied, by where the events came from, and the profile. Times are
             told by how long before the instant of the state they were, tiles by how many before its tile

What a worker keeps in memory is the same with an empty outbox. Records of earlier formats get this frame when they
are read, and keep their body until the customer's next event (see old_state.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from struct import Struct
from struct import error as StructError  # noqa: N812 - as other errors are named
from typing import Any, NamedTuple

import msgspec

from streamseg.core.errors import StreamsegError
from streamseg.core.layout import Layout
from streamseg.core.profile import UNSET, Profile
from streamseg.core.tile import NEVER, Rows, Series, place
from streamseg.core.units import Instant
from streamseg.formats import old_state

FORMAT = 3
_OLD_BODY = 2
"""The format of a record of this frame whose body is of an earlier format; it is in memory only."""
_HEADER = Struct(">BI4sHIHIqB")  # format, epoch, mark, at, wake, worth, schemes
_SUMMARY = Struct(">HIqB")  # wake, worth, schemes
_SUMMARY_AT = _HEADER.size - _SUMMARY.size
_LOW = (1 << 32) - 1
_NO_WAKE = (1 << 48) - 1
"""`NEVER` in the six bytes of an instant."""
_FIELDS = 9
"""Parts of the body."""
_EPOCH = Struct(">I")
_EPOCH_AT = 1
WRITER = slice(0, _EPOCH_AT + _EPOCH.size)
"""Format and epoch: equal to `writer(epoch)` in a record that this version wrote in that epoch."""
_MARK = slice(WRITER.stop, WRITER.stop + 4)
_LENGTH = Struct(">BI")
_NO_OUTBOX = b"\x00"
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

    at: Instant
    wake: Instant
    worth: int
    """Minor units of money."""
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
        if value.denominator == 1 and -(2**63) <= value < 2**64:  # what is left of a sum that had fractions
            return value.numerator
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


def encode_state(state: State, layout: Layout, epoch: int) -> tuple[bytes, bytes]:
    """The parts of a record around its outbox; `epoch` tells the worker that writes it."""
    profile = state.profile
    at = profile.at
    segments = bytes([NO_SEGMENT if segment == UNSET else segment for segment in profile.segments])
    head = _head(FORMAT, epoch, layout.mark, at, profile.wake, state.worth, segments)
    content = [
        profile.version,
        state.offsets,
        _before(at, [*profile.entered, *profile.marks, *profile.attribute_times]),
        [*profile.totals, *profile.latest, *profile.attributes],
        profile.recent,
        [part for order, entry in profile.orders.items() for part in (order, at - entry[0], *entry[1:])],
        {order: [[at - time, amount] for time, amount in refunds] for order, refunds in profile.waiting.items()},
        [_flat(rows, at // series.tile) for series, rows in zip(layout.series, profile.rows, strict=True)],
        profile.distinct,
    ]
    try:
        return head, _encode(content)
    except OverflowError:
        return head, _encode(_bounded(content))


def _head(form: int, epoch: int, mark: bytes, at: Instant, wake: Instant, worth: int, segments: bytes) -> bytes:
    if wake == NEVER:
        wake = _NO_WAKE
    fixed = _HEADER.pack(form, epoch, mark, at >> 32, at & _LOW, wake >> 32, wake & _LOW, worth, len(segments))
    return fixed + segments


def _flat(rows: Rows, now: int) -> list[Any]:
    """Rows column after column; `now` is the tile of now."""
    flat = [now - tile for tile in rows[0]]
    for column in rows[1:]:
        flat += column
    return flat


def _before(now: int, times: Sequence[int | None]) -> list[int | None]:
    """How long before `now` times are, and the other way round."""
    return [None if time is None else now - time for time in times]


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
    return head + _packed(_encode_outbox(outbox)) + body if outbox else kept(head, body)


def _packed(outbox: bytes) -> bytes:
    return _LENGTH.pack(1, len(outbox)) + outbox


def read_header(data: bytes) -> Header:
    """The header of a state of this frame. Raises StateError for another format."""
    try:
        form, _, _, at_high, at, _, _, _, schemes = _HEADER.unpack_from(data)
        wake, worth, segments = summary(data)
    except StructError:
        raise _cut_off(data) from None
    if form not in (FORMAT, _OLD_BODY):
        raise _unknown_format(form)
    if len(segments) != schemes:
        raise _cut_off(data)
    return Header(at_high << 32 | at, wake, worth, tuple(UNSET if s == NO_SEGMENT else s for s in segments))


def _unknown_format(form: int) -> StateError:
    return StateError(f"a state of format {form}; this streamseg reads 1 to {FORMAT}: run the version that wrote it")


def in_this_format(data: bytes) -> bytes:
    """A record in the frame of this version; format 1 had no epoch. Raises StateError for an unknown format."""
    is_older = data[:1] == b"\x00"
    form = old_state.format_of(data) if is_older else data[0] if data else FORMAT
    if form in old_state.FORMATS:
        return _reframed(data)
    if is_older or form != FORMAT:
        raise _unknown_format(form)
    _outbox_bounds(data)  # of what is cut off nothing can be told
    return data


def _reframed(data: bytes) -> bytes:
    """A record of an earlier format; its body has the mark, and the version stands in the place of it."""
    try:
        old = old_state.read(data)
        head = _head(_OLD_BODY, old.epoch, old.version, old.at, old.wake, old.worth, old.segments)
    except (StructError, IndexError, ValueError):
        raise _cut_off(data) from None
    return head + (_packed(old.outbox) if old.outbox else _NO_OUTBOX) + old.body


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
    high, low, worth, schemes = _SUMMARY.unpack_from(data, _SUMMARY_AT)
    wake = high << 32 | low
    return NEVER if wake == _NO_WAKE else wake, worth, data[_HEADER.size : _HEADER.size + schemes]


def age(data: bytes) -> tuple[int, Instant]:
    """How far a state is: of two records of a customer the greater is newer. Raises StateError.

    That is the sum of the next offsets over all that events came from, which rises with every event applied; then the
    instant.
    """
    offsets = _content(data)[1]
    try:
        return sum(offsets.values()) + len(offsets), read_header(data).at
    except (AttributeError, TypeError) as error:
        raise StateError("a stored state is broken") from error


def _outbox_bounds(data: bytes) -> tuple[int, int]:
    """From where to where the outbox is, and what tells its length."""
    try:
        start = _HEADER.size + data[_HEADER.size - 1]
        end = start + 1
        if data[start]:
            end = start + _LENGTH.size + _LENGTH.unpack_from(data, start)[1]
    except (IndexError, StructError):
        raise _cut_off(data) from None
    if end >= len(data):
        raise _cut_off(data)
    return start, end


def _cut_off(data: bytes) -> StateError:
    return StateError(f"a state of {len(data)} bytes is cut off")


def has_outbox(data: bytes) -> bool:
    """Whether a record carries changes."""
    return data[_HEADER.size + data[_HEADER.size - 1]] != 0


def read_outbox(data: bytes) -> list[Sent]:
    """The changes that a record carries."""
    start, end = _outbox_bounds(data)
    try:
        return _decode_outbox(data[start + _LENGTH.size : end]) if has_outbox(data) else []
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StateError("the changes in a state are broken") from error


def without_outbox(data: bytes) -> bytes:
    """A record as it is kept in memory."""
    start, end = _outbox_bounds(data)
    return data[:start] + _NO_OUTBOX + data[end:] if data[start] else data


def decode_state(data: bytes, layout: Layout) -> State:
    """The state in a record. Raises StateError if it is of another layout or format, or broken."""
    header = read_header(data)
    content = _content(data)
    is_old = data[0] == _OLD_BODY
    try:
        if (old_state.mark(content) if is_old else data[_MARK]) != layout.mark:
            raise StateError("a stored state was made with other definitions")
        profile = Profile(layout, 0)
        profile.at, profile.wake, profile.segments = header.at, header.wake, list(header.segments)
        profile.version = int.from_bytes(data[_MARK], "big")  # where an old body has it
        offsets = (old_state.fill if is_old else _fill)(profile, content, layout)
        profile.expires = min(
            (place(series, profile.rows[series.index], profile.positions, profile.at) for series in layout.series),
            default=NEVER,
        )
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise StateError("a stored state is broken: it has other parts") from error
    return State(profile, offsets, header.worth)


def _content(data: bytes) -> list[Any]:
    """The parts of the body. Raises StateError."""
    try:
        content = _decode(memoryview(data)[_outbox_bounds(data)[1] :])
    except (msgspec.MsgspecError, ValueError, TypeError, ZeroDivisionError, RecursionError) as error:
        raise StateError("a stored state is broken") from error
    if type(content) is not list or len(content) != (old_state.FIELDS if data[0] == _OLD_BODY else _FIELDS):
        raise StateError("a stored state is broken: it has other parts")
    return content


def _fill(profile: Profile, content: list[Any], layout: Layout) -> dict[str, int]:
    """Takes a profile out of a body; returns the offsets."""
    offsets: dict[str, int]
    profile.version, offsets, ages, values, profile.recent, orders, waiting, rows, profile.distinct = content
    at, schemes, totals = profile.at, len(profile.segments), len(layout.totals)
    times: list[Any] = _before(at, ages)
    profile.entered, profile.marks = times[:schemes], times[schemes : schemes + layout.marks]
    profile.attribute_times = times[schemes + layout.marks :]
    profile.totals, profile.latest = values[:totals], values[totals : totals + layout.latest]
    profile.attributes = values[totals + layout.latest :]
    width = 5 if layout.reversible else 4
    profile.orders = {
        orders[first]: [at - orders[first + 1], *orders[first + 2 : first + width]]
        for first in range(0, len(orders), width)
    }
    profile.waiting = {order: [[at - age, amount] for age, amount in refunds] for order, refunds in waiting.items()}
    profile.rows = [_rows(series, flat, at // series.tile) for series, flat in zip(layout.series, rows, strict=True)]
    return offsets


def _rows(series: Series, flat: list[Any], now: int) -> Rows:
    """The rows of a series that are in a flat list."""
    columns = 1 + series.sums + len(series.extremes)
    length, rest = divmod(len(flat), columns)
    if rest:
        raise ValueError("columns of different lengths")
    rows = [flat[column * length : (column + 1) * length] for column in range(columns)]
    rows[0] = _before(now, rows[0])
    return rows


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
