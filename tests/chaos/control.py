"""The control: stock Faust counts the events of each customer, and acknowledges as stock Faust does.

Run as a process: one JSON object as its argument. If this loses and doubles nothing, the fault does not bite.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import faust
from mode import Worker


def build(arguments: dict[str, Any]) -> faust.App:
    app = faust.App(
        arguments["group"],
        broker=f"kafka://{arguments['kafka']}",
        store="memory://",
        datadir=arguments["data"],
        topic_partitions=arguments["partitions"],
        topic_disable_leader=True,
        web_enabled=False,
        broker_session_timeout=9.0,
        broker_heartbeat_interval=2.0,
        consumer_auto_offset_reset="earliest",
    )
    events = app.topic(
        arguments["topic"], key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
    )
    counts = app.Table("counts", default=int, partitions=arguments["partitions"], key_type=bytes, value_type=int)

    async def count(stream: Any) -> None:
        async for event in stream.events():
            counts[event.key] += 1

    app.agent(events)(count)
    return app


if __name__ == "__main__":
    Worker(build(json.loads(sys.argv[1])), loglevel="ERROR").execute_from_commandline()
