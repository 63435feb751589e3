"""What one partition of the changelog says: the newest state of each customer, and what to publish again."""

from __future__ import annotations

from collections.abc import Iterable

from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError
from streamseg.formats import state as records
from streamseg.formats.state import AGE, CHECKPOINT_KEY, FENCE_KEY, Checkpoint, Sent, StateError
from streamseg.worker.settings import Settings


class OtherDefinitionsError(InputError):
    """The stored states were made with other definitions."""


class ForeignRecordError(StateError):
    """The changelog holds what no worker wrote, or a newer one."""


class Loaded:
    """Takes a partition's records, oldest first.

    A worker that lost the partition without knowing may still have appended to it. What it appended after the
    fence of its successor has a lower epoch, and does not count. (For what was written before there were epochs:
    of two records of a customer the one with the higher position counts.)
    """

    def __init__(self, place: str = "the changelog") -> None:
        """`place` is what messages call it, such as `topic/partition`."""
        self._place = place
        self.states: dict[bytes, bytes] = {}
        self.checkpoint: Checkpoint | None = None
        self.epoch = 0
        """The highest that was seen."""
        self.fenced_at = -1
        """The offset of the fence that began it; -1 if it is not known."""
        self.stale = 0
        """Records that did not count."""
        self.shadowed: dict[bytes, None] = {}
        """Customers whose last record does not count: it must be written again, before compaction keeps only it."""
        self._outbox: list[tuple[int, bytes, bytes]] = []
        self._touched: dict[bytes, int] = {}

    def add(self, key: bytes | None, value: bytes | None, offset: int) -> None:
        """Takes one record. Raises ForeignRecordError for what is none of ours, or of a newer version."""
        try:
            if key is None:
                raise StateError("a record without a key")
            key.decode()
            self._take(key, value, offset)
        except (StateError, UnicodeDecodeError) as error:
            raise ForeignRecordError(
                f"{self._place} has at offset {offset}, under the key {key and key[:80]!r}, a record that cannot be "
                f"read: {error}. Only workers may write there; start with the version that wrote it, or with "
                "another --group and --prefix, which builds the state anew from the event topics"
            ) from error

    def _take(self, key: bytes, value: bytes | None, offset: int) -> None:
        if key[:1] == b"\x00":
            self._take_mark(key, value, offset)
            return
        if value is None:
            self.states.pop(key, None)
            self._touched.pop(key, None)
            return
        value = records.in_this_format(value)
        known = self.states.get(key)
        if not self._valid(records.epoch_of(value)) or (known is not None and value[AGE] < known[AGE]):
            self.stale += 1
            self.shadowed[key] = None
            return
        if self.shadowed:
            self.shadowed.pop(key, None)
        if records.has_outbox(value):
            self._outbox.append((offset, key, value))
            value = records.without_outbox(value)
        self.states[key] = value
        self._touched.pop(key, None)  # so that it stands at the end: in the order of offsets
        self._touched[key] = offset

    def _valid(self, epoch: int) -> bool:
        """Whether a record of this epoch counts, where it stands."""
        if epoch > self.epoch:  # its fence was compacted away
            self.epoch, self.fenced_at = epoch, -1
        return epoch == self.epoch

    def _take_mark(self, key: bytes, value: bytes | None, offset: int) -> None:
        """Takes a record that is of no customer."""
        if value is None:
            if key == CHECKPOINT_KEY:  # somebody wants everything read again
                self.checkpoint = None
            return
        if key == FENCE_KEY:
            epoch = records.read_fence(value)
            if epoch > self.epoch:
                self.epoch, self.fenced_at = epoch, offset
        elif key == CHECKPOINT_KEY:
            checkpoint = records.read_checkpoint(value)
            if self._valid(checkpoint.epoch):
                self._note(checkpoint)

    def _note(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        first = min(checkpoint.published, checkpoint.viewed)
        if self._outbox and self._outbox[0][0] < first:
            self._outbox = [entry for entry in self._outbox if entry[0] >= first]
        while self._touched and self._touched[oldest := next(iter(self._touched))] < checkpoint.foreseen:
            del self._touched[oldest]

    @property
    def published(self) -> int:
        """Changes in records before this offset are known to be published."""
        return self.checkpoint.published if self.checkpoint is not None else 0

    @property
    def viewed(self) -> int:
        """Redis is known to have what is in records before this offset."""
        return self.checkpoint.viewed if self.checkpoint is not None else 0

    @property
    def foreseen(self) -> int:
        """The forecasts shown are those of what is in records before this offset."""
        return self.checkpoint.foreseen if self.checkpoint is not None else 0

    @property
    def placement(self) -> str:
        """By which rule customers were put into partitions; empty if that is not known."""
        return self.checkpoint.placement if self.checkpoint is not None else ""

    @property
    def touched(self) -> Iterable[bytes]:
        """Customers whose forecasts may not be shown."""
        return self._touched

    @property
    def outbox(self) -> list[tuple[int, bytes, Sent]]:
        """Changes that may not have been published, or not have come to Redis: offset, key, change; in order."""
        return [(offset, key, sent) for offset, key, value in self._outbox for sent in records.read_outbox(value)]

    def check(self, definitions: Definitions, settings: Settings) -> None:
        """Raises OtherDefinitionsError if the states were made with another definitions file."""
        if self.checkpoint is not None and self.states and self.checkpoint.definitions != definitions.hash:
            raise OtherDefinitionsError(
                f"the state of group {settings.group!r} was made with definitions {self.checkpoint.definitions}, but "
                f"{definitions.name} is {definitions.hash}: start with that file, or with another --group and "
                "--prefix, which builds its state anew from the event topics"
            )
