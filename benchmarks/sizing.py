"""The bytes of a customer and of a worker: what there is, by part, and the formula of docs/operating.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from streamseg.core.definitions import Definitions
from streamseg.core.event import FINGERPRINT_BYTES
from streamseg.core.profile import REMEMBERED, Profile
from streamseg.formats import state as records
from streamseg.formats.state import State

FIXED, SCHEME, EVENT, ORDER, TILE, FACT, VALUE = 65, 8, 6, 20, 5, 6, 14
STATE_FORMULA = (
    f"state = {FIXED} + {SCHEME} × schemes + {EVENT} × events (up to {REMEMBERED}) + {ORDER} × orders + {TILE} × tiles "
    f"+ {FACT} × facts + {VALUE} × values"
)
WORKER_MB, KEPT, IN_USE = 100, 110, 2_500
WORKER_FORMULA = f"worker = {WORKER_MB} MB + customers × (state + {KEPT} + id) + customers in use × {IN_USE:,}"
SOURCE = "shop-events"
"""The event topic."""
PARTS = {
    "ids of the latest events": ("recent",),
    "orders, for refunds": ("orders", "waiting"),
    "tiles of the windows, and totals": ("rows", "positions", "totals"),
    "since, age, last, attributes": ("marks", "latest", "attributes", "attribute_times"),
    "values told apart by distinct": ("distinct",),
}
FRAME = "head, where events came from, schemes"


@dataclass(frozen=True, slots=True)
class Counts:
    """What a state has of everything: averages of several customers, or what somebody expects."""

    schemes: float
    events: float
    """Whose ids are remembered: the latest, up to 256."""
    orders: float
    """Within the refund window."""
    tiles: float
    """With events, over all selections and lengths of tiles."""
    facts: float
    """Each since, age, last and attr that the definitions have."""
    values: float
    """Told apart by distinct."""

    def state_bytes(self) -> float:
        """By the formula."""
        return (
            FIXED + SCHEME * self.schemes + EVENT * self.events + ORDER * self.orders + TILE * self.tiles
            + FACT * self.facts + VALUE * self.values
        )  # fmt: skip


def worker_bytes(customers: int, state: float, id_bytes: float, in_use: int = 0) -> float:
    """Resident, by the formula, with `--store memory`; without what the heap keeps from loading."""
    return WORKER_MB * 1e6 + customers * (state + KEPT + id_bytes) + in_use * IN_USE


def counts(definitions: Definitions, profiles: Sequence[Profile]) -> Counts:
    """What customers have, on average."""
    layout = definitions.layout
    every = len(profiles)
    return Counts(
        schemes=len(definitions.schemes),
        events=sum(len(profile.recent) // FINGERPRINT_BYTES for profile in profiles) / every,
        orders=sum(len(profile.orders) for profile in profiles) / every,
        tiles=sum(len(rows[0]) for profile in profiles for rows in profile.rows) / every,
        facts=layout.marks + layout.latest + len(layout.attributes),
        values=sum(_values(profile) for profile in profiles) / every,
    )


def _values(profile: Profile) -> int:
    """Values told apart, those in several tiles once for each."""
    return sum(len(known) for known, _ in profile.distinct)


def encoded(definitions: Definitions, profile: Profile) -> int:
    """The bytes of a state."""
    state = State(profile, {SOURCE: 1_000_000})
    return len(records.kept(*records.encode_state(state, definitions.layout, 1)))


def parts(definitions: Definitions, profiles: Sequence[Profile]) -> Mapping[str, float]:
    """The bytes of a state by part, on average."""
    whole = sum(encoded(definitions, profile) for profile in profiles) / len(profiles)
    sizes = {
        name: whole - sum(_without(definitions, profile, fields) for profile in profiles) / len(profiles)
        for name, fields in PARTS.items()
    }
    return {FRAME: whole - sum(sizes.values()), **sizes}


def _without(definitions: Definitions, profile: Profile, fields: Sequence[str]) -> int:
    """The bytes of a state with these fields as nobody's."""
    nobody = Profile(definitions.layout, len(profile.segments))
    kept = {field: getattr(profile, field) for field in fields}
    for field in fields:
        setattr(profile, field, getattr(nobody, field))
    size = encoded(definitions, profile)
    for field, value in kept.items():
        setattr(profile, field, value)
    return size
