"""The example programs, run as a reader would: beside a real Kafka and a real Redis."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis import Redis

from streamseg.core.change import Change
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.event_json import EventDecoder
from streamseg.formats.messages import change_data, change_headers
from streamseg.replay import Replay
from tests.docs.markdown import ROOT

EXAMPLES = ROOT / "docs" / "examples"
PATIENCE = 60.0


def first_changes() -> list[Change]:
    changes: list[Change] = []
    replay = Replay(load_definitions((EXAMPLES / "first.yaml").read_bytes()), changes.append)
    replay.run((EXAMPLES / "first-events.jsonl").read_bytes().splitlines(), until=1_775_779_200_000)
    return changes


async def create(kafka: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def publish(kafka: str, topic: str, changes: Sequence[Change]) -> None:
    await create(kafka, topic)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for change in changes:
            key = change.customer.encode()
            headers = change_headers(key, change.version, change.at, b"/streamseg/segments")
            await producer.send_and_wait(topic, change_data(change), key=key, headers=headers)


async def first_record(kafka: str, topic: str) -> tuple[bytes | None, bytes | None]:
    async with AIOKafkaConsumer(bootstrap_servers=kafka) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        record = await asyncio.wait_for(consumer.getone(), PATIENCE)
        return record.key, record.value


def pass_on(stdout: IO[str], lines: queue.Queue[str]) -> None:
    for line in stdout:
        lines.put(line.rstrip("\n"))


@contextmanager
def printed(program: Path, *arguments: str) -> Iterator[queue.Queue[str]]:
    """The lines that a program prints, as they come."""
    lines: queue.Queue[str] = queue.Queue()
    process = subprocess.Popen([sys.executable, str(program), *arguments], stdout=subprocess.PIPE, text=True)
    stdout = process.stdout
    assert stdout is not None
    reader = threading.Thread(target=pass_on, args=(stdout, lines))
    reader.start()
    try:
        yield lines
    finally:
        process.kill()
        process.wait()
        reader.join()
        stdout.close()


def test_the_consumer_prints_each_change_once_though_some_were_published_again(kafka: str, topic: str) -> None:
    changes = first_changes()
    again = [*changes[:3], *changes[1:3], *changes[3:], changes[0]]
    asyncio.run(publish(kafka, topic, again))
    expected = [f"{each.customer} value: {each.origin} -> {each.target} ({each.reason})" for each in changes]

    with printed(EXAMPLES / "consume_changes.py", kafka, topic) as lines:
        found = [lines.get(timeout=PATIENCE) for _ in expected]
        asyncio.run(publish_more(kafka, topic, changes[-1]._replace(version=changes[-1].version + 1)))
        last = lines.get(timeout=PATIENCE)

    assert found == expected
    assert last == expected[-1]
    assert lines.empty()


async def publish_more(kafka: str, topic: str, change: Change) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topic, change_data(change), key=change.customer.encode())


def test_the_producer_sends_an_event_that_is_accepted_under_the_right_key(kafka: str, topic: str) -> None:
    asyncio.run(create(kafka, topic))

    subprocess.run([sys.executable, str(EXAMPLES / "send_event.py"), kafka, topic], check=True, timeout=PATIENCE)

    key, value = asyncio.run(first_record(kafka, topic))
    event = EventDecoder("EUR", 2, {}).decode(value, "", 0)
    assert (key, event.type, event.amount) == (event.customer.encode(), "purchase", 4990)


def test_the_reader_prints_a_segment_and_none_for_an_unknown_customer(redis_url: str, prefix: str) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.hset(f"{prefix}:customer:c42", "value", "champion")

    def read(customer: str) -> str:
        command = [sys.executable, str(EXAMPLES / "read_segment.py"), redis_url, customer, "value", prefix]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()

    assert (read("c42"), read("nobody")) == ("champion", "None")


def test_the_first_events_are_json_lines_in_the_order_of_time() -> None:
    events = [json.loads(line) for line in (EXAMPLES / "first-events.jsonl").read_text().splitlines()]

    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
