"""A partition whose events are folded by the compiled core; Python takes what that leaves to it.

Within a group a customer is in one of two lanes: the core's, or Python's, which is that of partition.py. Whatever asks
for a customer in Python takes it over from the core, until the group is complete. Both keep the same state records,
so the next group begins anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import starmap, takewhile
from typing import TYPE_CHECKING, TypeVar

from streamseg.core.assignment import Forecast
from streamseg.core.change import Change, Reason
from streamseg.core.definitions import Definitions
from streamseg.core.profile import UNSET, Profile
from streamseg.core.segmenter import Segmenter
from streamseg.core.tile import NEVER
from streamseg.core.units import Instant
from streamseg.formats import state as records
from streamseg.formats.state import MAX_STATE_BYTES, Sent, State
from streamseg.worker.apart import Work
from streamseg.worker.customers import Customers
from streamseg.worker.log import BATCH_BYTES
from streamseg.worker.partition import (
    OUTBOX_BYTES,
    Batch,
    Group,
    Mark,
    Partition,
    Taken,
    Told,
)
from streamseg.worker.placement import MURMUR2
from streamseg.worker.redis_entry import Move, PackedEntries, PackedEntry
from streamseg.worker.redis_view import LATER, SOON
from streamseg.worker.settings import MAX_RECORD_BYTES, Store
from streamseg.worker.states import States
from streamseg.worker.tolerance import Tally

if TYPE_CHECKING:
    from streamseg_engine import Engine, Records

FOLD_EVENTS = 8_000
"""Events folded in one go by another thread."""
FOLD_EVENTS_HERE = 2_000
"""The same where the loop waits for it."""
APART_EVENTS = 150
"""So many events at once, or customers, are work for a thread of their own; for less it is not worth the change."""
GROUP_EVENTS = 128_000
"""See partition.py: in as much time there is room for more."""
WATCHED_EVENTS = 20_000
"""The same. Half a second of events at the greatest rate there is: who stops to compare sooner has more to tell
just when there is no time for it."""
REFRESHED = 800
"""The same. At 20,000 events/s of many customers nearly each moves a forecast to be told later. All go with the
events of a group, where 200 were not enough, and what was left made groups of its own."""
TOGETHER = 1_500
"""The same: to fold each poll's few would take a turn of another thread each time, which takes longer than folding."""
ROOMS = 64
"""Customers of a group whom the core keeps decoded: those who came last. They fit into the processor's cache."""
SMALL = 256
"""Besides those, whoever has more numbers than these: larger states are dear to decode again."""

T = TypeVar("T")
HandOver = Callable[[str, Told], None]
"""Takes what the core had published of a customer in this group."""
Showing = tuple[list[tuple[bytes, int, list[str]]], "Records | None", list[bytes]]
"""What the core shows: pieces for Redis, assignments, and whom Python has to show."""


class CompiledCustomers(Customers):
    """The customers that are in Python's lane, of those that the core has."""

    def __init__(self, definitions: Definitions, begin: Callable[[object], Engine], hand_over: HandOver) -> None:
        self._begin = begin
        self._epoch = 0
        self.engine = begin({})
        self._hand_over = hand_over
        super().__init__(definitions)

    @property
    def epoch(self) -> int:
        """What records are marked with: whose they are."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.engine.epoch = self._epoch = epoch

    def state(self, customer: str) -> State | None:
        """The decoded state of a customer, who is in Python's lane from now on."""
        state = self._young.get(customer)
        if state is not None:
            return state
        released = self.engine.release(customer.encode())
        if released is None:
            return super().state(customer)
        data, dirty, counted, told = released
        state = self._young[customer] = records.decode_state(data, self._definitions.layout)
        state.counted = counted
        if dirty:
            self._dirty[customer] = state
        if told is not None:
            outbox, moves, ahead, caused, size = told
            self._hand_over(
                customer,
                Told(
                    [Sent(*sent) for sent in outbox],
                    [self._move(*move) for move in moves],
                    {place: Forecast(*each) for place, each in enumerate(ahead) if each[0] != NEVER},
                    caused,
                    size,
                ),
            )
        return state

    def _move(self, version: int, scheme: int, origin: int, target: int, at: Instant) -> Move:
        known = self._definitions.schemes[scheme].scheme
        return Move(version, known.name, "" if origin == UNSET else known.names[origin], known.names[target], at)

    def collect(self, outboxes: dict[str, list[Sent]]) -> list[tuple[bytes, bytes]]:
        """Keys and state records of the dirty customers of Python's lane, which is empty afterwards."""
        collected = super().collect(outboxes)
        self._young, self._old = {}, {}
        return collected

    def gain(self, gains: list[tuple[bytes, int, int]], customers: int) -> None:
        """Counts what the core has written: worth and customers by segments, and how many customers are new."""
        self._count += customers
        for segments, worth, number in gains:
            self.census.add(segments, worth, number)

    def kept(self, states: dict[bytes, bytes]) -> None:
        """Keeps states that the core has written; it keeps them itself if they are in its own memory."""
        if states:
            self._states.put(states)

    def load(self, states: States) -> list[tuple[Instant, str]]:
        """Takes over the states of a partition. The core has their deadlines."""
        self._states = states
        before, self.engine = self.engine, self._begin(states)
        self.engine.epoch, self.engine.clock = self._epoch, before.clock
        self.engine.observed_from = before.observed_from
        customers, gains = self.engine.load()
        self.gain(gains, customers)
        return []

    def drop(self) -> None:
        """Forgets all customers, when the partition is no longer ours."""
        self.engine.drop_all()
        super().drop()


class CompiledSegmenter(Segmenter):
    """The core's clock and deadlines; applies what is in Python's lane."""

    def __init__(
        self,
        definitions: Definitions,
        customers: CompiledCustomers,
        publish: Callable[[Change], None],
        foresee: Callable[[str, Profile, Mapping[int, Forecast]], None],
    ) -> None:
        self._customers = customers
        super().__init__(definitions, customers, publish, foresee)

    @property
    def clock(self) -> Instant:
        """The clock of the partition."""
        return self._customers.engine.clock

    @clock.setter
    def clock(self, clock: Instant) -> None:
        self._customers.engine.clock = clock

    @property
    def observed_from(self) -> Instant:
        """Since when the input was observed."""
        return self._customers.engine.observed_from

    @observed_from.setter
    def observed_from(self, observed_from: Instant) -> None:
        self._customers.engine.observed_from = observed_from

    @property
    def pending(self) -> int:
        """Deadlines that wait, outdated ones among them."""
        return self._customers.engine.pending

    @property
    def next_deadline(self) -> Instant:
        """No deadline fires before this instant."""
        return self._customers.engine.next_deadline

    def advance(self, now: Instant, limit: int | None = None) -> bool:
        """Moves the clock to `now` and fires deadlines up to it, in either lane; see Segmenter."""
        while True:
            end, deadline = self._customers.engine.advance(now, limit)
            if deadline is None:
                return end == "done"
            self.fire(*deadline)

    def fire(self, due: Instant, key: bytes) -> None:
        """Fires the deadline of a customer whom the core leaves to Python."""
        customer = key.decode()
        profile = self._customers.get(customer)
        if profile is None or due < profile.wake:
            return
        self._pass(customer, profile, due)

    def _queue(self, customer: str, profile: Profile) -> None:
        self._customers.engine.queue(customer.encode(), profile.wake)


class CompiledPartition(Partition):
    """The same to everybody else."""

    customers: CompiledCustomers
    segmenter: CompiledSegmenter
    group_events = GROUP_EVENTS
    watched_events = WATCHED_EVENTS
    together = TOGETHER
    compiled = True
    plan: bytes
    """What the core applies: see native_plan.py."""

    @staticmethod
    def memory() -> States:
        """An empty place for states, in memory."""
        from streamseg_engine import States

        return States()

    def _state(self) -> tuple[CompiledCustomers, CompiledSegmenter]:
        customers = CompiledCustomers(self._definitions, self._engine, self._take_over)
        return customers, CompiledSegmenter(self._definitions, customers, self._publish, self._foresee)

    def _engine(self, states: object) -> Engine:
        from streamseg_engine import Engine

        return Engine(
            self.plan,
            states,
            partition=self.number,
            partitions=self._shell.partitions,
            by_murmur2=self._placement.rule == MURMUR2,
            by_key=self._placement.by_key,
            outbox_bytes=OUTBOX_BYTES,
            deadlines_at_once=self.group_deadlines,
            batch_bytes=BATCH_BYTES,
            max_record_bytes=MAX_RECORD_BYTES,
            source=self._names.source,
            rooms=ROOMS,
            small=SMALL,
        )

    def _take_over(self, customer: str, told: Told) -> None:
        self._told[customer] = told

    def _expect_refresh(self, stale: dict[str, Mark]) -> None:
        for customer, mark in stale.items():
            self.customers.engine.note_stale(customer.encode(), *mark)

    def _note_stale(self, customer: str) -> None:
        self.customers.engine.note_stale(customer.encode(), *self._mark)

    def _is_stale(self, customer: str) -> bool:
        return self.customers.engine.is_stale(customer.encode())

    def _refreshed(self, customer: str) -> None:
        self.customers.engine.drop_stale(customer.encode())

    async def _show_stale(self, group: Group, before: float) -> bool:
        engine = self.customers.engine
        is_long = engine.due(before, REFRESHED) >= APART_EVENTS
        self._take_shown(group, await self._done(is_long, engine.show_due(before, REFRESHED, LATER)), told=True)
        return bool(group.pieces)

    def _unforeseen(self) -> int | None:
        return self.customers.engine.unforeseen()

    def _show(self, group: Group, customers: list[str], *, told: bool) -> None:
        keys = [customer.encode() for customer in customers]
        self._take_shown(group, self.customers.engine.refresh(keys, told, LATER), told=told)

    def _take_shown(self, group: Group, shown: Showing, *, told: bool) -> None:
        """Takes what the core shows, and shows whom that leaves to Python."""
        pieces, group.told, left = shown
        group.pieces += starmap(PackedEntries, pieces)
        super()._show(group, [key.decode() for key in left], told=told)

    @property
    def _goes_apart(self) -> bool:
        """Whether the core needs no Python amid its work: the states are in its own memory."""
        return self._settings.store is Store.MEMORY

    def _join(self) -> None:
        """Makes one batch of what waits of the first one's topic, for one fold: each is a turn of the loop or two."""
        from streamseg_engine import Fetched

        first = self._batches[0]
        if first.done:  # its acknowledgement must not wait for what came later, or under a backlog none would be given
            return
        parts, acks, size = [], [], 0
        for batch in takewhile(lambda batch: batch.topic == first.topic, self._batches):
            if size >= FOLD_EVENTS or not isinstance(batch.records, Fetched):
                break
            parts.append(batch.records)
            acks += batch.acks
            size += len(batch.records)
        if len(parts) < 2:
            return
        for _ in parts:
            self._batches.popleft()
        self._batches.appendleft(Batch(first.topic, Fetched.joined(parts), acks))

    async def _done(self, is_long: bool, work: Work[T]) -> T:
        """Has the core do something, by another thread if it takes long."""
        if is_long and self._goes_apart:
            return await self._shell.apart(work)
        return work()

    async def _fold_events(
        self, group: Group, batch: Batch, latest: Instant | None, tally: Tally, counts: Counter[Taken]
    ) -> int:
        topic, events, start = batch.topic, batch.records, batch.done
        end = min(start + (FOLD_EVENTS if self._goes_apart else FOLD_EVENTS_HERE), len(events))
        place = start
        while place < end and not self._brimming:
            if topic == self._rekeyed or topic not in self._observed:
                place += self._fold_one(group, topic, events[place], latest, tally, counts)
                continue
            engine = self.customers.engine
            taken, how, deadline, results = await self._done(
                end - place >= APART_EVENTS,
                engine.fold(events, place, end - place, topic, latest, *self._mark, self._watches),
            )
            place += taken
            tally.accept(taken)
            for type_class, result, number in results:
                counts[type_class, result] += number
            if how == "python":
                place += self._fold_one(group, topic, events[place], latest, tally, counts)
            elif how == "brimming":
                self._brimming = True
            elif deadline is not None:
                self.segmenter.fire(*deadline)
                if self._brimming or engine.brimming:  # the event whose time it is comes into the group as well
                    place += self._fold_one(group, topic, events[place], latest, tally, counts)
            self._brimming |= engine.brimming
        return place - start

    async def _complete(self, group: Group) -> None:
        await super()._complete(group)
        customers, engine = self.customers, self.customers.engine
        is_all = not (group.states or group.changes or group.current)
        states, changes, current, pieces, entries, kept, gains, new, large = await self._done(
            engine.touched >= APART_EVENTS, engine.complete(MAX_STATE_BYTES, SOON, group.told, is_all)
        )
        customers.kept(kept)
        customers.gain(gains, new)
        self._metrics.large_states.inc(large)
        self._note_changes(engine)
        group.pieces += starmap(PackedEntries, pieces)
        group.pieces += starmap(PackedEntry, entries)
        for made, own in ((states, group.states), (changes, group.changes), (current, group.current)):
            for key, value, headers in own if isinstance(own, list) else ():
                made.push(key, value, headers)
        group.states, group.changes, group.current = states, changes, current
        group.counts = customers.census.counts()

    @property
    def _moved_by_time(self) -> int:
        return self._by_time + self.customers.engine.by_time

    def _note_changes(self, engine: Engine) -> None:
        for scheme, origin, target, by_event, number in engine.take_changed():
            known = self._definitions.schemes[scheme].scheme
            before = "" if origin == UNSET else known.names[origin]
            reason = Reason.EVENT if by_event else Reason.TIME
            self._metrics.changes.labels(known.name, before, known.names[target], reason.value).inc(number)
        late = engine.take_late()
        if late and self._wall:
            now = self._shell.wall_clock()
            self._metrics.deadline_lateness.observe([max(0, now - at) / 1000 for at in late])
