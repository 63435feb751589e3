"""State records of formats 1 and 2, which earlier versions wrote.

header   fixed, big endian: position, at, wake, worth, version, format, epoch (not in format 1), schemes
segments one byte a scheme
outbox   length (4 bytes) and MessagePack
body     MessagePack: the mark of the layout, offsets, and the profile as it is: times and tiles as they are, ids
         and orders by eight bytes, positions and totals of windows
"""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

from streamseg.core.event import FINGERPRINT_BYTES
from streamseg.core.layout import Layout
from streamseg.core.profile import Profile
from streamseg.core.units import Instant

FORMATS = 1, 2
FIELDS = 15
"""Parts of the body."""
_FORMAT_AT = 36
_ID_BYTES = 8
_HEADER = Struct(">qqq4s")  # at, wake, worth, version
_HEADER_AT = 8
_EPOCH = Struct(">I")
_LENGTH = Struct(">I")


class Old(NamedTuple):
    """A record, taken apart."""

    epoch: int
    at: Instant
    wake: Instant
    worth: int
    version: bytes
    segments: bytes
    outbox: bytes
    body: bytes


def format_of(data: bytes) -> int:
    """The format that a record has where formats 1 and 2 have theirs; 0 if it is too short."""
    return data[_FORMAT_AT] if len(data) > _FORMAT_AT else 0


def read(data: bytes) -> Old:
    """Takes a record apart. Raises struct.error, IndexError or ValueError if it is cut off."""
    place = _FORMAT_AT + 1
    epoch = 0
    if data[_FORMAT_AT] != 1:
        (epoch,) = _EPOCH.unpack_from(data, place)
        place += _EPOCH.size
    start = place + 1 + data[place]
    (length,) = _LENGTH.unpack_from(data, start)
    body = start + _LENGTH.size + length
    if body >= len(data):
        raise ValueError("no body")
    segments, outbox = data[place + 1 : start], data[start + _LENGTH.size : body]
    at, wake, worth, version = _HEADER.unpack_from(data, _HEADER_AT)
    return Old(epoch, at, wake, worth, version, segments, outbox, data[body:])


def mark(content: list[Any]) -> bytes:
    """The mark of the layout. Raises AttributeError or ValueError if there is none."""
    return bytes.fromhex(content[0].decode())[:4]


def fill(profile: Profile, content: list[Any], layout: Layout) -> dict[str, int]:
    """Takes a profile out of a body, but for the positions of windows; returns the offsets."""
    (
        _, offsets, profile.entered, recent, orders, waiting, profile.rows, _,
        profile.totals, profile.marks, profile.latest, profile.attributes, profile.attribute_times, profile.distinct, _,
    ) = content  # fmt: skip
    if len(profile.rows) != len(layout.series):
        raise ValueError("rows of another layout")
    profile.recent = b"".join(recent[first : first + FINGERPRINT_BYTES] for first in range(0, len(recent), _ID_BYTES))
    profile.orders = {order[:FINGERPRINT_BYTES]: entry for order, entry in orders.items()}
    profile.waiting = {order[:FINGERPRINT_BYTES]: refunds for order, refunds in waiting.items()}
    return dict(offsets)
