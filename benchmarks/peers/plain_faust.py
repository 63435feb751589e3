"""The job in Faust as its documentation shows it: an agent, records, a table, one event at a time.

python -m benchmarks.peers.plain_faust KAFKA EVENTS CHANGES GROUP FOLDER COMMIT_MS
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import faust
import uvloop

from benchmarks.peers.rules import apply, new_profile

PARTITIONS = 4


class Event(faust.Record, serializer="json"):
    """An event of a customer."""

    id: str
    type: str
    customer_id: str
    time: str
    amount: str | None = None


def main() -> None:
    """Run until stopped."""
    kafka, events, changes, group, folder, commit_ms = sys.argv[1:]
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = faust.App(
        group,
        broker=f"kafka://{kafka}",
        store="memory://",
        datadir=folder,
        topic_partitions=PARTITIONS,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=int(commit_ms) / 1000,
        loop=loop,
    )
    source = app.topic(events, value_type=Event, key_type=str)
    sink = app.topic(changes, key_type=str, value_serializer="json", partitions=PARTITIONS)
    table: Any = app.Table("profiles", key_type=str, value_type=dict, partitions=PARTITIONS)

    async def segment(stream: Any) -> None:
        async for event in stream:
            customer = event.customer_id
            profile = table.get(customer) or new_profile()
            change = apply(profile, event.id, event.type, customer, event.time, event.amount)
            table[customer] = profile
            if change is not None:
                await sink.send(key=customer, value=change)

    app.agent(source)(segment)
    worker = faust.Worker(app, loop=loop, loglevel="WARNING", quiet=True, redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
