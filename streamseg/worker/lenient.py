"""Records with a header whose name is not UTF-8: Kafka takes them, aiokafka's parser would stop at them for ever.

Headers mean nothing to us. The parser here puts replacement characters into such names and goes on. It is
aiokafka's own one in Python, slower than the compiled one, so it is used only once such a record was met.
"""

from __future__ import annotations

from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


class _LenientBytes(bytearray):
    """Bytes whose parts are decoded whatever they are."""

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        return _LenientBytes(part) if isinstance(place, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """The text, with replacement characters where it is none."""
        return bytes(self).decode(encoding, errors)


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _buffer: Any

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _LenientBytes(self._buffer)


class _LenientRecords(_MemoryRecordsPy):  # type: ignore[misc]
    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__(bytes(data))

    def next_batch(self) -> Any:
        data = self._next_slice
        batch = super().next_batch()
        return _LenientBatch(data) if isinstance(batch, DefaultRecordBatch) else batch


def read_any_header_name() -> None:
    """Parse what is fetched from now on, in this process, with the parser that takes any name."""
    fetcher.MemoryRecords = _LenientRecords
