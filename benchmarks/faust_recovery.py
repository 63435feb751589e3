"""A plain Faust app whose table recovers from a changelog in Faust's own way; tells each second how far it is.

    python -m benchmarks.faust_recovery KAFKA EVENTS CHANGELOG PARTITIONS FOLDER

Each line is two numbers: seconds since 1970, and keys in the table.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

import faust


def main() -> None:
    """Run until killed."""
    kafka, events, changelog, partitions, folder = sys.argv[1:]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    app = faust.App(
        "plain-faust",
        broker=f"kafka://{kafka}",
        store="memory://",
        datadir=folder,
        topic_partitions=int(partitions),
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
        loop=loop,
    )
    topic = app.topic(
        changelog, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", compacting=True
    )
    table: Any = app.Table("state", key_type=bytes, value_type=bytes, partitions=int(partitions), changelog_topic=topic)

    async def read(stream: Any) -> None:
        async for _ in stream:
            pass

    app.agent(app.topic(events, value_type=bytes, value_serializer="raw"))(read)
    threading.Thread(target=_tell, args=(table,), daemon=True).start()
    worker = faust.Worker(app, loop=loop, loglevel="WARNING", quiet=True, redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()


def _tell(table: Any) -> None:
    while True:
        print(time.time(), len(table.data.data), flush=True)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
