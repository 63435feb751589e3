"""Rejected events as they stand on their topic: listed, explained, and sent again."""

from __future__ import annotations

import asyncio
import heapq
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamseg.core.errors import InputError, TryAgainError
from streamseg.core.units import Duration, Instant, format_instant
from streamseg.formats.messages import decode_json, encode_json
from streamseg.formats.rejection import REASONS
from streamseg.formats.state import MAX_STATE_BYTES
from streamseg.tail import PipedConsole, away, connected, partitions_of, printable, until_nobody_reads

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

SHOWN = 20
"""Listed without --max."""
SHOWN_VALUE = 120
"""Characters of a value in a line."""
POLL_MS = 500
IN_FLIGHT = 500
"""Events sent at once, at most."""
LARGEST_BYTES = 4 << 20
RESUBMITTED = "resubmitted"
"""The header of an event that was sent again: where it had stood, `topic/partition/offset`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which dead letters."""

    reasons: frozenset[str] = frozenset()
    """Empty: of all reasons."""
    since: Duration | None = None
    """Written within so many milliseconds; None: all that are there."""
    max: int | None = None
    """The latest ones, so many."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A rejected event, why it was rejected, and where it had stood."""

    place: tuple[int, int]
    """Its own partition and offset."""
    written: Instant
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None

    @property
    def origin(self) -> str:
        """Where the event had stood."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def order(self) -> tuple[Instant, tuple[int, int]]:
        """In which order letters are listed."""
        return self.written, self.place

    @property
    def whole(self) -> bool:
        """Whether it holds all of the event's bytes, and there are any."""
        return 0 < len(self.key or b"") + len(self.value or b"") < MAX_STATE_BYTES

    @property
    def named(self) -> bool:
        """Whether the event has an id of its own, as far as it can be read."""
        try:
            event = decode_json(self.value or b"null")
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return True
        return not isinstance(event, dict) or event.get("id") is not None


@dataclass(slots=True)
class Survey:
    """What was found."""

    reasons: Counter[str] = field(default_factory=Counter)
    topics: Counter[str] = field(default_factory=Counter)
    """Those that can be sent again, by the topic they came from."""
    broken: int = 0
    """Without all of their bytes, so that they cannot be sent again."""
    nameless: int = 0
    """Those that can be sent again and have no id."""
    latest: list[Letter] = field(default_factory=list)
    """In the order of their writing."""

    def take(self, letter: Letter) -> None:
        """Counts one."""
        self.reasons[letter.reason] += 1
        if letter.whole:
            self.topics[letter.topic] += 1
            self.nameless += not letter.named
        else:
            self.broken += 1


def read_letter(record: ConsumerRecord) -> Letter | None:
    """The dead letter in a record; None if it is none of ours."""
    told = {name: content.decode("utf-8", "replace") for name, content in record.headers}
    try:
        return Letter(
            (record.partition, record.offset), record.timestamp, told["reason"], told["detail"], told["topic"],
            int(told["partition"]), int(told["offset"]), record.key, record.value,
        )  # fmt: skip
    except (KeyError, ValueError):
        return None


# Listing


def show(kafka: Sequence[str], topic: str, wanted: Wanted) -> None:
    """Prints the latest dead letters, one line each, and a summary by reason of all.

    Raises InputError when there is no such topic, TryAgainError when no broker answers.
    """
    shown = wanted.max or SHOWN
    console = PipedConsole(highlight=False)
    with until_nobody_reads():
        survey = asyncio.run(_survey(kafka, topic, wanted, shown))
        for letter in survey.latest:
            console.print(letter_line(letter), soft_wrap=True)
        if survey.reasons:
            console.print()
        console.print(_headline(survey, topic), soft_wrap=True)
        if survey.reasons:
            console.print(summary(survey.reasons))
        sys.stdout.flush()


def write_json(kafka: Sequence[str], topic: str, wanted: Wanted) -> None:
    """Writes dead letters to standard output as JSON lines. Raises as `show`."""
    with until_nobody_reads():
        asyncio.run(_write_json(kafka, topic, wanted))


async def _write_json(kafka: Sequence[str], topic: str, wanted: Wanted) -> None:
    async with connected(kafka, enable_auto_commit=False) as consumer:
        bounds = await _bounds(consumer, kafka, topic, wanted.since)
        async for letter in _chosen(consumer, bounds, wanted):
            sys.stdout.buffer.write(encode_json(letter_data(letter)) + b"\n")
        sys.stdout.flush()


def letter_line(letter: Letter) -> Text:
    """A dead letter for people: when, why, where it had stood, what is wrong, and how it begins."""
    value = "no value" if letter.value is None else letter.value[: 4 * SHOWN_VALUE].decode("utf-8", "replace")
    begins = value[:SHOWN_VALUE] + "…" * (len(value) > SHOWN_VALUE)
    return Text.assemble(
        (format_instant(letter.written), "dim"), "  ", (printable(letter.reason), "bold red"), "  ",
        printable(letter.origin), "  ", printable(letter.detail), "  ", (printable(begins), "dim"),
    )  # fmt: skip


def letter_data(letter: Letter) -> dict[str, Any]:
    """A dead letter for programs; bytes that are not UTF-8 stand in `key_base64` and `value_base64`."""
    data: dict[str, Any] = {"time": format_instant(letter.written)}
    data |= {name: getattr(letter, name) for name in ("reason", "detail", "topic", "partition", "offset")}
    for name, content in (("key", letter.key), ("value", letter.value)):
        try:
            data[name] = None if content is None else content.decode()
        except UnicodeDecodeError:
            data[f"{name}_base64"] = b64encode(content or b"").decode()
    return data


def _headline(survey: Survey, topic: str) -> str:
    count = survey.reasons.total()
    if not count:
        return f"no dead letters in {topic}"
    cut = f", the latest {len(survey.latest):,} are shown" if len(survey.latest) < count else ""
    return f"{count:,} dead letter{'s' * (count != 1)} in {topic}{cut}"


def summary(reasons: Counter[str]) -> Table:
    """How many of each reason, what it means, and how to mend it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right")
    table.add_column(style="bold red", no_wrap=True)
    table.add_column()
    for reason, count in reasons.most_common():
        known = REASONS.get(reason)
        text = "of another version of streamseg" if known is None else f"{known.what}: {known.mend}"
        table.add_row(f"{count:,}", Text(printable(reason)), Text(text))
    return table


# Reading


class _Latest:
    """The latest letters, so many at most."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[tuple[Instant, tuple[int, int]], Letter]] = []

    def take(self, letter: Letter) -> None:
        heapq.heappush(self._heap, (letter.order, letter))
        if len(self._heap) > self._most:
            heapq.heappop(self._heap)

    def in_order(self) -> list[Letter]:
        return [letter for _, letter in sorted(self._heap, key=lambda each: each[0])]


Bounds = Mapping["TopicPartition", tuple[int, int]]
"""From which offset to which (excluding) each partition is read."""


async def _survey(kafka: Sequence[str], topic: str, wanted: Wanted, shown: int) -> Survey:
    survey, latest = Survey(), _Latest(shown)
    async with connected(kafka, enable_auto_commit=False) as consumer:
        async for letter in _letters(consumer, await _bounds(consumer, kafka, topic, wanted.since), wanted):
            survey.take(letter)
            latest.take(letter)
    survey.latest = latest.in_order()
    return survey


async def _chosen(consumer: AIOKafkaConsumer, bounds: Bounds, wanted: Wanted) -> AsyncIterator[Letter]:
    """The dead letters that are wanted; only the latest ones if a number is given."""
    latest = None if wanted.max is None else _Latest(wanted.max)
    async for letter in _letters(consumer, bounds, wanted):
        if latest is None:
            yield letter
        else:
            latest.take(letter)
    for letter in latest.in_order() if latest is not None else ():
        yield letter


async def _bounds(consumer: AIOKafkaConsumer, kafka: Sequence[str], topic: str, since: Duration | None) -> Bounds:
    """What there is now."""
    from aiokafka import TopicPartition

    partitions = await partitions_of(kafka, topic, "correct --prefix, or start a worker")
    tps = [TopicPartition(topic, each) for each in partitions]
    starts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    if since is not None:
        found = await consumer.offsets_for_times(dict.fromkeys(tps, max(0, int(time.time() * 1000) - since)))
        starts = {tp: found[tp].offset if found.get(tp) else ends[tp] for tp in tps}
    return {tp: (starts[tp], ends[tp]) for tp in tps}


async def _letters(consumer: AIOKafkaConsumer, bounds: Bounds, wanted: Wanted) -> AsyncIterator[Letter]:
    """The dead letters of some reasons, each once; those of a partition in order."""
    seen: set[int] = set()  # a worker that was killed may have written some of them twice
    consumer.assign(list(bounds))
    for tp, (start, _) in bounds.items():
        consumer.seek(tp, start)
    left = [tp for tp, (start, end) in bounds.items() if start < end]
    while left:
        for tp, records in (await consumer.getmany(*left, timeout_ms=POLL_MS)).items():
            for record in records:
                letter = read_letter(record) if record.offset < bounds[tp][1] else None
                if letter is None or (wanted.reasons and letter.reason not in wanted.reasons):
                    continue
                identity = hash((letter.origin, letter.key, letter.value))
                if identity not in seen:
                    seen.add(identity)
                    yield letter
        left = [tp for tp in left if await consumer.position(tp) < bounds[tp][1]]


# Sending again


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be sent, and where to."""

    survey: Survey
    bounds: Bounds
    """What was looked at: what has come since then is not sent."""
    target: str | None
    """None: each event to the topic it came from."""

    @property
    def events(self) -> int:
        """How many events would be sent."""
        return self.survey.topics.total()

    @property
    def targets(self) -> Counter[str]:
        """How many events would be sent to each topic."""
        return self.survey.topics if self.target is None else Counter({self.target: self.events})

    def lines(self) -> list[str]:
        """What whoever decides has to know, a line each."""
        survey = self.survey
        inherent = {reason: count for reason, count in survey.reasons.items() if _is_inherent(reason)}
        lines = [f"{count:,} to {target}" for target, count in sorted(self.targets.items())]
        lines.append("an event that was accepted meanwhile under the same id is dropped as a duplicate")
        if survey.nameless:
            lines.append(f"{survey.nameless:,} have no id: each time they are sent they count as new events")
        if inherent and self.target is None:
            listed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(inherent.items()))
            lines.append(f"what is wrong lies in the events themselves, so these will be rejected again: {listed}")
        if survey.broken:
            lines.append(f"{survey.broken:,} are left out: their bytes were cut off, or there are none")
        return lines


def _is_inherent(reason: str) -> bool:
    known = REASONS.get(reason)
    return known is not None and known.inherent


def resubmit(
    kafka: Sequence[str], topic: str, wanted: Wanted, target: str | None, agreed: Callable[[str], bool]
) -> None:
    """Sends rejected events again, with their keys and bytes, to where they came from or to another topic.

    `agreed` is asked before anything is sent. Raises InputError when there is no such topic or an event is too large
    for it, TryAgainError when no broker answers or one stops to.
    """
    console = Console(highlight=False)
    plan = asyncio.run(_plan(kafka, topic, wanted, target))
    if not plan.events:
        console.print(f"nothing in {topic} to send again", soft_wrap=True)
        return
    for line in plan.lines():
        console.print(line, soft_wrap=True)
    if agreed(f"Send {plan.events:,} event{'s' * (plan.events != 1)} again?"):
        sent = asyncio.run(_resubmit(kafka, wanted, plan))
        console.print(f"{sent:,} sent again", soft_wrap=True)


async def _plan(kafka: Sequence[str], topic: str, wanted: Wanted, target: str | None) -> Plan:
    survey = Survey()
    async with connected(kafka, enable_auto_commit=False) as consumer:
        bounds = await _bounds(consumer, kafka, topic, wanted.since)
        async for letter in _chosen(consumer, bounds, wanted):
            survey.take(letter)
    return Plan(survey, bounds, target)


async def _resubmit(kafka: Sequence[str], wanted: Wanted, plan: Plan) -> int:
    from aiokafka import AIOKafkaProducer
    from aiokafka.errors import KafkaError, MessageSizeTooLargeError

    partitions = {name: await partitions_of(kafka, name, "give --to TOPIC") for name in plan.targets}
    sent = 0
    settings = {"enable_idempotence": True, "max_request_size": LARGEST_BYTES, "linger_ms": 20}
    try:
        async with (
            connected(kafka, enable_auto_commit=False) as consumer,
            AIOKafkaProducer(bootstrap_servers=list(kafka), **settings) as producer,
        ):
            waiting = []
            async for letter in _chosen(consumer, plan.bounds, wanted):
                name = plan.target or letter.topic
                if letter.whole:
                    waiting.append(await _send(producer, letter, name, partitions[name]))
                if len(waiting) == IN_FLIGHT:
                    sent += len(await asyncio.gather(*waiting))
                    waiting.clear()
            sent += len(await asyncio.gather(*waiting))
    except MessageSizeTooLargeError as error:
        raise InputError(
            f"after {sent:,} events one is too large for its topic: raise its max.message.bytes"
        ) from error
    except KafkaError as error:
        raise TryAgainError(f"after {sent:,} events: {error}. {away(kafka)}, and call this again") from error
    return sent


async def _send(producer: AIOKafkaProducer, letter: Letter, topic: str, partitions: Sequence[int]) -> Any:
    """Queues an event, for the partition that it came from if there is one: there its customer's state is."""
    partition = letter.partition if letter.partition in partitions else None
    headers = [(RESUBMITTED, letter.origin.encode())]
    return await producer.send(topic, letter.value, letter.key, partition, headers=headers)
