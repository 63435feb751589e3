"""Which segment a customer is in, when that changes, and what comes next if nothing happens."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from streamseg.core.definitions import Definitions
from streamseg.core.profile import UNSET, Profile, advance
from streamseg.core.tile import NEVER
from streamseg.core.units import Instant


class Forecast(NamedTuple):
    """What a scheme will do if no event comes."""

    at: Instant
    """`NEVER` if it stays as it is."""
    target: int


NO_FORECAST = Forecast(NEVER, UNSET)


def forecast(definitions: Definitions, profile: Profile, now: Instant, schemes: Collection[int]) -> dict[int, Forecast]:
    """For each of these schemes its next change if no event comes: exactly when, and to which segment.

    The customer is taken on in time, from one instant at which something could change to the next. Schemes
    that never change by time alone are left out.
    """
    found: dict[int, Forecast] = {}
    missing = set(schemes)
    at = profile.wake if profile.wake > now else definitions.after(profile, now)
    if at == NEVER:
        return found
    ahead = profile.ahead()
    while missing and at != NEVER:
        advance(definitions.layout, ahead, at, compact=False)
        for move in definitions.decide(ahead, at):
            if move.scheme in missing:
                found[move.scheme] = Forecast(at, move.target)
                missing.remove(move.scheme)
        at = definitions.after(ahead, at) if missing else NEVER
    return found
