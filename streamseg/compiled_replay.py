"""A replay whose events are applied by the compiled core; Python takes what that leaves to it.

A customer is in one of two lanes: the core's, or Python's, which is that of replay.py. Python takes over a customer
when the core is not sure of an event or a deadline of it, and gives it back after the lines that were taken together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from streamseg_engine import Replay as Core

from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError
from streamseg.core.event import Event
from streamseg.core.profile import Profile
from streamseg.core.segmenter import APPLIED, DUPLICATE, UNMATCHED, Result, Segmenter
from streamseg.core.units import Instant
from streamseg.formats.state import State, decode_state, encode_state, kept
from streamseg.replay import Reject, Replay, Sizes, Tally, assignment_line, worth_of

TOGETHER = 8_192
TOGETHER_BYTES = 1 << 20
"""Lines are given to the core so many at a time, whichever comes first."""
AT_ONCE = 4_096
"""Evaluations that make changes, or assignments, before these are taken from the core."""
RESULTS: tuple[Result, ...] = (APPLIED, DUPLICATE, UNMATCHED)
"""As the core gives their numbers."""
MOST_WORTH = 1 << 62
"""What is worth more has no room in a state."""
FEW = 4
"""Customers are given back if fewer than one line in so many took one over: otherwise they would soon return."""


class _Shelf:
    """The customers in Python's lane."""

    def __init__(self, definitions: Definitions, core: Core, own: dict[str, Profile]) -> None:
        self.taken: list[str] = []
        """Who was taken over since the core was last given lines."""
        self._definitions = definitions
        self._core = core
        self._own = own

    def get(self, customer: str) -> Profile | None:
        """The profile of a customer, who is in Python's lane from now on; None for an unknown one."""
        profile = self._own.get(customer)
        if profile is None:
            data = self._core.release(customer.encode())
            if data is not None:
                profile = decode_state(data, self._definitions.layout).profile
                self.put(customer, profile)
        return profile

    def put(self, customer: str, profile: Profile) -> None:
        """Notes who is new in Python's lane."""
        if customer not in self._own:
            self._own[customer] = profile
            self.taken.append(customer)

    def give_back(self) -> None:
        """Gives back to the core who was taken over since it was last given lines, unless it cannot read the state."""
        for customer in self.taken:
            profile = self._own[customer]
            worth = worth_of(self._definitions, profile)
            if abs(worth) > MOST_WORTH:
                continue
            head, body = encode_state(State(profile, {}, worth), self._definitions.layout, 0)
            if self._core.take_back(customer.encode(), kept(head, body)):
                del self._own[customer]


class _Segmenter(Segmenter):
    """The core's clock and deadlines; applies what is in Python's lane."""

    def __init__(
        self,
        definitions: Definitions,
        core: Core,
        shelf: _Shelf,
        publish: Callable[[Change], None],
        collect: Callable[[], None],
    ) -> None:
        self._core = core
        self._collect = collect
        super().__init__(definitions, shelf, publish)

    @property
    def clock(self) -> Instant:
        """The clock of the replay."""
        return self._core.clock

    @clock.setter
    def clock(self, clock: Instant) -> None:
        self._core.clock = clock

    def take(self, event: Event) -> Result:
        """Moves the clock to the event, and applies it in Python."""
        self.advance(event.time)
        return super().take(event)

    def advance(self, now: Instant, limit: int | None = None) -> bool:
        """Moves the clock to `now` and fires all deadlines up to it, in either lane."""
        assert limit is None
        how = ""
        while how != "done":
            how, deadline = self._core.advance(now, AT_ONCE)
            self._collect()
            if deadline is not None:
                self.fire(*deadline)
        return True

    def fire(self, due: Instant, customer: str) -> None:
        """Fires the deadline of a customer whom the core leaves to Python."""
        profile = self._shelf.get(customer)
        if profile is None or due < profile.wake:
            return
        self._pass(customer, profile, due)

    def _queue(self, customer: str, profile: Profile) -> None:
        self._core.queue(customer.encode(), profile.wake)


class CompiledReplay(Replay):
    """The same to everybody else. What the core makes is for `collect` to take, whenever it is called.

    `profiles` are those in Python's lane alone.
    """

    def __init__(
        self,
        definitions: Definitions,
        publish: Callable[[Change], None],
        reject: Callable[[Reject], object],
        plan: bytes,
        collect: Callable[[Core], object],
    ) -> None:
        self.core = Core(plan)
        self._collect = collect
        super().__init__(definitions, publish, reject)

    def _segmenter(self) -> Segmenter:
        self._shelf = _Shelf(self.definitions, self.core, self.profiles)
        return _Segmenter(self.definitions, self.core, self._shelf, self.publish, self._collected)

    def _collected(self) -> None:
        self._collect(self.core)

    def take(self, lines: Sequence[bytes], numbers: Sequence[int], clocks: Mapping[int, Instant]) -> None:
        """Takes lines with these numbers; the clock is moved before those that are late."""
        core, segmenter, how = self.core, self.segmenter, ""
        assert isinstance(segmenter, _Segmenter)
        core.give(lines, numbers, clocks)
        while how != "done":
            how, deadline = core.run(AT_ONCE)
            self._collect(core)
            if deadline is not None:
                segmenter.fire(*deadline)
            elif how == "line":
                number, line = core.skip()
                self.lines = number - 1
                self.feed(line)
        if len(self._shelf.taken) * FEW < len(lines):
            self._shelf.give_back()
        self._shelf.taken.clear()

    def run(self, lines: Iterable[bytes], until: Instant | None = None) -> None:
        """Takes all lines, then moves the clock to `until`."""
        number = self.lines + 1
        for some in _together(lines):
            self.take(some, range(number, number + len(some)), {})
            number += len(some)
            self.lines = number - 1
        if until is not None:
            self.segmenter.advance(until)

    # What it came to

    def tally(self, changes: int) -> Tally:
        """The tally as of now; `changes` are those that were published by Python."""
        found = super().tally(changes + self.core.changes)
        found.results = found.results + Counter(dict(zip(RESULTS, self.core.results(), strict=True)))
        found.customers += len(self.core)
        return found

    def sizes(self) -> Sizes:
        """Customers and their worth (minor units) by scheme and segment."""
        found = super().sizes()
        for segments, sizes in zip(found.values(), self.core.sizes(), strict=True):
            for (name, known), size in zip(list(segments.items()), sizes, strict=True):
                segments[name] = (known[0] + size[0], known[1] + size[1])
        return found

    def assignments(self) -> Iterator[tuple[str, bytes]]:
        """Each customer with its last assignment as a line of JSON, sorted."""
        while some := self.core.assignments(AT_ONCE):
            for customer, line in some:
                yield customer, self._assignment(customer) if line is None else line

    def _assignment(self, customer: str) -> bytes:
        profile = self._shelf.get(customer)
        assert profile is not None
        return assignment_line(self.definitions, customer, profile)


def _together(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The lines, some at a time. An InputError comes after what was read before it."""
    error, some, size = None, list[bytes](), 0
    try:
        for line in lines:
            some.append(line)
            size += len(line)
            if len(some) >= TOGETHER or size >= TOGETHER_BYTES:
                yield some
                some, size = [], 0
    except InputError as raised:
        error = raised
    if some:
        yield some
    if error is not None:
        raise error
