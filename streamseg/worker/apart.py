"""Work that lets go of the interpreter's lock, done in threads of its own while the loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")

THREADS = 2
"""More would keep those from the cores that fetch and write."""


class Apart(Protocol):
    """Has work done somewhere."""

    async def __call__(self, work: Callable[..., T], *arguments: object) -> T:
        """Give what comes of it."""
        ...


async def here(work: Callable[..., T], *arguments: object) -> T:
    """Do work at once, and nowhere else."""
    return work(*arguments)


class Threads:
    """Does work in one of some threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "streamseg-apart")

    async def __call__(self, work: Callable[..., T], *arguments: object) -> T:
        """Give what comes of it; when this is cancelled, the work goes on to its end."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def close(self) -> None:
        """Take no more work."""
        self._pool.shutdown(wait=False)
