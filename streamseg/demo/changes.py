"""The changes that came out of Kafka: told apart from repetitions, in order, and counted for the view."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence

import msgspec

from streamseg.core.units import parse_instant
from streamseg.demo_view import Migration, SegmentMove

_LATEST = 60
_MIGRATIONS = 30


class _Told(msgspec.Struct, frozen=True):
    """What the view needs of a change."""

    scheme: str
    origin: str | None = msgspec.field(name="from")
    target: str | None = msgspec.field(name="to")
    version: int
    reason: str
    time: str


_decode = msgspec.json.Decoder(_Told).decode


class Changes:
    """Every change once, by customer; the place in the list is the version less one."""

    def __init__(self) -> None:
        self.total = 0
        self.repeated = 0
        """Records that came again after a crash: same version, same bytes."""
        self.faults: list[str] = []
        """Versions left out, and repetitions that differ; there must be none."""
        self._known: dict[str, list[bytes]] = {}
        self._migrations: Counter[tuple[str, str, str]] = Counter()
        self._latest: deque[tuple[str, _Told]] = deque(maxlen=_LATEST)

    @property
    def by_customer(self) -> Mapping[str, Sequence[bytes]]:
        """The bodies of each customer's changes."""
        return self._known

    def take(self, customer: str, data: bytes) -> None:
        """Take the next record of the topic; of one customer they come in order."""
        change = _decode(data)
        known = self._known.setdefault(customer, [])
        if change.version <= len(known):
            self._repeat(customer, data, known[change.version - 1])
            return
        if change.version != len(known) + 1:
            self.faults.append(f"{customer}: version {change.version} follows {len(known)}")
        known.append(data)
        self.total += 1
        self._latest.appendleft((customer, change))
        if change.origin and change.target:
            self._migrations[change.scheme, change.origin, change.target] += 1

    def _repeat(self, customer: str, data: bytes, before: bytes) -> None:
        self.repeated += 1
        if data != before:
            self.faults.append(f"{customer}: came again with other bytes: {before!r}, then {data!r}")

    def latest(self) -> tuple[SegmentMove, ...]:
        """The latest ones, the newest first."""
        return tuple(
            SegmentMove(
                time=parse_instant(change.time),
                customer=customer,
                scheme=change.scheme,
                source=change.origin,
                target=change.target,
                reason=change.reason,
            )
            for customer, change in self._latest
        )

    def migrations(self) -> tuple[Migration, ...]:
        """The largest streams from one segment to another."""
        return tuple(
            Migration(scheme=scheme, source=origin, target=target, customers=count)
            for (scheme, origin, target), count in self._migrations.most_common(_MIGRATIONS)
        )
