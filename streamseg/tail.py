"""Changes as they happen, one readable line each."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.text import Text

from streamseg.core.errors import InputError, TryAgainError
from streamseg.formats.messages import decode_json, encode_json

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

POLL_MS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which changes to show."""

    from_beginning: bool = False
    scheme: str | None = None
    customer: str | None = None
    max: int | None = None
    """Stop after so many."""

    def takes(self, change: dict[str, Any]) -> bool:
        """Whether to show this one."""
        return self.scheme in (None, change.get("scheme")) and self.customer in (None, change.get("customer_id"))


def tail(kafka: Sequence[str], topic: str, wanted: Wanted, *, json: bool) -> None:
    """Writes changes to standard output until Ctrl-C, until nobody reads them any more, or until there are enough.

    Raises InputError when there is no such topic, TryAgainError when no broker answers.
    """
    write = _json_writer() if json else _line_writer()
    with until_nobody_reads():
        asyncio.run(_follow(list(kafka), topic, wanted, write))


@contextmanager
def until_nobody_reads() -> Iterator[None]:
    """Ends the block quietly at Ctrl-C, or when nobody reads what it writes any more."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # as in `streamseg tail | head`: also when Python flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _json_writer() -> Callable[[dict[str, Any]], None]:
    output = sys.stdout.buffer

    def write(change: dict[str, Any]) -> None:
        output.write(encode_json(change) + b"\n")
        output.flush()

    return write


class PipedConsole(Console):
    """Leaves it to the caller what happens when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError."""
        raise BrokenPipeError


def _line_writer() -> Callable[[dict[str, Any]], None]:
    console = PipedConsole(highlight=False)

    def write(change: dict[str, Any]) -> None:
        console.print(change_line(change), soft_wrap=True)
        sys.stdout.flush()

    return write


async def _follow(kafka: list[str], topic: str, wanted: Wanted, write: Callable[[dict[str, Any]], None]) -> None:
    shown = 0
    partitions = await partitions_of(kafka, topic, "correct --prefix, or start a worker")
    async with connected(kafka, auto_offset_reset="earliest", enable_auto_commit=False) as consumer:
        await _place(consumer, topic, partitions, from_beginning=wanted.from_beginning)
        while wanted.max is None or shown < wanted.max:
            for change in await _poll(consumer):
                if wanted.takes(change):
                    write(change)
                    shown += 1
                    if shown == wanted.max:
                        break


async def _place(consumer: AIOKafkaConsumer, topic: str, partitions: list[int], *, from_beginning: bool) -> None:
    from aiokafka import TopicPartition

    tps = [TopicPartition(topic, each) for each in partitions]
    consumer.assign(tps)
    if from_beginning:
        await consumer.seek_to_beginning(*tps)
    else:
        await consumer.seek_to_end(*tps)
        for tp in tps:
            await consumer.position(tp)  # from here on, whatever is written is seen
    print(f"following {topic}, {len(tps)} partitions; Ctrl-C ends", file=sys.stderr, flush=True)


async def _poll(consumer: AIOKafkaConsumer) -> list[dict[str, Any]]:
    """The next changes; of one partition in order, of several by time as far as they came together."""
    polled = await consumer.getmany(timeout_ms=POLL_MS, max_records=1_000)
    changes = [change for records in polled.values() for record in records if (change := _change(record.value))]
    return sorted(changes, key=lambda change: str(change.get("time")))


def _change(value: bytes | None) -> dict[str, Any] | None:
    try:
        change = decode_json(value or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return change if isinstance(change, dict) else None


@asynccontextmanager
async def connected(kafka: Sequence[str], **settings: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer outside of any group. Raises TryAgainError when no broker answers."""
    from aiokafka import AIOKafkaConsumer
    from aiokafka.errors import KafkaConnectionError

    consumer = AIOKafkaConsumer(bootstrap_servers=list(kafka), **settings)
    try:
        await consumer.start()
        yield consumer
    except KafkaConnectionError as error:
        raise away(kafka) from error
    finally:
        await consumer.stop()


async def partitions_of(kafka: Sequence[str], topic: str, hint: str) -> list[int]:
    """The partitions of a topic. Raises InputError when there is no such topic."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaConnectionError

    admin = AIOKafkaAdminClient(bootstrap_servers=list(kafka))
    try:
        await admin.start()
        [described] = await admin.describe_topics([topic])
    except KafkaConnectionError as error:
        raise away(kafka) from error
    finally:
        await admin.close()
    if described["error_code"]:
        raise InputError(f"topic {topic} does not exist: {hint}")
    return sorted(each["partition"] for each in described["partitions"])


def away(kafka: Sequence[str]) -> TryAgainError:
    """What to say when no broker answers."""
    return TryAgainError(f"no Kafka answers at {','.join(kafka)}: start it, or correct --kafka")


def printable(text: str) -> str:
    """A text without characters that could steer a terminal."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


_REASON_STYLES = {"event": "green", "time": "yellow", "erase": "red"}


def change_line(change: dict[str, Any]) -> Text:
    """A change for people: time, customer, scheme, from → to, reason and cause, and the values that decided."""
    words = {name: printable(str(change.get(name))) for name in ("time", "customer_id", "scheme", "reason")}
    origin, target, cause = (
        printable(str(each)) if (each := change.get(name)) is not None else None for name in ("from", "to", "cause")
    )
    why = words["reason"] if cause is None else f"{words['reason']} {cause}"
    values = change.get("values")
    decided = values.items() if isinstance(values, dict) else ()
    return Text.assemble(
        (words["time"], "dim"), "  ", (words["customer_id"], "bold"), f"  {words['scheme']}: ",
        origin or "–", " → ", (target or "gone", "bold cyan"), "  ",
        (why, _REASON_STYLES.get(words["reason"], "magenta")), "  ",
        (" ".join(f"{printable(str(name))}={_value(value)}" for name, value in decided), "dim"),
    )  # fmt: skip


def _value(value: Any) -> str:
    return printable(value if isinstance(value, str) else encode_json(value).decode())
