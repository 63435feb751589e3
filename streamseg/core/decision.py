"""All schemes' rules as one compiled function: which customers move, and where to.

At each evaluation, schemes in file order, with `C` the current segment: the candidate is the first segment
whose `when` holds, else the default. A candidate above `C` is moved to at once; one below it unless
`C.stay_when` holds or `C.min_stay` has not passed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from streamseg.core.condition import Scope, compile_lines, locals_of
from streamseg.core.units import Duration, Instant

Evaluator = Callable[[Any, int], Any]
"""A compiled function of a profile and an instant."""


class Move(NamedTuple):
    """One scheme's decision to put a customer elsewhere."""

    scheme: int
    origin: int
    """Place of the segment left, -1 if there was none."""
    target: int
    entered: Instant
    """When the segment left had been entered."""


Decide = Callable[[Any, Instant], Sequence[Move]]
"""Decides all schemes for a profile that is at this instant, and moves the customer."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one scheme, in code."""

    whens: tuple[str, ...]
    stays: tuple[Evaluator | None, ...]
    """For each segment, and the default, what else keeps a customer in it."""
    min_stays: tuple[Duration, ...]

    def keeps(self, profile: Any, now: Instant, place: int, current: int) -> bool:
        """Whether the current segment keeps a customer who fits only a lower one."""
        stay = self.min_stays[current]
        if stay and now < profile.entered[place] + stay:
            return True
        stays = self.stays[current]
        return stays is not None and bool(stays(profile, now))


_SCHEME = """\
 n = {candidate}
 c = S[{place}]
 if n != c and not (n > c >= 0 and keeps{place}(p, T, {place}, c)):
  moves = (*moves, Move({place}, c, n, p.entered[{place}]))
  S[{place}] = n
  p.entered[{place}] = T"""


def compile_decide(scope: Scope, schemes: Sequence[Rules], needs: frozenset[str]) -> Decide:
    """One function for all schemes: what they share is computed once."""
    lines = [*locals_of(scope, needs), " moves = ()"]
    names: dict[str, Any] = {"Move": Move}
    for place, rules in enumerate(schemes):
        chain = "".join(f"{segment} if {when} else " for segment, when in enumerate(rules.whens))
        lines.append(_SCHEME.format(candidate=f"{chain}{len(rules.whens)}", place=place))
        names[f"keeps{place}"] = rules.keeps
    return compile_lines(scope, "decide", [*lines, " return moves"], **names)
