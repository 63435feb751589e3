"""Topics, events, and counting worker processes for the tests of the shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("counting_worker.py")
PATIENCE = 60.0
NOTHING: dict[str, Any] = {
    "caught_up": {},
    "counted": {},
    "handed": {},
    "first": {},
    "late": 0,
    "batches": 0,
    "owns": {},
}


class Job:
    """Topics with names of their own, and how to look at what became of them."""

    def __init__(self, kafka: str, data_dir: Path, topics: int = 1, partitions: int = 4) -> None:
        name = uuid.uuid4().hex[:8]
        self.kafka = kafka
        self.data_dir = data_dir
        self.partitions = partitions
        self.group = f"count-{name}"
        self.topics = [f"events-{name}-{each}" for each in range(topics)]
        self.changelog = f"changelog-{name}"

    async def create(self) -> Self:
        compact = {"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000"}
        new = [NewTopic(topic, self.partitions, 1) for topic in self.topics]
        new.append(NewTopic(self.changelog, self.partitions, 1, topic_configs=compact))
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        try:
            await admin.create_topics(new)
        finally:
            await admin.close()
        return self

    async def produce(self, events: int, keys: int = 100, partitions: Sequence[int] | None = None) -> Counter[bytes]:
        """Send events to all topics in turn, each key to one partition; gives how many of each key."""
        chosen = list(range(self.partitions)) if partitions is None else partitions
        sent: Counter[bytes] = Counter()
        async with AIOKafkaProducer(bootstrap_servers=self.kafka, linger_ms=5) as producer:
            for number in range(events):
                customer = number % keys
                key, topic = b"c%d" % customer, self.topics[number // keys % len(self.topics)]
                await producer.send(topic, b"{}", key, chosen[customer % len(chosen)])
                sent[key] += 1
        return sent

    async def produce_one_by_one(self, *together: int) -> None:
        """Append so many events of partition 0 at once, one time after the other, each when the one before is there."""
        async with AIOKafkaProducer(bootstrap_servers=self.kafka) as producer:
            for events in together:
                batch = producer.create_batch()
                for _ in range(events):
                    batch.append(timestamp=None, key=b"c", value=b"{}")
                await (await producer.send_batch(batch, self.topics[0], partition=0))

    async def counted(self) -> Counter[bytes]:
        """Give the count of each key in the changelog's last record of it."""
        counts: Counter[bytes] = Counter()
        for _, key, value in await self.records(self.changelog):
            counts[key] = json.loads(value)[0]
        return counts

    async def records(self, topic: str) -> list[tuple[int, bytes, bytes]]:
        """Give all records of a topic: partition, key and value."""
        found: list[tuple[int, bytes, bytes]] = []
        async with AIOKafkaConsumer(bootstrap_servers=self.kafka) as consumer:
            tps = [TopicPartition(topic, each) for each in range(self.partitions)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            for tp in tps:
                while await consumer.position(tp) < ends[tp]:
                    polled = (await consumer.getmany(tp, timeout_ms=1000)).get(tp, [])
                    found.extend((tp.partition, record.key, record.value) for record in polled)
        return found

    async def committed(self) -> dict[tuple[str, int], int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(self.group)
        finally:
            await admin.close()
        return {tuple(tp): each.offset for tp, each in offsets.items() if tp.topic in self.topics}

    async def ends(self) -> dict[tuple[str, int], int]:
        tps = [TopicPartition(topic, each) for topic in self.topics for each in range(self.partitions)]
        async with AIOKafkaConsumer(bootstrap_servers=self.kafka) as consumer:
            return {tuple(tp): end for tp, end in (await consumer.end_offsets(tps)).items()}

    def worker(self, **options: Any) -> CountingProcess:
        return CountingProcess(
            {
                "kafka": [self.kafka],
                "topics": self.topics,
                "group": self.group,
                "changelog": self.changelog,
                "partitions": self.partitions,
                "data_dir": str(self.data_dir),
                **options,
            }
        )


class CountingProcess:
    """A counting worker in a process of its own, and what it told."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.told: list[dict[str, Any]] = []
        self.strays: list[str] = []
        self.complaints: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._readers = [
            threading.Thread(target=self._hear, daemon=True),
            threading.Thread(target=self._hear_complaints, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.told.append(json.loads(line))
            except ValueError:
                self.strays.append(line)

    def _hear_complaints(self) -> None:
        assert self.process.stderr is not None
        self.complaints.extend(self.process.stderr)

    @property
    def states(self) -> Iterator[dict[str, Any]]:
        return (each for each in list(self.told) if "caught_up" in each)

    @property
    def state(self) -> dict[str, Any]:
        return next(reversed(list(self.states)), {"caught_up": {}, "counted": {}, "first": {}, "late": 0, "owns": {}})

    @property
    def opened(self) -> list[int]:
        return [each["opened"] for each in list(self.told) if "opened" in each]

    @property
    def closed(self) -> list[int]:
        return [each["closed"] for each in list(self.told) if "closed" in each]

    @property
    def loaded(self) -> int:
        return sum(each["records"] for each in list(self.told) if "opened" in each)

    @property
    def total(self) -> int:
        return sum(self.state["counted"].values())

    def caught_up(self, partitions: int) -> bool:
        state = self.state["caught_up"]
        return len(state) == partitions and all(state.values())

    def wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = "".join(self.complaints[-40:])
                raise AssertionError(f"worker: code {self.process.poll()}, state {self.state}\n{said}")
            time.sleep(0.02)

    def wait_for_count(self, events: int) -> None:
        self.wait(lambda: self.total > events)

    def kill(self) -> None:
        self.process.kill()
        self._end()

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Stop the worker as an operator does; gives its exit code. Before it tells anything it cannot be told."""
        self.wait(lambda: bool(self.told))
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE)
        self._end()
        return code

    def _end(self) -> None:
        self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
