"""How many rejected events are let through to the dead letters before the worker stops.

The count is a function of what the partition holds, not of who read it when: it is stored in the checkpoint, as of
the offsets to read on from, so that a restart neither forgets what was let through nor counts it twice
(docs/decisions/0015).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from streamseg.core.errors import InputError
from streamseg.formats.rejection import REASONS
from streamseg.formats.state import Rejections

SLICE = 500
SLICES = 20
WINDOW = SLICE * SLICES
"""Of so many latest events of a partition the ratio is taken. It moves by slices: the newest one is not full yet."""


class TooManyRejectedError(InputError):
    """A partition holds so much that is no event that going on would only move it to the dead letters."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The limits. One that is off counts nothing: what passed while it was off is not held against the rest."""

    ratio: float = 0.5
    """Of the latest `WINDOW` events at most this share may be rejected; 1 is no limit."""
    run: int = 5_000
    """So many in a row may be rejected; 0 is no limit."""

    @property
    def most(self) -> int | None:
        """How many of the latest events may be rejected; None: all."""
        return None if self.ratio >= 1 else round(self.ratio * WINDOW)


class Tally:
    """Counts the rejected among the latest events of one topic's partition, in the order of their offsets."""

    def __init__(self, tolerance: Tolerance, known: Rejections | None = None) -> None:
        self._tolerance = tolerance
        self._most = tolerance.most
        self._run = 0
        self._events = 0
        self._slices: deque[dict[str, int]] = deque([{}], SLICES)
        if known is not None:
            self._run = known.run if tolerance.run else 0
            if self._most is not None and known.slices:
                self._events = known.events
                self._slices.extend(dict(each) for each in known.slices)
        self._rejected = sum(sum(each.values()) for each in self._slices)

    def accept(self, events: int = 1) -> None:
        """Counts events in a row that were not rejected."""
        if not events:
            return
        self._run = 0
        while events:
            step = max(1, min(events, SLICE - self._events))
            self._move(step)
            events -= step

    def reject(self, reason: str) -> bool:
        """Counts a rejected event; False, and it is not counted, if that would be one too many."""
        too_long = 0 < self._tolerance.run <= self._run
        if too_long or (self._most is not None and self._rejected >= self._most):
            return False
        self._run += 1
        self._rejected += 1
        newest = self._slices[-1]
        newest[reason] = newest.get(reason, 0) + 1
        self._move()
        return True

    def _move(self, events: int = 1) -> None:
        self._events += events
        if self._events >= SLICE:
            self._events = 0
            if len(self._slices) == SLICES:
                self._rejected -= sum(self._slices[0].values())
            self._slices.append({})

    def record(self) -> Rejections:
        """What the checkpoint keeps."""
        window = (*list(self._slices)[:-1], dict(self._slices[-1])) if self._most is not None else ()
        return Rejections(self._run if self._tolerance.run else 0, self._events if window else 0, window)

    def refusal(self, place: str, offset: int, reason: str) -> TooManyRejectedError:
        """What to say of the event that was one too many; `place` is `topic/partition`."""
        reasons = Counter({reason: 1})
        for each in self._slices:
            reasons.update(each)
        [(main, count)] = reasons.most_common(1)
        if 0 < self._tolerance.run <= self._run:
            counted = f"more than {self._run:,} events in a row"
        else:
            counted = f"{self._rejected + 1:,} of the last {WINDOW:,} events"
        known = REASONS.get(main)
        told = f" ({known.what}: {known.mend})" if known is not None else ""
        return TooManyRejectedError(
            f"{place} has one rejected event too many at offset {offset}: {counted} were rejected, {count:,} of them "
            f"as {main}{told}. All before this offset is done, nothing from it on was taken. `streamseg dead-letters` "
            "shows them; if the rest may go there too, start with --max-rejected 1 --max-rejected-run 0 until it is "
            "passed"
        )
