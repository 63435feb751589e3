"""What one partition of the changelog says: the newest state of each customer, and what to publish again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError
from streamseg.formats import state as records
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, FIRST_CUSTOMER, WRITER, Checkpoint, Sent, StateError
from streamseg.worker.fetches import Record
from streamseg.worker.memory_states import MemoryStates
from streamseg.worker.settings import Settings
from streamseg.worker.states import States

PUT_STATES = 10_000
"""So many states are put at once."""
TOUCHED = 100_000
"""Customers that were touched are looked through for those that were shown since, when there are so many more."""


class OtherDefinitionsError(InputError):
    """The stored states were made with other definitions."""


class ForeignRecordError(StateError):
    """The changelog holds what no worker wrote, or a newer one."""


class Loaded:
    """Takes a partition's records, oldest first, and puts the states where they shall be as they come.

    A worker that lost the partition without knowing may still have appended to it. What it appended after the
    fence of its successor has a lower epoch, and does not count. Of what does, the last record of a customer is the
    newest, for one worker writes at a time, and has read what was written before. (For what was written before there
    were epochs: of two records of a customer the one with the higher position counts.)
    """

    def __init__(self, states: States | None = None, place: str = "the changelog") -> None:
        """`states` is where they shall be, in memory if not said; `place` what messages call this: topic/partition."""
        self._place = place
        self.checkpoint: Checkpoint | None = None
        self.epoch = 0
        """The highest that was seen."""
        self.fenced_at = -1
        """The offset of the fence that began it; -1 if it is not known."""
        self.stale = 0
        """Records that did not count."""
        self.shadowed: dict[bytes, None] = {}
        """Customers whose last record does not count: it must be written again, before compaction keeps only it."""
        self._states: States = MemoryStates() if states is None else states
        self._pending: dict[bytes, bytes] = {}
        self._usual = b""
        """How records say that they count; empty as long as their positions have to be compared."""
        self._ahead: Checkpoint | None = None
        self._outbox: list[tuple[int, bytes, bytes]] = []
        self._touched: dict[bytes, int] = {}
        self._touched_enough = TOUCHED

    # In

    def look_ahead(self, last: Iterable[Record]) -> None:
        """Looks for a checkpoint among the last records, before all are taken.

        What it says is done is not kept while loading. Should it be of a worker that had lost the partition, the loader
        turns out to be `misled`.
        """
        for record in last:
            if record.key == CHECKPOINT_KEY and record.value is not None:
                with suppress(StateError):  # told of when it is taken
                    found = records.read_checkpoint(record.value)
                    if self._ahead is None or found.epoch >= self._ahead.epoch:
                        self._ahead = found

    @property
    def misled(self) -> bool:
        """Whether more was left out than is done: all has to be taken again by a loader that did not look ahead."""
        ahead = self._ahead
        return ahead is not None and (
            self.published < ahead.published or self.viewed < ahead.viewed or self.foreseen < ahead.foreseen
        )

    def take(self, taken: Sequence[Record]) -> None:
        """Takes the next records. Raises ForeignRecordError for what is none of ours, or of a newer version."""
        pending, touched, has_outbox = self._pending, self._touched, records.has_outbox
        told, foreseen = self._done()
        for record in taken:
            key, value, offset = record.key, record.value, record.offset
            try:
                if key is None:
                    raise StateError("a record without a key")
                if value is None or value[WRITER] != self._usual or key < FIRST_CUSTOMER or self.shadowed:
                    counts = self._examine(key, value, offset)
                    told, foreseen = self._done()
                    if counts is None:
                        continue
                    value = counts
                if has_outbox(value):
                    if offset >= told:
                        self._outbox.append((offset, key, value))
                    value = records.without_outbox(value)
            except (StateError, UnicodeDecodeError, IndexError) as error:
                raise self._foreign(record, error) from error
            pending[key] = value
            if offset >= foreseen:
                touched[key] = offset
        if len(pending) >= PUT_STATES:
            self._put()

    def _foreign(self, record: Record, error: Exception) -> ForeignRecordError:
        return ForeignRecordError(
            f"{self._place} has at offset {record.offset}, under the key {record.key and record.key[:80]!r}, a record "
            f"that cannot be read: {error}. Only workers may write there; start with the version that wrote it, or "
            "with another --group and --prefix, which builds the state anew from the event topics"
        )

    def _done(self) -> tuple[int, int]:
        """Changes in records before the first offset are told, forecasts of those before the second are shown."""
        told, foreseen = min(self.published, self.viewed), self.foreseen
        if self._ahead is not None:
            told = max(told, min(self._ahead.published, self._ahead.viewed))
            foreseen = max(foreseen, self._ahead.foreseen)
        return told, foreseen

    def _examine(self, key: bytes, value: bytes | None, offset: int) -> bytes | None:
        """Looks closely at a record; returns a customer's state that counts."""
        key.decode()
        if key < FIRST_CUSTOMER:
            self._take_mark(key, value, offset)
            return None
        if value is None:
            self._pending.pop(key, None)
            self._states.delete(key)
            self._touched.pop(key, None)
            return None
        value = records.in_this_format(value)
        if not self._valid(records.epoch_of(value)) or (not self.epoch and self._is_outdated(key, value)):
            self.stale += 1
            self.shadowed[key] = None
            return None
        self.shadowed.pop(key, None)
        return value

    def _is_outdated(self, key: bytes, value: bytes) -> bool:
        known = self._pending.get(key) or self._states.get(key)
        return known is not None and records.age(value) < records.age(known)

    def _valid(self, epoch: int) -> bool:
        """Whether a record of this epoch counts, where it stands."""
        if epoch > self.epoch:  # its fence was compacted away
            self._begin(epoch, -1)
        return epoch == self.epoch

    def _begin(self, epoch: int, fenced_at: int) -> None:
        self.epoch, self.fenced_at = epoch, fenced_at
        self._usual = records.writer(epoch)

    def _take_mark(self, key: bytes, value: bytes | None, offset: int) -> None:
        """Takes a record that is of no customer."""
        if value is None:
            if key == CHECKPOINT_KEY:  # somebody wants everything read again
                self.checkpoint = None
            return
        if key == FENCE_KEY:
            epoch = records.read_fence(value)
            if epoch > self.epoch:
                self._begin(epoch, offset)
        elif key == CHECKPOINT_KEY:
            checkpoint = records.read_checkpoint(value)
            if self._valid(checkpoint.epoch):
                self._note(checkpoint)

    def _note(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        first = min(checkpoint.published, checkpoint.viewed)
        if self._outbox and self._outbox[0][0] < first:
            self._outbox = [entry for entry in self._outbox if entry[0] >= first]
        if len(self._touched) >= self._touched_enough:
            for key in [key for key, offset in self._touched.items() if offset < checkpoint.foreseen]:
                del self._touched[key]
            self._touched_enough = 2 * len(self._touched) + TOUCHED

    def _put(self) -> None:
        if self._pending:
            self._states.put(self._pending)
            self._pending.clear()

    def drop(self) -> None:
        """Forgets all."""
        self._pending.clear()
        self._states.drop()

    # Out

    @property
    def states(self) -> States:
        """All states, without outboxes."""
        self._put()
        return self._states

    @property
    def empty(self) -> bool:
        """Whether there is no customer."""
        return next(iter(self.states), None) is None

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
        foreseen = self.foreseen
        return (key for key, offset in self._touched.items() if offset >= foreseen)

    @property
    def outbox(self) -> list[tuple[int, bytes, Sent]]:
        """Changes that may not have been published, or not have come to Redis: offset, key, change; in order."""
        return [(offset, key, sent) for offset, key, value in self._outbox for sent in records.read_outbox(value)]

    def check(self, definitions: Definitions, settings: Settings) -> None:
        """Raises OtherDefinitionsError if the states were made with another definitions file."""
        if self.checkpoint is not None and not self.empty and self.checkpoint.definitions != definitions.hash:
            raise OtherDefinitionsError(
                f"the state of group {settings.group!r} was made with definitions {self.checkpoint.definitions}, but "
                f"{definitions.name} is {definitions.hash}: start with that file, or with another --group and "
                "--prefix, which builds its state anew from the event topics"
            )
