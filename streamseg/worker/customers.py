"""The customers of one partition: their states as bytes, the recently used ones decoded."""

from __future__ import annotations

from collections.abc import Iterator

from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.core.tile import NEVER
from streamseg.core.units import Instant
from streamseg.formats import state as records
from streamseg.formats.state import Sent, State, StateError
from streamseg.worker.census import Census

CACHED = 20_000
"""Decoded profiles kept from one generation to the next; there are two generations at most."""


class Customers:
    """A shelf of profiles over a dictionary of state records.

    Profiles changed since the last `collect` are dirty; they stay decoded until then.
    """

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._mark = definitions.layout.fingerprint.encode()
        self._states: dict[bytes, bytes] = {}
        self._young: dict[str, State] = {}
        self._old: dict[str, State] = {}
        self._dirty: dict[str, State] = {}
        self.epoch = 0
        """What records are marked with: whose they are."""
        self.census = Census(definitions)

    def __len__(self) -> int:
        return len(self._states)

    def __iter__(self) -> Iterator[str]:
        """The ids of all customers."""
        return (key.decode() for key in list(self._states))

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
                state = records.decode_state(data, self._definitions.layout, self._mark)
            except StateError as error:
                raise StateError(f"customer {customer!r}: {error}") from error
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
        collected = []
        worth = self._definitions.value
        for customer, state in self._dirty.items():
            profile = state.profile
            value = worth(profile, profile.at) if worth is not None else None
            state.worth = 0 if value is None else round(value)
            head, body = records.encode_state(state, self._mark, self.epoch)
            key = customer.encode()
            self._keep(key, records.kept(head, body))
            collected.append((key, records.record(head, body, outboxes.get(customer, []))))
        self._dirty.clear()
        if len(self._young) > CACHED:
            self._old, self._young = self._young, {}
        return collected

    def _keep(self, key: bytes, data: bytes) -> None:
        before = self._states.get(key)
        self._states[key] = data
        if before is None:
            self.census.add(records.read_header(data))
        elif records.standing(before) != records.standing(data):
            self.census.add(records.read_header(before), -1)
            self.census.add(records.read_header(data))

    def load(self, states: dict[bytes, bytes]) -> list[tuple[Instant, str]]:
        """Takes over the states of a partition, without outboxes; returns their deadlines, with the customers."""
        self._states = states
        deadlines = []
        for key, data in states.items():
            header = records.read_header(data)
            self.census.add(header)
            if header.wake != NEVER:
                deadlines.append((header.wake, key.decode()))
        return deadlines
