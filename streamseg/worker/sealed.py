"""Batches that the compiled core encoded, as aiokafka's producer queues and sends them."""

from __future__ import annotations

from typing import Any, Literal

from streamseg_engine import Records, Sealed


class SealedBatch:
    """What aiokafka's accumulator asks of a BatchBuilder, of a batch that is complete but for its producer."""

    __slots__ = ("_batch", "_producer", "_stamped")

    def __init__(self, batch: Sealed) -> None:
        self._batch = batch
        self._producer = (-1, -1, 0)
        self._stamped = False

    def append(self, **_record: Any) -> None:
        """Take nothing more: None says that the batch is full."""

    def close(self) -> None:
        """Stay closed."""

    def closed(self) -> bool:
        """Tell whether nothing more goes in, so that there is nothing to linger for."""
        return True

    def record_count(self) -> int:
        """Give the number of records."""
        return self._batch.count

    def size(self) -> int:
        """Give the size in bytes, compressed and with the head."""
        return len(self._batch)

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = producer_id, producer_epoch, base_sequence

    def _build(self) -> Sealed:
        """Give a buffer of what is sent, the same at every retry: by its bytes the broker knows what it has."""
        if not self._stamped:
            self._batch.stamp(*self._producer)
            self._stamped = True
        return self._batch


def sealed_batches(records: Records, timestamp_ms: int, compression: Literal["none", "snappy"]) -> list[SealedBatch]:
    """Seal all batches of records, which lets go of them, at a time that is that of them all."""
    return [SealedBatch(batch) for batch in records.seal(timestamp_ms, compression)]
