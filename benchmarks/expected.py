"""Where customers must end, by a replay of the same events, and whether a peer's changes say so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from benchmarks.input import Input
from benchmarks.writer import PARTITIONS

SHOWN = 3
"""Customers to name in a complaint."""


class Move(msgspec.Struct, frozen=True):
    """What is read of a change. Times are ISO texts of one form, which sort as the times do."""

    customer_id: str
    to: str
    version: int
    time: str


class _Event(msgspec.Struct):
    customer_id: str
    time: str


_decode_move = msgspec.json.Decoder(Move).decode
_decode_event = msgspec.json.Decoder(_Event).decode


@dataclass(slots=True)
class Expected:
    """Each customer's segment as of its last event.

    The peers look at a customer when an event of it comes, streamseg also when time alone moves it. So there are
    two numbers of changes up to the last events.
    """

    last: dict[str, str] = field(default_factory=dict)
    segments: dict[str, str] = field(default_factory=dict)
    moves: int = 0
    """Changes seen from event to event."""
    moves_in_time: int = 0
    """Changes, those by time alone among them."""

    def wrong(self, moves: Iterable[Move], *, in_time: bool) -> str | None:
        """What is wrong with a peer's changes; None if nothing is."""
        latest: dict[str, Move] = {}
        count = 0
        for move in moves:
            if move.time > self.last.get(move.customer_id, ""):
                continue
            count += 1
            known = latest.get(move.customer_id)
            if known is None or move.version > known.version:
                latest[move.customer_id] = move
        found = {customer: move.to for customer, move in latest.items()}
        differing = sorted(each for each in self.segments.keys() | found if self.segments.get(each) != found.get(each))
        if differing:
            shown = (f"{each} in {found.get(each)}, not {self.segments.get(each)}" for each in differing[:SHOWN])
            return f"{len(differing):,} of {len(self.segments):,} customers end elsewhere: {'; '.join(shown)}"
        wanted = self.moves_in_time if in_time else self.moves
        return None if count == wanted else f"{count:,} changes, not {wanted:,}"


def expect(made: Input, changes: Path) -> Expected:
    """What the changes of a replay demand."""
    moves: dict[str, list[Move]] = {}
    with changes.open("rb") as file:
        for line in file:
            move = _decode_move(line)
            moves.setdefault(move.customer_id, []).append(move)
    expected, taken = Expected(), dict.fromkeys(moves, 0)
    with made.path.open("rb") as file:
        for line in file:
            event = _decode_event(line)
            customer = event.customer_id
            mine, position = moves.get(customer, []), taken.get(customer, 0)
            while position < len(mine) and mine[position].time <= event.time:
                position += 1
            taken[customer] = position
            expected.last[customer] = event.time
            if position and expected.segments.get(customer) != mine[position - 1].to:
                expected.segments[customer] = mine[position - 1].to
                expected.moves += 1
    expected.moves_in_time = sum(taken.values())
    return expected


async def published(kafka: str, topic: str) -> list[Move]:
    """All changes on a topic."""
    tps = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
    moves = []
    async with AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False) as consumer:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            polled = await consumer.getmany(timeout_ms=500, max_records=20_000)
            moves += [_decode_move(record.value) for records in polled.values() for record in records]
    return moves
