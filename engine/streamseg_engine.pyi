# What streamseg's worker does for every event, without Python. The functions' docstrings are in engine/src.

from collections.abc import Sequence
from typing import TypeAlias

_Decoded: TypeAlias = tuple[str, str, int, str | None, bytes, bytes | None, int | None, bytes | None]

def decode_event(data: bytes, currency: str, digits: int, latest: int | None = None) -> _Decoded | None: ...
def decode_many(events: Sequence[bytes], currency: str, digits: int, latest: int | None = None) -> int: ...
def props_field(props: bytes, name: str) -> tuple[str, object] | None: ...
