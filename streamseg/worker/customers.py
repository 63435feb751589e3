"""The customers of one partition: their states as bytes, the recently used ones decoded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.core.tile import NEVER
from streamseg.core.units import Instant
from streamseg.formats import state as records
from streamseg.formats.state import Sent, State, StateError
from streamseg.worker.census import Census
from streamseg.worker.memory_states import MemoryStates
from streamseg.worker.settings import Store
from streamseg.worker.states import States

HOT = {Store.MEMORY: 20_000, Store.ROCKSDICT: 5_000}
"""Decoded profiles of a partition kept from one generation to the next; there are two generations at most."""


class Customers:
    """A shelf of profiles over state records.

    Profiles changed since the last `collect` are dirty; they stay decoded until then.
    """

    def __init__(self, definitions: Definitions, hot: int = HOT[Store.MEMORY]) -> None:
        self._definitions = definitions
        self._hot = hot
        self._states: States = MemoryStates()
        self._count = 0
        self._young: dict[str, State] = {}
        self._old: dict[str, State] = {}
        self._dirty: dict[str, State] = {}
        self.epoch = 0
        """What records are marked with: whose they are."""
        self.census = Census(definitions)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        """The ids of all customers there are now, whoever comes meanwhile."""
        return (key.decode() for key in iter(self._states))

    def get(self, customer: str) -> Profile | None:
        """The profile of a customer, None for an unknown one."""
        state = self._young.get(customer) or self.state(customer)
        return None if state is None else state.profile

    def state(self, customer: str) -> State | None:
        """The decoded state of a customer."""
        state = self._young.get(customer)
        if state is not None:
            return state
        state = self._old.pop(customer, None)
        if state is None:
            data = self._states.get(customer.encode())
            if data is None:
                return None
            try:
                state = records.decode_state(data, self._definitions.layout)
            except StateError as error:
                raise StateError(f"customer {customer!r}: {error}") from error
            state.counted = records.summary(data)[1:]
        self._young[customer] = state
        return state

    def put(self, customer: str, profile: Profile) -> None:
        """Notes that a profile is new or changed."""
        if customer not in self._dirty:
            state = self._young.get(customer)
            if state is None:
                state = self._young[customer] = State(profile, {})
            self._dirty[customer] = state

    def rewrite(self, customer: str) -> None:
        """Has a customer's record written again, as it is."""
        profile = self.get(customer)
        if profile is not None:
            self.put(customer, profile)

    def applied(self, customer: str, position: str, offset: int) -> None:
        """Notes that the event at this place was applied to the customer, who is dirty."""
        self._dirty[customer].offsets[position] = offset

    def collect(self, outboxes: dict[str, list[Sent]]) -> list[tuple[bytes, bytes]]:
        """Keys and state records of all dirty customers, with their changes in them; none is dirty afterwards."""
        collected: list[tuple[bytes, bytes]] = []
        kept: dict[bytes, bytes] = {}
        worth = self._definitions.value
        for customer, state in self._dirty.items():
            profile = state.profile
            value = worth(profile, profile.at) if worth is not None else None
            state.worth = 0 if value is None else round(value)
            head, body = records.encode_state(state, self._definitions.layout, self.epoch)
            key, outbox = customer.encode(), outboxes.get(customer)
            data = kept[key] = records.kept(head, body)
            self._count_anew(state, data)
            collected.append((key, records.record(head, body, outbox) if outbox else data))
        self._states.put(kept)
        self._dirty.clear()
        if len(self._young) > self._hot:
            self._old, self._young = self._young, {}
        return collected

    def _count_anew(self, state: State, data: bytes) -> None:
        _, worth, segments = records.summary(data)
        if state.counted == (worth, segments):
            return
        if state.counted is None:
            self._count += 1
        else:
            self.census.add(state.counted[1], -state.counted[0], -1)
        self.census.add(segments, worth)
        state.counted = worth, segments

    def load(self, states: States) -> list[tuple[Instant, str]]:
        """Takes over the states of a partition, without outboxes; returns their deadlines, with the customers."""
        self._states = states
        deadlines: list[tuple[Instant, str]] = []
        alike: defaultdict[bytes, list[int]] = defaultdict(lambda: [0, 0])
        summary = records.summary
        for key, data in states.items():
            wake, worth, segments = summary(data)
            total = alike[segments]
            total[0] += 1
            total[1] += worth
            if wake != NEVER:
                deadlines.append((wake, key.decode()))
        for segments, (customers, worth) in alike.items():
            self._count += customers
            self.census.add(segments, worth, customers)
        return deadlines

    def drop(self) -> None:
        """Forgets all customers, when the partition is no longer ours."""
        self._states.drop()
