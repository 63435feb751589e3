"""What a worker of streamseg tells of itself while it works."""

from __future__ import annotations

from aiohttp import ClientError, ClientSession


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
