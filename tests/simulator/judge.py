"""What must be true when all is quiet, whoever died: found by reading the logs and Redis, asking no worker."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from streamseg.core.assignment import forecast
from streamseg.core.definitions import Definitions
from streamseg.core.profile import Profile
from streamseg.core.units import Instant, day_of, parse_instant
from streamseg.formats import messages
from streamseg.formats import state as records
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY
from streamseg.worker.loading import Loaded
from streamseg.worker.settings import Clock, Keys
from streamseg.worker.states import States
from tests.simulator.broker import Broker, Record
from tests.simulator.demands import Demanded, Demands, Form, Sent, origin_of, read
from tests.simulator.redis import SimulatedRedis
from tests.simulator.worker import CHANGELOG, EVENTS, NAMES, PARTITIONS, REKEYED

NEVER = float("inf")


class WrongError(AssertionError):
    """Something that must be true is not."""


def _form(record: Record) -> Form:
    return record.key, record.value, tuple(record.headers)


@dataclass(slots=True)
class Kept:
    """A state that counts, as it stands in the changelog."""

    arrival: int
    offsets: dict[str, int]
    worth: int
    profile: Profile
    outbox: list[Form]


class Judge:
    """Raises WrongError for the first thing that is not true."""

    def __init__(
        self, definitions: Definitions, broker: Broker, redis: SimulatedRedis, keys: Keys, clock: Clock, now: Instant
    ) -> None:
        self._definitions, self._broker, self._redis, self._now = definitions, broker, redis, now
        self._logs = broker.logs
        self._demands = Demands(definitions, broker.logs, keys, clock)
        self._streamed = clock is Clock.STREAM
        self._moves: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._customers: dict[str, dict[str, Any]] = {}
        """Each customer's last assignment, as published."""

    def judge(self) -> None:
        """Look at everything."""
        for number in range(PARTITIONS):
            demanded = self._demands.of(number)
            said = self._said(number)
            states = self._states(number)
            if self._demands.determined:
                self._judge_changes(said, demanded)
            self._judge_letters(number, demanded)
            self._judge_sent_on(number, demanded)
            self._judge_states(states, said, demanded)
            self._judge_assignments(number, said, states, demanded)
            self._judge_commits(number, states, demanded)
            self._judge_arrivals(number, states)
            self._judge_compaction(number)
        self._judge_redis()

    # What was said

    def _said(self, number: int) -> dict[bytes, Form]:
        """The changes by id, as a reader sees them who keeps the highest version of each customer."""
        said: dict[bytes, Form] = {}
        last: dict[str, dict[str, Any]] = {}
        standing: dict[tuple[str, str], str | None] = {}
        for record in self._logs[NAMES.changes, number]:
            name = dict(record.headers)["ce_id"]
            if name in said:
                if said[name] != _form(record):
                    raise WrongError(f"{name!r} has two forms: {said[name]} and {_form(record)}")
                continue
            change = json.loads(record.value or b"")
            customer, version = change["customer_id"], change["version"]
            if version != last.get(customer, {"version": 0})["version"] + 1:
                raise WrongError(f"{name!r} came after version {last.get(customer, {}).get('version', 0)}")
            scheme = customer, change["scheme"]
            if change["from"] != standing.get(scheme):
                raise WrongError(f"{name!r} leads from {change['from']}, but {scheme} was {standing.get(scheme)}")
            standing[scheme] = change["to"]
            last[customer] = change
            said[name] = _form(record)
            if change["from"] is not None:
                at = parse_instant(change["time"])
                self._moves[f"{change['scheme']}:{day_of(at)}"][f"{change['from']}>{change['to']}"] += 1
        return said

    def _judge_changes(self, said: dict[bytes, Form], demanded: Demanded) -> None:
        for name, form in demanded.changes.items():
            if name not in said:
                raise WrongError(f"lost: {form}")
            if said[name] != form:
                raise WrongError(f"said {said[name]}, should be {form}")
        if unasked := said.keys() - demanded.changes.keys():
            raise WrongError(f"nobody asked for {sorted(unasked)}")

    def _judge_letters(self, number: int, demanded: Demanded) -> None:
        letters: set[int] = set()
        for record in self._logs[NAMES.dead_letters, number]:
            offset = origin_of(record)
            letters.add(offset)
            event = demanded.rejected.get(offset) or demanded.doubtful.get(offset)
            if event is None or (event.record.key, event.record.value) != (record.key, record.value):
                raise WrongError(f"a dead letter that should not be: {record}")
        if missing := demanded.rejected.keys() - letters:
            raise WrongError(f"no dead letters of the events at {sorted(missing)} of partition {number}")

    def _judge_sent_on(self, number: int, demanded: Demanded) -> None:
        """What was sent on is what had to be, and went first in the order in which it had come."""
        copies = self._copies(number)
        due = {offset for offset, event in demanded.doubtful.items() if event.misplaced}
        if missing := demanded.sent_on.keys() - copies.keys():
            raise WrongError(f"not sent on: the events at {sorted(missing)} of partition {number}")
        if unasked := copies.keys() - demanded.sent_on.keys() - due:
            raise WrongError(f"sent on, though they should not be: {sorted(unasked)} of partition {number}")
        asked = demanded.sent_on | demanded.doubtful
        for (before, arrival), (offset, first) in combinations(sorted(copies.items()), 2):
            overtaken = first < arrival and asked[before].target == asked[offset].target
            if overtaken and not self._rejected_before(demanded.doubtful.get(before), first):
                raise WrongError(f"of partition {number}, {before} was sent on behind {offset}")

    def _rejected_before(self, event: Sent | None, arrival: int) -> bool:
        return event is not None and any(each.arrival < arrival for each in self._demands.letters(event))

    def _copies(self, number: int) -> dict[int, int]:
        """When each event of a partition was sent on for the first time, by offset."""
        found: dict[int, int] = {}
        for target in range(PARTITIONS):
            for record in self._logs[REKEYED, target]:
                origin, _ = messages.read_rekeyed_headers(record.headers)
                if origin.partition != number:
                    continue
                event = read(self._logs[origin.topic, origin.partition][origin.offset])
                if (record.key, record.value, target) != (
                    (event.customer or "").encode(), event.record.value, event.target,
                ):  # fmt: skip
                    raise WrongError(f"{record} was sent on in place of {event.record}")
                found[origin.offset] = min(record.arrival, found.get(origin.offset, record.arrival))
        return found

    def _judge_states(self, states: dict[str, list[Kept]], said: dict[bytes, Form], demanded: Demanded) -> None:
        """Every event has moved its customer's state once, and whatever a state told was published."""
        for customer, kept in states.items():
            least, most = demanded.worths.get(customer, (-1, -1))
            if not least <= kept[-1].worth <= most:
                raise WrongError(f"{customer} is worth {kept[-1].worth}, should be {least} to {most}")
            for form in (form for each in kept for form in each.outbox):
                if said.get(dict(form[2])["ce_id"]) != form:
                    raise WrongError(f"the state of {customer} tells {form}, but it was not published like that")
        if missing := [
            customer for customer, (least, _) in demanded.worths.items() if least and customer not in states
        ]:
            raise WrongError(f"no state of {missing}")

    def _judge_assignments(
        self, number: int, said: dict[bytes, Form], states: dict[str, list[Kept]], demanded: Demanded
    ) -> None:
        """The last record of each customer on the compacted topic shows what the changes led to."""
        current = self._current(number)
        led: defaultdict[str, dict[str, str]] = defaultdict(dict)
        versions: Counter[str] = Counter()
        for _, value, _ in said.values():
            change = json.loads(value or b"")
            led[change["customer_id"]][change["scheme"]] = change["to"]
            versions[change["customer_id"]] += 1
        if not led.keys() == current.keys() == states.keys():
            raise WrongError(
                f"segment-current has {sorted(current)}, there are changes of {sorted(led)}, states of {sorted(states)}"
            )
        for customer, schemes in led.items():
            shown, version = current[customer], states[customer][-1].profile.version
            told = {scheme: each["segment"] for scheme, each in shown["schemes"].items()}
            if told != schemes or not shown["version"] == versions[customer] == version:
                raise WrongError(
                    f"changes of {customer} lead to {schemes}, version {versions[customer]}, not {shown}, and the "
                    f"state has version {version}"
                )
        self._customers |= current
        if self._demands.determined:
            self._judge_forecasts(current, demanded.replay.profiles)
        elif self._streamed:
            self._judge_forecasts(current, {customer: kept[-1].profile for customer, kept in states.items()})
        else:
            self._judge_time(current)

    def _current(self, number: int) -> dict[str, dict[str, Any]]:
        """The last assignment of each customer; none is followed by an older one, but by what came late."""
        current: dict[str, dict[str, Any]] = {}
        for record in self._logs[NAMES.current, number]:
            shown = json.loads(record.value or b"")
            before = current.get(shown["customer_id"])
            slipped = (record[:2], record.offset) in self._broker.slipped
            if before is not None and before["version"] > shown["version"] and not slipped:
                raise WrongError(f"segment-current goes back from {before} to {shown}")
            current[shown["customer_id"]] = shown
        return current

    def _judge_forecasts(self, current: dict[str, Any], profiles: dict[str, Profile]) -> None:
        schemes = range(len(self._definitions.schemes))
        for customer, profile in profiles.items():
            ahead = forecast(self._definitions, profile, profile.at, schemes)
            right = messages.assignment(self._definitions, profile, ahead)
            if current[customer]["schemes"] != right:
                raise WrongError(f"segment-current shows {current[customer]}, should be {right}")

    def _judge_time(self, current: dict[str, Any]) -> None:
        """By the wall clock nobody knows when events are met; but it was quiet for so long that all are away."""
        for customer, shown in current.items():
            if shown["schemes"]["seen"]["segment"] != "away":
                raise WrongError(f"{customer} is {shown} at {self._now}, should be away")

    # What was promised on the way

    def _judge_commits(self, number: int, states: dict[str, list[Kept]], demanded: Demanded) -> None:
        """Whatever lies before a committed offset was done at that moment: safe, published, rejected or sent on."""
        letters = _first((origin_of(each), each.arrival) for each in self._logs[NAMES.dead_letters, number])
        changes = self._first_changes(number)
        copies = self._copies(number)
        done: dict[int, float] = {offset: letters[offset] for offset in demanded.rejected}
        done |= {offset: copies[offset] for offset in demanded.sent_on}
        done |= {at: max(done.get(at, -1), changes[name]) for name, at in demanded.due.items()}
        for offset, event in demanded.applied.items():
            moment = _safe(states[event.customer or ""], EVENTS, offset, changes)
            done[offset] = max(done.get(offset, -1), moment)
        for offset, event in demanded.doubtful.items():
            taken = copies.get(offset, NEVER)
            if not event.misplaced:
                taken = _safe(states.get(event.customer or "", []), EVENTS, offset, changes)
            if event.misplaced or not self._demands.repeated(event):
                done[offset] = min(letters.get(offset, NEVER), taken)
        self._judge_done(EVENTS, number, done)

    def _judge_arrivals(self, number: int, states: dict[str, list[Kept]]) -> None:
        """The same for what was sent on to a partition: that it was a duplicate is remembered as well."""
        changes = self._first_changes(number)
        done: dict[int, float] = {}
        for record in self._logs[REKEYED, number]:
            origin, _ = messages.read_rekeyed_headers(record.headers)
            customer = (record.key or b"").decode()
            done[record.offset] = _safe(states.get(customer, []), origin.source, origin.offset, changes)
        self._judge_done(REKEYED, number, done)

    def _judge_done(self, topic: str, number: int, done: dict[int, float]) -> None:
        for moment, place, end in self._broker.commits:
            late = (
                [each for each, at in done.items() if each < end and at >= moment] if place == (topic, number) else []
            )
            if late:
                raise WrongError(f"offset {end} of {topic}/{number} was committed, but not done yet: {sorted(late)}")

    def _first_changes(self, number: int) -> dict[bytes, int]:
        return _first((dict(each.headers)["ce_id"], each.arrival) for each in self._logs[NAMES.changes, number])

    def _states(self, number: int) -> dict[str, list[Kept]]:
        """Each customer's states, as far as they count."""
        found: defaultdict[str, list[Kept]] = defaultdict(list)
        epoch = 0
        for record in self._logs[CHANGELOG, number]:
            key, value = record.key or b"", record.value or b""
            if key == FENCE_KEY:
                epoch = max(epoch, records.read_fence(value))
            elif key != CHECKPOINT_KEY and records.epoch_of(value) >= epoch:
                state = records.decode_state(value, self._definitions.layout)
                kept = Kept(record.arrival, state.offsets, state.worth, state.profile, list(_outbox(key, value)))
                found[key.decode()].append(kept)
        return dict(found)

    def _judge_compaction(self, number: int) -> None:
        """What compaction leaves of the changelog loads to the same states."""
        if lost := lost_by_compaction(self._logs[CHANGELOG, number]):
            raise WrongError(f"compaction loses the states of {lost}")

    # Redis

    def _judge_redis(self) -> None:
        data = self._redis.data
        if data.hashes.keys() != self._customers.keys():
            raise WrongError(f"Redis knows {sorted(data.hashes)}, there are {sorted(self._customers)}")
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for customer, shown in self._customers.items():
            wanted = {"version": str(shown["version"])}
            for scheme, each in shown["schemes"].items():
                counts[scheme][each["segment"]] += 1
                wanted[scheme] = each["segment"]
                wanted |= {f"{scheme}.{name}": told for name, told in each.items() if name != "segment" and told}
            found = {name: told for name, told in data.hashes[customer].items() if name != "updated_at"}
            if found != wanted:
                raise WrongError(f"Redis has {found} of {customer}, should be {wanted}")
        self._compare("counts", data.counts, counts)
        if not self._redis.lost:
            self._compare("moves", data.moves, self._moves)

    @staticmethod
    def _compare(what: str, found: Any, wanted: Any) -> None:
        told = {name: {key: count for key, count in each.items() if count} for name, each in found.items()}
        if told != {name: dict(each) for name, each in wanted.items()}:
            raise WrongError(f"Redis has {what} {told}, should be {wanted}")


def lost_by_compaction(log: list[Record]) -> list[bytes]:
    """Customers whose state is another one if only the last record of each key is left."""
    last = {record.key: record.offset for record in log}
    whole = _loaded(log)
    left = _loaded([record for record in log if last[record.key] == record.offset])
    return sorted(each for each in {*whole, *left} if whole.get(each) != left.get(each))


def _loaded(log: list[Record]) -> States:
    loader = Loaded()
    loader.take(log)
    return loader.states


def _first(arrivals: Any) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for name, arrival in arrivals:
        found.setdefault(name, arrival)
    return found


def _safe(kept: list[Kept], position: str, offset: int, changes: dict[bytes, int]) -> float:
    """When an event was in a state, and what that told was published."""
    for state in kept:
        if state.offsets.get(position, -1) >= offset:
            return max([state.arrival, *(changes[dict(form[2])["ce_id"]] for form in state.outbox)])
    return NEVER


def _outbox(key: bytes, value: bytes) -> Iterator[Form]:
    for sent in records.read_outbox(value):
        yield key, sent.data, tuple(messages.change_headers(key, sent.version, sent.at, NAMES.source))
