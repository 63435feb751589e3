"""The floor under every worker on Faust: its consumer, decoding the JSON, nothing else.

    python -m benchmarks.peers.floor KAFKA EVENTS CHANGES GROUP FOLDER COMMIT_MS

Records come in batches, as public settings of Faust allow: one at a time, Faust itself would be most of it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import faust
import uvloop
from faust.transport.drivers import aiokafka as driver
from faust.transport.utils import DefaultSchedulingStrategy
from yarl import URL

from benchmarks.peers.wire import decode
from streamseg.worker.batches import PassThrough


class Batch:
    """All records of one partition from one poll, in the shape of one record."""

    timestamp_type = checksum = headers = key = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, records: list[Any]) -> None:
        last = records[-1]
        self.topic, self.partition, self.offset, self.timestamp = (
            last.topic,
            last.partition,
            last.offset,
            last.timestamp,
        )
        self.value = records


class Batches(DefaultSchedulingStrategy):
    """Yields one batch for each partition of a poll."""

    def iterate(self, records: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
        for tp, polled in records.items():
            yield tp, Batch(polled)


class Consumer(driver.Consumer):
    """Acknowledges by watermark: Faust would keep the "gaps" inside of batches in an interval tree."""

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None: ...

    def _new_offset(self, tp: Any) -> int | None:
        acked = self._acked[tp]
        if not acked:
            return None
        last: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return last + 1


class Transport(driver.Transport):
    """Faust's transport with that consumer."""

    Consumer = Consumer


async def read(stream: Any) -> None:
    """Decode what comes."""
    async for records in stream:
        for record in records:
            decode(record.value)


def main() -> None:
    """Run until stopped."""
    kafka, events, _, group, folder, commit_ms = sys.argv[1:]
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    broker = URL(f"kafka://{kafka}")
    app = faust.App(
        group,
        broker=broker,
        store="memory://",
        datadir=folder,
        topic_partitions=4,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
        ConsumerScheduler=Batches,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4 << 20,
        broker_max_poll_records=10_000,
        broker_commit_interval=int(commit_ms) / 1000,
        broker_commit_every=1 << 62,
        loop=loop,
    )
    app.transport = Transport([broker], app)
    app.agent(app.topic(events, schema=PassThrough()))(read)
    worker = faust.Worker(app, loop=loop, loglevel="WARNING", quiet=True, redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
