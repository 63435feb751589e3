"""What streamseg's worker does for every event, without Python."""

from collections.abc import Sequence

_Decoded = tuple[str, str, int, str | None, bytes, bytes | None, int | None, bytes | None]

def decode_event(data: bytes, currency: str, digits: int, latest: int | None = None) -> _Decoded | None:
    """Type, customer, time, id, fingerprint, order, amount, props; None for what Python has to decide."""

def decode_many(events: Sequence[bytes], currency: str, digits: int, latest: int | None = None) -> int:
    """How many of the events are decoded."""

def props_field(props: bytes, name: str) -> tuple[str, object] | None:
    """The kind (null, true, false, int, text, other) and the value, of int and text, of one of the props."""
