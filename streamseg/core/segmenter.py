"""The clock and the customers under it: events in, changes out.

A `Segmenter` keeps one clock (a Kafka partition's, or a replay's), the deadlines of its customers, and asks a
`Shelf` for their profiles. It is told the time and never asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final, Literal, Protocol

from streamseg.core.assignment import NO_FORECAST, Forecast, forecast
from streamseg.core.change import Change, Reason
from streamseg.core.decision import Move
from streamseg.core.definitions import Definitions
from streamseg.core.event import Event
from streamseg.core.expression import ALL
from streamseg.core.profile import UNSET, Profile, advance, apply, is_duplicate
from streamseg.core.tile import NEVER
from streamseg.core.units import Instant

COMPLETE: Instant = -1
"""Observed from the very beginning of the input."""


Result = Literal["applied", "duplicate", "unmatched"]
"""What became of an event; `unmatched` was applied, but is a refund whose order is not known yet."""
APPLIED: Final = "applied"
DUPLICATE: Final = "duplicate"
UNMATCHED: Final = "unmatched"


class Shelf(Protocol):
    """Where profiles are kept. `get` returns None for an unknown customer."""

    def get(self, customer: str) -> Profile | None:
        """The profile of a customer, to be changed in place."""

    def put(self, customer: str, profile: Profile) -> None:
        """Notes that a profile is new or was changed."""


class Segmenter:
    """All customers under one clock.

    `publish` is called for each change, in order, after its customer has been moved. If `foresee` is given, it
    is called after the changes of one evaluation with the forecasts of all schemes.
    """

    def __init__(
        self,
        definitions: Definitions,
        shelf: Shelf,
        publish: Callable[[Change], None],
        foresee: Callable[[str, Profile, Mapping[int, Forecast]], None] | None = None,
        *,
        observed_from: Instant = COMPLETE,
    ) -> None:
        self.definitions = definitions
        self.clock: Instant = 0
        self.observed_from = observed_from
        self._shelf = shelf
        self._publish = publish
        self._foresee = foresee
        self._deadlines: list[tuple[Instant, str]] = []
        self._schemes = len(definitions.schemes)

    @property
    def pending(self) -> int:
        """Deadlines that wait, outdated ones among them."""
        return len(self._deadlines)

    @property
    def next_deadline(self) -> Instant:
        """No deadline fires before this instant."""
        return self._deadlines[0][0] if self._deadlines else NEVER

    def expect(self, deadlines: list[tuple[Instant, str]]) -> None:
        """Takes over deadlines of stored customers."""
        self._deadlines += deadlines
        heapify(self._deadlines)

    def advance(self, now: Instant, limit: int | None = None) -> bool:
        """Moves the clock to `now` and fires the deadlines up to it, each at its own instant.

        At most `limit` of them; returns False if some are left, and then the clock stands at the last one fired.
        """
        deadlines, fired = self._deadlines, 0
        while deadlines and deadlines[0][0] <= now:
            if limit is not None and fired >= limit:
                return False
            due, customer = heappop(deadlines)
            fired += self._fire(due, customer)
        self.clock = max(self.clock, now)
        return True

    def _fire(self, due: Instant, customer: str) -> bool:
        profile = self._shelf.get(customer)
        if profile is None:
            return False
        if due < profile.wake:  # it was put off meanwhile
            if profile.queued <= due:
                profile.queued = 0
                self._queue(customer, profile)
            return False
        profile.queued = 0
        self._pass(customer, profile, due)
        return True

    def _pass(self, customer: str, profile: Profile, due: Instant) -> None:
        """Lets time pass for a customer until a deadline, and queues the next one."""
        self._move_on(customer, profile, due)
        self._queue(customer, profile)

    def _move_on(self, customer: str, profile: Profile, due: Instant) -> None:
        """Lets time pass for a customer until a deadline, and evaluates it there."""
        self.clock = max(self.clock, due)
        advance(self.definitions.layout, profile, due)
        self._settle(customer, profile, due, Reason.TIME, None)

    def _queue(self, customer: str, profile: Profile) -> None:
        """Puts the deadline on the heap, unless an earlier one is there already and will put it off when it comes."""
        wake = profile.wake
        if wake != NEVER and (wake < profile.queued or not profile.queued):
            profile.queued = wake
            heappush(self._deadlines, (wake, customer))

    def take(self, event: Event) -> Result:
        """Moves the clock to the event, applies it at its own time, and evaluates its customer."""
        if self._deadlines and self._deadlines[0][0] <= event.time:
            self.advance(event.time)
        return self.overtake(event)

    def overtake(self, event: Event) -> Result:
        """The same, but deadlines of others may be left to fire later; those of the customer fire before it.

        To each customer happens the same, in the same order.
        """
        customer, definitions = event.customer, self.definitions
        if event.time > self.clock:
            self.clock = event.time
        profile = self._shelf.get(customer)
        if profile is None:
            profile = Profile(definitions.layout, self._schemes)
        elif profile.wake <= self.clock:
            self._pass_own(customer, profile)
        now = max(profile.at, self.clock)
        if is_duplicate(profile, event, now, definitions.refund_window):
            return DUPLICATE
        if now >= profile.expires:
            advance(definitions.layout, profile, now)
        else:
            profile.at = now
        unmatched = apply(definitions.layout, profile, event, now, definitions.refund_window)
        self._settle(customer, profile, now, Reason.EVENT, event.name)
        self._queue(customer, profile)
        self._shelf.put(customer, profile)
        return UNMATCHED if unmatched else APPLIED

    def catch_up(self, event: Event) -> Profile | None:
        """Moves the clock to the event and fires the deadlines of its customer until then; None if it is unknown."""
        self.clock = max(self.clock, event.time)
        profile = self._shelf.get(event.customer)
        if profile is not None and profile.wake <= self.clock:
            self._pass_own(event.customer, profile)
        return profile

    def _pass_own(self, customer: str, profile: Profile) -> None:
        """Lets time pass for a customer through all its deadlines up to the clock."""
        while profile.wake <= self.clock:
            self._move_on(customer, profile, profile.wake)
        self._queue(customer, profile)  # once: what it was put off by meanwhile has passed

    def _settle(self, customer: str, profile: Profile, now: Instant, reason: Reason, cause: str | None) -> None:
        """Evaluates at `now`, where the profile is, publishes what moved, and finds the next deadline."""
        definitions = self.definitions
        moves = definitions.decide(profile, now)
        profile.wake = definitions.after(profile, now)
        if moves:
            self._tell(customer, profile, moves, now, reason, cause)
            self._shelf.put(customer, profile)

    def _tell(
        self, customer: str, profile: Profile, moves: Sequence[Move], now: Instant, reason: Reason, cause: str | None
    ) -> None:
        definitions = self.definitions
        asked = range(self._schemes) if self._foresee is not None else [move.scheme for move in moves]
        ahead = forecast(definitions, profile, now, asked)
        for move in moves:
            compiled = definitions.schemes[move.scheme]
            names, following = compiled.scheme.names, ahead.get(move.scheme, NO_FORECAST)
            profile.version += 1
            self._publish(
                Change(
                    customer=customer,
                    scheme=compiled.scheme.name,
                    origin=None if move.origin == UNSET else names[move.origin],
                    target=names[move.target],
                    version=profile.version,
                    reason=reason,
                    cause=cause,
                    at=now,
                    since=None if move.origin == UNSET else move.entered,
                    next_change_at=following.at,
                    next_segment=None if following.target == UNSET else names[following.target],
                    definitions=definitions.hash,
                    complete=self._complete(compiled.longest, now),
                    values=compiled.values(profile, now),
                )
            )

        if self._foresee is not None:
            self._foresee(customer, profile, ahead)

    def _complete(self, longest: int, now: Instant) -> bool:
        """Whether the longest window of a scheme lies within what was observed of the input."""
        if self.observed_from == COMPLETE or not longest:
            return True
        return longest != ALL and now - longest >= self.observed_from
