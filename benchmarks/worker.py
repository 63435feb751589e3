"""A worker of streamseg: how it is started, and what it tells of itself while it works."""

from __future__ import annotations

import sys
from pathlib import Path

from aiohttp import ClientError, ClientSession


def command(definitions: Path, kafka: str, redis: str, events: str, name: str, port: int, data: Path) -> list[str]:
    """The arguments of a worker whose group and prefix have one name, on the clock of its events."""
    return [
        sys.executable, "-m", "streamseg", "worker", "--definitions", str(definitions), "--kafka", kafka, "--redis",
        redis, "--events", events, "--group", name, "--prefix", name, "--clock", "stream", "--http",
        f"127.0.0.1:{port}", "--data", str(data),
    ]  # fmt: skip


async def progress(session: ClientSession, url: str) -> tuple[int, float]:
    """Events taken so far, and assignments that wait for Redis."""
    try:
        async with session.get(url) as response:
            text = await response.text()
    except ClientError:
        return 0, 0
    values = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("streamseg_")]
    done = sum(float(value) for name, value in values if name.startswith("streamseg_events_total"))
    backlog = sum(float(value) for name, value in values if name.startswith("streamseg_redis_backlog"))
    return int(done), backlog
