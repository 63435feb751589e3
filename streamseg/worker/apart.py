"""Work that lets go of the interpreter's lock, done in threads of its own while the loop goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")

THREADS = 2
"""More would keep those from the cores that fetch and write."""
SWITCH_SECONDS = 0.0005
"""How long, while work is apart, a thread that has the interpreter's lock lets others wait for it: who comes back from
there, or from a fetch, needs it for next to nothing, and Python's 5 ms would keep a core idle. Where nothing is apart,
changing threads so often only makes each step later."""


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
        self._usual = sys.getswitchinterval()
        self._under_way = 0

    async def __call__(self, work: Callable[..., T], *arguments: object) -> T:
        """Give what comes of it; when this is cancelled, the work goes on to its end."""
        self._under_way += 1
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._under_way -= 1
            if not self._under_way:
                sys.setswitchinterval(self._usual)

    def close(self) -> None:
        """Take no more work."""
        self._pool.shutdown(wait=False)
