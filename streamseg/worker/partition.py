"""One partition's work: batches of events and the passing of time in, records for Kafka and Redis out.

The order in which a group of events is written is what makes changes survive `kill -9`:

1. the dead letters, acknowledged by the broker: once a later event is in a state, an earlier one is not looked at
   again;
2. state records (position, state and changes in one record), acknowledged, at the offset that was expected: nobody
   else wrote to the changelog, so the partition was still ours;
3. the changes, the assignments, and the events that belong to other partitions, acknowledged;
4. only then the batches are acknowledged, in offset order, and the view is told.

While a group is being written, the next one is folded. Whatever fails ends the process: nothing was
acknowledged, so everything is read again, and what was applied already is skipped by its offset. The argument
stands in docs/decisions/0002, 0012 and 0014.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from streamseg.core.assignment import Forecast, forecast
from streamseg.core.change import Change, Reason
from streamseg.core.definitions import Definitions
from streamseg.core.errors import RejectedEvent, TryAgainError
from streamseg.core.event import NOT_ENGAGEMENT, Event
from streamseg.core.profile import Profile
from streamseg.core.segmenter import COMPLETE, DUPLICATE, Result, Segmenter
from streamseg.core.units import Instant, format_instant
from streamseg.formats import messages
from streamseg.formats import state as records
from streamseg.formats.event_json import EventDecoder
from streamseg.formats.messages import Origin
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, MAX_STATE_BYTES, Checkpoint, Rejections, Sent, State
from streamseg.worker.current_topic import CurrentTopic
from streamseg.worker.customers import HOT, Customers
from streamseg.worker.failure import fatal
from streamseg.worker.fetches import EventRecord
from streamseg.worker.loading import Loaded
from streamseg.worker.log import Item, Log
from streamseg.worker.memory_states import MemoryStates
from streamseg.worker.metrics import Metrics
from streamseg.worker.owner import Ack
from streamseg.worker.placement import Placement, check_key, fault
from streamseg.worker.redis_entry import Counts, Entry, Move, Piece, Shown, Writer
from streamseg.worker.redis_view import RedisView
from streamseg.worker.settings import Clock, Names, Settings
from streamseg.worker.shell import Shell
from streamseg.worker.states import States
from streamseg.worker.tolerance import Tally, TooManyRejectedError

if TYPE_CHECKING:
    from streamseg_engine import Records

GROUP_EVENTS = 4_000
"""Events in one group at most: when many wait, one state record does for more of a customer's events."""
FOLD_EVENTS = 500
"""Events folded in one go: some tens of milliseconds, after which others have a turn."""
GROUP_DEADLINES = 300
"""Changes by time in a group, about. An event amid a herd of them waits for two such groups, and for their writing."""
MOST_ADVANCES = 10
"""So many times as many deadlines are looked at for a group of these: many come to nothing."""
WAITING_EVENTS = 130_000
"""Above this the partition is not fetched any more until it has caught up."""
WATCHED_EVENTS = 200
"""While fewer wait, the forecast before an event and the one behind it are compared, and it is told if it moved. Who is
behind saves the time that takes, and tells whatever it comes to."""
REFRESHED = 200
"""Forecasts refreshed in one go."""
REFRESH_AFTER = 4.0
"""Seconds after which a forecast that only moved is refreshed in Redis; interfaces allow 5."""
CHECKPOINT_EVERY = 1.0
CHECKPOINT_ANYWAY = 60.0
"""Seconds after which a checkpoint is written though nothing has moved: only who appends meets what somebody else has
appended, and it has to be met well before compaction (`min.compaction.lag.ms` of the changelog) keeps nothing else."""
OUTBOX_BYTES = 50_000
"""One customer's changes in one state record: a group ends when they are more."""
OWNERSHIP_POLL = 0.02
CLOSE_SECONDS = 4.0


Taken = tuple[str, str]
"""The class of an event's type, and what became of it."""
_REJECTED: Taken = ("invalid", "rejected")


class PartitionLostError(TryAgainError):
    """Another worker has taken the partition over."""


@dataclass(slots=True)
class Group:
    """What one fold made, to be written together."""

    states: list[Item] | Records = field(default_factory=list)
    changes: list[Item] | Records = field(default_factory=list)
    current: list[Item] | Records = field(default_factory=list)
    rejects: list[Item] = field(default_factory=list)
    sent_on: dict[int, list[Item]] = field(default_factory=dict)
    """Events that belong to other partitions."""
    pieces: list[Piece] = field(default_factory=list)
    counts: Counts = field(default_factory=dict)
    acks: list[Ack] = field(default_factory=list)
    clock: Instant = 0
    observed_from: Instant = COMPLETE
    sources: dict[str, int] = field(default_factory=dict)
    rejections: dict[str, Rejections] = field(default_factory=dict)
    whole: str = ""
    """The identity of the Redis that knows all customers after this."""
    unforeseen: int | None = None
    """Where in the changelog the first state may stand whose forecast is not told; None if all are."""
    told: Records | None = None
    """More assignments, of the compiled core."""
    mended: int | None = None
    """What to tell the topic of assignments once all this is written; see CurrentTopic.take."""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write or to acknowledge."""
        return not (self.states or self.rejects or self.sent_on or self.acks or self.pieces)


@dataclass(slots=True)
class Batch:
    """Events of one topic that came at once, and how many of them are folded."""

    topic: str
    records: Sequence[EventRecord]
    acks: list[Ack]
    done: int = 0


class Mark(NamedTuple):
    """A customer whose forecast moved: since when (monotonic seconds), and the lowest offset of its state."""

    since: float
    offset: int


@dataclass(slots=True)
class Told:
    """What was published of one customer in the group that is being folded."""

    outbox: list[Sent] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    ahead: Mapping[int, Forecast] = field(default_factory=dict)
    caused: Instant | None = None
    size: int = 0
    """Bytes of the outbox."""


class Partition:
    """Owns the customers of one partition from `open` to `close`."""

    group_events = GROUP_EVENTS
    group_deadlines = GROUP_DEADLINES
    watched_events = WATCHED_EVENTS
    together = 1
    """Events that have to wait for them to be folded while the group before theirs is being written; then all are."""
    compiled = False
    """Whether the compiled core applies events."""

    def __init__(
        self,
        number: int,
        definitions: Definitions,
        settings: Settings,
        placement: Placement,
        shell: Shell,
        view: RedisView,
        metrics: Metrics,
    ) -> None:
        self.number = number
        self.waiting = 0
        self._definitions = definitions
        self._settings = settings
        self._placement = placement
        self._names: Names = settings.names
        self._changelog = settings.names.changelog(settings.group)
        self._shell, self._log, self._view, self._metrics = shell, shell.log, view, metrics
        self._decoder = EventDecoder(definitions.currency, definitions.digits, definitions.rates)
        self._wall = settings.clock is Clock.WALL
        self._rekeyed = settings.rekeyed
        self._places = {topic: f"{topic}/{number}/" for topic in settings.events}
        self._batches: deque[Batch] = deque()
        self._work = asyncio.Event()
        self._commits: asyncio.Queue[Group | None] = asyncio.Queue(maxsize=2)
        self._writing = 0
        self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        self.customers, self.segmenter = self._state()
        self._told: dict[str, Told] = {}
        self._changed: Counter[tuple[str, str, str, str]] = Counter()
        self._stale: dict[str, Mark] = {}
        self._brimming = False
        self._by_time = 0
        self._mark = Mark(0.0, 0)
        self._watches = False
        """Whether forecasts are compared."""
        self._sources: dict[str, int] = {}
        self._tallies = defaultdict[str, Tally](partial(Tally, settings.tolerance))
        self._refusal: TooManyRejectedError | None = None
        """Why nothing more is taken; None while it is."""
        self._observed: dict[str, Instant] = {}
        self._published = 0
        self._settled_clock: Instant = 0
        self._settled_observed_from: Instant = self.segmenter.observed_from
        self._settled_sources: dict[str, int] = {}
        self._settled_rejections: dict[str, Rejections] = {}
        self._checkpointed: Checkpoint | None = None
        self._checkpoint_due = 0.0
        self._append_due = 0.0
        self._end = 0
        """The offset of the next changelog record, as long as nobody else writes."""
        self._fence = -1
        self._current = CurrentTopic(shell, settings.names.current, number)
        self._filled = ""
        """The identity of the Redis that all customers are or will be shown to."""
        self._unshown: Iterator[str] | None = None
        """Customers to be shown to it, though nothing has moved."""
        self._shadowed: set[str] = set()
        """Customers whose states have to be written again."""

    @staticmethod
    def memory() -> States:
        """An empty place for states, in memory."""
        return MemoryStates()

    def _state(self) -> tuple[Customers, Segmenter]:
        """The customers, and the clock they are under."""
        customers = Customers(self._definitions, HOT[self._settings.store])
        return customers, Segmenter(self._definitions, customers, self._publish, self._foresee)

    # Opening and closing

    async def fence(self, loaded: Loaded) -> int:
        """Appends the record from which on only what this worker writes counts; returns its offset."""
        loaded.check(self._definitions, self._settings)
        self._placement.check_states(self.number, loaded.states, loaded.placement, self._settings.group)
        self.customers.epoch = loaded.epoch + 1
        self._fence = await self._send(self._changelog, [(FENCE_KEY, records.encode_fence(self.customers.epoch), [])])
        return self._fence

    async def open(self, loaded: Loaded, end: int) -> Mapping[str, int]:
        """Takes over what was loaded, publishes again what may not have been, and starts to work.

        Returns where to read on, by event topic. Raises PartitionLostError if another worker's fence stands before
        or behind ours.
        """
        checkpoint = loaded.checkpoint
        loaded.check(self._definitions, self._settings)
        if (loaded.epoch, loaded.fenced_at) != (self.customers.epoch, self._fence):
            raise self._lost(loaded.epoch)
        self._end = end
        self._metrics.stale_records.inc(loaded.stale)
        self._shadowed = {key.decode() for key in loaded.shadowed}
        self.segmenter.expect(self.customers.load(loaded.states))
        if checkpoint is not None:
            self.segmenter.clock = self._settled_clock = checkpoint.clock
            self.segmenter.observed_from = self._settled_observed_from = checkpoint.observed_from
            self._settled_sources = dict(checkpoint.sources)
            self._settled_rejections = dict(checkpoint.rejections)
            for topic, known in checkpoint.rejections.items():
                self._tallies[topic] = Tally(self._settings.tolerance, known)
        if checkpoint is not None or not loaded.empty:
            # A topic that no checkpoint speaks of yet is read from its beginning: what was applied of it is skipped.
            self._sources = {topic: self._settled_sources.get(topic, 0) for topic in self._settings.sources}
        self._filled = "" if checkpoint is None else checkpoint.whole
        self._view.start(self.number, Shown(loaded.viewed, loaded.foreseen), self._filled)
        self._published = end
        mark = Mark(self._shell.monotonic(), loaded.foreseen)
        self._expect_refresh({key.decode(): mark for key in loaded.touched})
        await self._current.begin(-1 if checkpoint is None else checkpoint.current)
        await self._publish_again(loaded)
        self._tasks = [asyncio.create_task(self._fold_all()), asyncio.create_task(self._write_all())]
        return self._sources

    async def _publish_again(self, loaded: Loaded) -> None:
        """Changes whose publication, or way to Redis, is not known to have come about: the same bytes again."""
        group = Group()
        latest: dict[bytes, list[Move]] = {}
        again: list[Item] = []
        for offset, key, sent in loaded.outbox:
            if offset >= loaded.published:
                again.append(self._change_item(key, sent))
            latest.setdefault(key, []).append(_move_of(sent, offset))
        for key, moves in latest.items():
            customer = key.decode()
            profile = self.customers.get(customer)
            if profile is not None:
                self._tell_view(group, customer, profile, Told(moves=moves, ahead=self._ahead(profile)))
                self._refreshed(customer)
        await self._send(self._names.changes, again)
        await self._assign(group.current)
        self._metrics.republished.inc(len(again))
        self._view.put(
            self.number, self._shown(self._unforeseen()), group.pieces, self.customers.census.counts()
        )  # without waiting for room: a Redis that is away must not keep a partition from being opened

    async def close(self) -> None:
        """Finishes what is in flight, within some seconds, writes a last checkpoint, and stops."""
        self._closing = True
        self._work.set()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        self._view.stop(self.number)
        self.customers.drop()

    @property
    def writing(self) -> bool:
        """Whether a group is being written, or waits to be."""
        return self._writing > 0

    # In

    def arrived(self, topic: str, records: Sequence[EventRecord], ack: Ack) -> None:
        """Takes the next events; never blocks."""
        self._batches.append(Batch(topic, records, [ack]))
        self.waiting += len(records)
        self._work.set()

    def assignments_end(self, end: int) -> None:
        """Takes note of where the topic of assignments ends."""
        self._current.heard(end)

    def tick(self) -> None:
        """Lets time pass: deadlines that are due by the wall clock, refreshes, checkpoints."""
        self._work.set()

    @property
    def _stopping(self) -> bool:
        return self._closing or self._refusal is not None

    async def _fold_all(self) -> None:
        with fatal(f"partition {self.number}"):
            while not self._stopping:
                if not self._batches:
                    await self._work.wait()
                self._work.clear()
                await self._fold_arrived()
                await self._pass_time()
                await self._refresh()
                await self._tell_again()
                await self._fill_view()
                if self._shadowed or self._shell.monotonic() >= self._checkpoint_due:
                    await self._hand_on(Group(), always=True)
            await self._commits.put(None)
            if self._refusal is not None and not self._closing:
                await self._tasks[1]  # what came before is written, and the checkpoint says so: a restart begins here
                raise self._refusal

    async def _fold_arrived(self) -> None:
        while self._batches and not self._stopping:
            group = Group()
            self._brimming = False
            await self._show_due(group)
            await self._fill(group)
            await self._hand_on(group)
            await self._tell_again()
            await self._fill_view()

    async def _fill(self, group: Group) -> None:
        """Folds what comes into a group, until that can be written: one that waits is worth more as it grows."""
        folded = 0
        while folded < self.group_events and not (self._brimming or self._stopping):
            if self._batches and (not self._writing or self.waiting >= self.together):
                self._join()
                folded += await self._fold(group, self._batches[0])
                await asyncio.sleep(0)
            elif self._writing:
                await self._work.wait()
                self._work.clear()
            if not (self._batches or self._writing):
                return

    async def _hand_on(self, group: Group, *, always: bool = False) -> None:
        """Completes a group and queues it to be written; waits while two are queued already."""
        await self._complete(group)
        if always or not group.empty:
            self._writing += 1
            await self._commits.put(group)
        await asyncio.sleep(0)

    async def _pass_time(self) -> None:
        """Moves the clock to the wall clock, if the partition has been read to its end; else fires what events left."""
        while not (self._closing or self._batches):
            now = self.segmenter.clock
            if self._wall and self._shell.caught_up(self.number):
                now = max(now, self._shell.wall_clock())
            if self.segmenter.next_deadline > now:
                self.segmenter.clock = now
                return
            if self._writing >= 2:  # one is ready: events that come meanwhile go before more of these
                await self._work.wait()
                self._work.clear()
                continue
            await self._advance(now)
            await self._hand_on(Group())

    async def _advance(self, now: Instant) -> None:
        """Fires deadlines until a group has changes enough, or events come; most may come to nothing."""
        for _ in range(MOST_ADVANCES):
            is_done = self.segmenter.advance(now, self.group_deadlines)
            if is_done or self._moved_by_time >= self.group_deadlines or self._batches:
                return
            await asyncio.sleep(0)

    @property
    def _moved_by_time(self) -> int:
        """Changes by time in the group that is being folded."""
        return self._by_time

    async def _refresh(self) -> None:
        """Tells of forecasts that moved though no segment did, and no group comes that could tell of them."""
        while not (self._batches or self._writing or self._closing):
            group = Group()
            if not await self._show_due(group):
                return
            await self._hand_on(group)

    async def _show_due(self, group: Group) -> bool:
        """Adds some such forecasts to a group that is empty yet."""
        return await self._show_stale(group, self._shell.monotonic() - REFRESH_AFTER)

    async def _tell_again(self) -> None:
        """Tells of customers of whom somebody else may have had the last word."""
        customers, mended = self._current.take(REFRESHED)
        if customers:
            group = Group(mended=mended)
            self._show(group, customers, told=True)
            await self._hand_on(group, always=True)
            self._work.set()

    async def _fill_view(self) -> None:
        """Shows some more customers to a Redis that does not know them."""
        identity = self._view.identity
        if not identity or (identity == self._filled and self._unshown is None):
            return
        if identity != self._filled or self._unshown is None:
            self._filled, self._unshown = identity, iter(self.customers)
        group = Group()
        customers = list(islice(self._unshown, REFRESHED))
        self._show(group, customers, told=False)
        if not customers:
            self._unshown = None
        group.whole = identity if self._unshown is None else ""
        await self._hand_on(group, always=True)
        if self._unshown is not None:
            self._work.set()

    # Forecasts that moved, and are not told yet

    def _expect_refresh(self, stale: dict[str, Mark]) -> None:
        self._stale = stale

    def _note_stale(self, customer: str) -> None:
        if customer not in self._stale:
            self._stale[customer] = self._mark

    def _is_stale(self, customer: str) -> bool:
        return customer in self._stale

    def _refreshed(self, customer: str) -> None:
        self._stale.pop(customer, None)

    async def _show_stale(self, group: Group, before: float) -> bool:
        """Shows some customers whose forecasts are not told since then or longer, if there are any."""
        due = [customer for customer, mark in islice(self._stale.items(), REFRESHED) if mark.since <= before]
        for customer in due:
            del self._stale[customer]
        self._show(group, due, told=True)
        return bool(due)

    def _unforeseen(self) -> int | None:
        mark = next(iter(self._stale.values()), None)
        return None if mark is None else mark.offset

    def _show(self, group: Group, customers: list[str], *, told: bool) -> None:
        """Has Redis shown customers as they are; what is `told` goes to the topic of assignments, too."""
        for customer in customers:
            profile = self.customers.get(customer)
            if profile is not None:
                shown = Told(ahead=self._ahead(profile))
                if told:
                    self._tell_view(group, customer, profile, shown)
                else:
                    group.pieces.append(self._entry(customer, profile, shown))

    def _ahead(self, profile: Profile) -> dict[int, Forecast]:
        return forecast(self._definitions, profile, profile.at, range(len(self._definitions.schemes)))

    # Folding

    def _join(self) -> None:
        """Makes one batch of several that wait, if that makes less work of them."""

    async def _fold(self, group: Group, batch: Batch) -> int:
        """Applies the next events of a batch; returns how many. Brimming: the group has to be written first."""
        started = time.perf_counter()
        if not batch.records[0].offset:
            self._observed.setdefault(batch.topic, COMPLETE)
        self._mark = Mark(self._shell.monotonic(), self._published)
        self._watches = self.waiting < self.watched_events
        counts: Counter[Taken] = Counter()
        tally = self._tallies[batch.topic]
        latest = self._shell.wall_clock() + self._settings.max_ahead_ms if self._wall else None
        done = await self._fold_events(group, batch, latest, tally, counts)
        if done:
            self._sources[batch.topic] = batch.records[batch.done + done - 1].offset + 1
        batch.done += done
        self.waiting -= done
        if batch.done == len(batch.records):
            self._batches.popleft()
            group.acks += batch.acks
        for (type_class, result), count in counts.items():
            self._metrics.events.labels(batch.topic, type_class, result).inc(count)
        self._metrics.batch_seconds.observe(time.perf_counter() - started)
        return done

    async def _fold_events(
        self, group: Group, batch: Batch, latest: Instant | None, tally: Tally, counts: Counter[Taken]
    ) -> int:
        done = 0
        for record in batch.records[batch.done : batch.done + FOLD_EVENTS]:
            done += self._fold_one(group, batch.topic, record, latest, tally, counts)
            if self._brimming:
                break
        return done

    def _fold_one(
        self,
        group: Group,
        topic: str,
        record: EventRecord,
        latest: Instant | None,
        tally: Tally,
        counts: Counter[Taken],
    ) -> int:
        """Takes an event, and says that it is one; none if the group has to be written first."""
        take = self._take_sent_on if topic == self._rekeyed else self._take
        taken = take(topic, record, latest, group)
        if taken is None:
            self._brimming = True
            return 0
        if taken is not _REJECTED:
            tally.accept()
        counts[taken] += 1
        return 1

    def _take(self, topic: str, record: EventRecord, latest: Instant | None, group: Group) -> Taken | None:
        """Applies one event, or sends it on; returns its class and what became of it.

        None: it is one rejected event too many.
        """
        try:
            event = self._decoder.decode(record.value, self._places[topic], record.offset, latest)
            state = self.customers.state(event.customer)
            # Whoever has a state here belongs here; so only new customers cost a hash.
            target = self.number if state is not None else self._placement.of(event.customer, self.number)
            if self._placement.by_key:
                self._check(record, event.customer, target)
        except RejectedEvent as error:
            return self._reject(error, topic, Origin(topic, self.number, record.offset), record, group)
        if topic not in self._observed:
            self._observe(topic, event.time)
        if target != self.number:
            return self._send_on(Origin(topic, self.number, record.offset), record, event, target, group)
        return self._apply(event, state, topic, record.offset)

    def _take_sent_on(self, topic: str, record: EventRecord, latest: Instant | None, group: Group) -> Taken | None:
        """The same for an event that came to another partition at first; it is not sent on once more."""
        origin = Origin(topic, self.number, record.offset)
        try:
            origin, observed_from = messages.read_rekeyed_headers(record.headers)
            event = self._decoder.decode(record.value, f"{origin.source}/", origin.offset, latest)
            state = self.customers.state(event.customer)
            self._check(record, event.customer, self._placement.of(event.customer, self.number))
        except RejectedEvent as error:
            return self._reject(error, topic, origin, record, group)
        self.segmenter.observed_from = max(self.segmenter.observed_from, observed_from)
        taken = self._apply(event, state, origin.source, origin.offset)
        if taken[1] == DUPLICATE:
            # Should it be sent on again, the customer may have forgotten the id by then.
            self.customers.rewrite(event.customer)
            self.customers.applied(event.customer, origin.source, origin.offset)
        return taken

    def _check(self, record: EventRecord, customer: str, target: int) -> None:
        """Raises RejectedEvent unless the key is the customer, and the customer belongs here."""
        check_key(record.key, customer.encode())
        if target != self.number:
            raise RejectedEvent("wrong_partition", f"the customer belongs to partition {target}")

    def _reject(
        self, error: RejectedEvent, topic: str, origin: Origin, record: EventRecord, group: Group
    ) -> Taken | None:
        """Has a record sent to the dead letters; None if it is one too many of this topic."""
        tally = self._tallies[topic]
        if not tally.reject(error.reason):
            self._refusal = tally.refusal(f"{topic}/{self.number}", record.offset, error.reason)
            return None
        headers = messages.dead_letter_headers(error, origin)
        group.rejects.append((*_small(record.key, record.value), headers))
        self._metrics.dead_letters.labels(error.reason).inc()
        return _REJECTED

    def _send_on(self, origin: Origin, record: EventRecord, event: Event, target: int, group: Group) -> Taken:
        """Has an event sent to where its customer belongs. Here it changes nothing, not even the clock."""
        customer = event.customer.encode()
        why = fault(record.key, customer)
        self._metrics.rekeyed.labels(origin.topic, why).inc()
        self._placement.warn(origin, why)
        headers = messages.rekeyed_headers(origin, self.segmenter.observed_from)
        group.sent_on.setdefault(target, []).append((customer, record.value, headers))
        return _class_of(event), "rekeyed"

    def _apply(self, event: Event, state: State | None, position: str, offset: int) -> Taken:
        """Applies an event of a customer of ours, unless it was already; its position is kept under that name."""
        if self.segmenter.next_deadline <= event.time and self._by_time < self.group_deadlines:
            self.segmenter.advance(event.time, self.group_deadlines - self._by_time)
        type_class = _class_of(event)
        if state is not None and offset <= state.offsets.get(position, -1):
            self.segmenter.clock = max(self.segmenter.clock, event.time)
            return type_class, "replayed"
        result = self._overtake(event)
        if result != DUPLICATE:
            self.customers.applied(event.customer, position, offset)
        return type_class, result

    def _overtake(self, event: Event) -> Result:
        """Applies an event, and notes whether a forecast that is told may have moved by it."""
        profile = self.segmenter.catch_up(event)
        if profile is None or not self._watches or self._is_stale(event.customer):
            self._note_stale(event.customer)
            return self.segmenter.overtake(event)
        told, version = self._ahead(profile), profile.version
        result = self.segmenter.overtake(event)
        if profile.version == version and self._ahead(profile) != told:
            self._note_stale(event.customer)
        return result

    def _observe(self, topic: str, at: Instant) -> None:
        """Notes since when the input was observed, when its very first record was not seen by us or before us."""
        self._observed[topic] = COMPLETE if self._settled_sources.get(topic) else at
        self.segmenter.observed_from = max(self.segmenter.observed_from, self._observed[topic])

    def _publish(self, change: Change) -> None:
        told = self._told.setdefault(change.customer, Told())
        data = messages.change_data(change)
        told.outbox.append(Sent(change.version, change.at, data))
        told.size += len(data)
        if told.size > OUTBOX_BYTES:
            self._brimming = True
        told.moves.append(Move(change.version, change.scheme, change.origin or "", change.target or "", change.at))
        if change.reason is Reason.EVENT:
            told.caused = change.at
        self._changed[change.scheme, change.origin or "", change.target or "", change.reason._value_] += 1
        if change.reason is Reason.TIME:
            self._by_time += 1
        if self._wall and change.reason is Reason.TIME:
            self._metrics.deadline_lateness.observe([max(0, self._shell.wall_clock() - change.at) / 1000])

    def _foresee(self, customer: str, profile: Profile, ahead: Mapping[int, Forecast]) -> None:
        del profile
        self._told.setdefault(customer, Told()).ahead = ahead
        self._refreshed(customer)

    async def _complete(self, group: Group) -> None:
        """Encodes the states that changed and what is told of them."""
        shadowed, self._shadowed = self._shadowed, set()
        for customer in shadowed:
            self.customers.rewrite(customer)
        told, self._told, self._by_time = self._told, {}, 0
        for customer in told:
            profile = self.customers.get(customer)
            assert profile is not None
            self._tell_view(group, customer, profile, told[customer])
        collected = self.customers.collect({customer: one.outbox for customer, one in told.items()})
        self._metrics.large_states.inc(sum(len(data) > MAX_STATE_BYTES for _, data in collected))
        group.states = [(key, data, []) for key, data in collected]
        group.changes = [
            self._change_item(customer.encode(), sent) for customer, one in told.items() for sent in one.outbox
        ]
        for labels, count in self._changed.items():
            self._metrics.changes.labels(*labels).inc(count)
        self._changed.clear()
        group.clock, group.observed_from = self.segmenter.clock, self.segmenter.observed_from
        group.sources = dict(self._sources)
        group.rejections = {topic: tally.record() for topic, tally in self._tallies.items()}
        group.unforeseen = self._unforeseen()
        group.counts = self.customers.census.counts()

    def _shown(self, unforeseen: int | None) -> Shown:
        return Shown(self._published, self._published if unforeseen is None else unforeseen)

    def _change_item(self, key: bytes, sent: Sent) -> Item:
        return key, sent.data, messages.change_headers(key, sent.version, sent.at, self._names.source)

    def _tell_view(self, group: Group, customer: str, profile: Profile, told: Told) -> None:
        entry = self._entry(customer, profile, told)
        data = messages.current_data(customer, profile, self._definitions, entry.schemes)
        assert isinstance(group.current, list)
        group.current.append((customer.encode(), data, [("content-type", b"application/json")]))
        group.pieces.append(entry)

    def _entry(self, customer: str, profile: Profile, told: Told) -> Entry:
        schemes = messages.assignment(self._definitions, profile, told.ahead)
        updated_at, writer = format_instant(profile.at), Writer(self.number, self.customers.epoch)
        return Entry(customer, profile.version, updated_at, schemes, told.moves, told.caused, writer)

    # Out

    async def _write_all(self) -> None:
        with fatal(f"partition {self.number}"):
            while (group := await self._commits.get()) is not None:
                if not await self._owned():
                    return
                if not await self._write(group):
                    return
                await self._current.look()
                self._writing -= 1
                self._work.set()
                if self._shell.monotonic() >= self._checkpoint_due:
                    await self._write_checkpoint()
            if await self._owned():
                await self._write_checkpoint()

    async def _owned(self) -> bool:
        """Waits out a rebalance; False if the partition went to another worker."""
        while not self._shell.owns(self.number):
            if self._closing:
                return False
            await asyncio.sleep(OWNERSHIP_POLL)
        return True

    async def _write(self, group: Group) -> bool:
        """Writes a group; False if the partition went to another worker amid it, who finishes what the states say."""
        if group.rejects:
            await self._send(self._names.dead_letters, group.rejects)
            if not await self._owned():
                return False
        if group.states:
            await self._append(group.states)
        elif group.current:
            await self._write_checkpoint(always=True)  # what is told is told by the owner
        if not await self._owned():  # the acknowledgement may have taken long
            return False
        await asyncio.gather(
            self._send(self._names.changes, group.changes),
            self._assign(group.current),
            *(self._send(self._rekeyed, items, partition) for partition, items in group.sent_on.items()),
        )
        if group.mended is not None:
            self._current.mended(group.mended)
        if group.states:
            self._published = self._end
        for ack in group.acks:
            await ack()
        self._settled_clock, self._settled_sources = group.clock, group.sources
        self._settled_observed_from = group.observed_from
        self._settled_rejections = group.rejections
        self._view.put(self.number, self._shown(group.unforeseen), group.pieces, group.counts, group.whole)
        await self._view.room()
        return True

    async def _assign(self, items: list[Item] | Records) -> None:
        """Appends assignments to the compacted topic."""
        if items:
            await self._current.appended(await self._send(self._names.current, items), len(items))

    async def _append(self, items: list[Item] | Records) -> None:
        """Appends to the changelog. Raises PartitionLostError if another worker had taken over before."""
        self._append_due = self._shell.monotonic() + CHECKPOINT_ANYWAY
        last = await self._send(self._changelog, items)
        expected, self._end = self._end, last + 1
        if self._end != expected + len(items):
            for key, value in await self._shell.read(self._changelog, self.number, expected, self._end):
                self._meet(key, value)

    def _meet(self, key: bytes, value: bytes | None) -> None:
        """Looks at a record of the changelog that may not be ours."""
        epoch = self.customers.epoch if value is None else _epoch_of(key, value)
        if epoch > self.customers.epoch:
            raise self._lost(epoch)
        if epoch < self.customers.epoch:
            self._metrics.stale_records.inc()
            if not key.startswith(b"\x00"):
                self._shadowed.add(key.decode())

    def _lost(self, epoch: int) -> PartitionLostError:
        return PartitionLostError(
            f"partition {self.number} was taken over by another worker (epoch {epoch}, ours is "
            f"{self.customers.epoch}): restart this one"
        )

    async def _send(self, topic: str, items: list[Item] | Records, partition: int | None = None) -> int:
        """Appends, to our partition if none is named, and waits until the broker has all; returns the last offset."""
        if not items:
            return -1
        log: Log = self._log
        return await (await log.append(topic, self.number if partition is None else partition, items))

    async def _write_checkpoint(self, *, always: bool = False) -> None:
        """Tells the changelog how far all is, if that has moved."""
        self._checkpoint_due = self._shell.monotonic() + CHECKPOINT_EVERY
        shown = self._view.written(self.number)
        checkpoint = Checkpoint(
            self._published,
            shown.assignments,
            self._settled_clock,
            self._settled_sources,
            self._settled_observed_from,
            self._definitions.hash,
            shown.forecasts,
            self.customers.epoch,
            self._view.whole(self.number),
            self._settled_rejections,
            self._placement.rule,
            self._current.right(),
        )
        if always or checkpoint != self._checkpointed or self._shell.monotonic() >= self._append_due:
            await self._append([(CHECKPOINT_KEY, records.encode_checkpoint(checkpoint), [])])
            self._checkpointed = checkpoint

    # Changelog records that come after the opening

    def apply(self, key: bytes, value: bytes | None) -> None:
        """Takes a record that was appended to our changelog, by us or by who had lost the partition."""
        self._meet(key, value)


def _epoch_of(key: bytes, value: bytes) -> int:
    if key == FENCE_KEY:
        return records.read_fence(value)
    if key == CHECKPOINT_KEY:
        return records.read_checkpoint(value).epoch
    return records.epoch_of(records.in_this_format(value))


def _class_of(event: Event) -> str:
    return event.type if event.type in NOT_ENGAGEMENT else "engagement"


def _move_of(sent: Sent, offset: int) -> Move:
    data: dict[str, Any] = messages.decode_json(sent.data)
    return Move(sent.version, data["scheme"], data["from"] or "", data["to"] or "", sent.at, offset)


def _small(key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None]:
    """A rejected record as it goes to the dead letters: whole, unless it would not fit there; then cut off."""
    key = key and key[:MAX_STATE_BYTES]
    return key, value and value[: MAX_STATE_BYTES - len(key or b"")]
