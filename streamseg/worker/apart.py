"""Work that needs nothing of Python, done by threads that never have its lock, while the loop goes on."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:  # the compiled core may be absent; then there is no such work
    from streamseg_engine import Threads as NativeThreads

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

THREADS = 2
"""More would keep those from the cores that fetch and write."""
SWITCH_SECONDS = 0.0005
"""How long, while work is apart, a thread that has the interpreter's lock lets others wait for it: who comes back from
a fetch needs it for next to nothing, and Python's 5 ms would keep a core idle. Where nothing is apart, changing threads
so often only makes each step later."""


class Work(Protocol[T_co]):
    """Something to be done, of the compiled core; called for what comes of it, which does it unless it is done."""

    def __call__(self) -> T_co:
        """Give what comes of it, once."""
        ...


class Apart(Protocol):
    """Has work done somewhere."""

    async def __call__(self, work: Work[T]) -> T:
        """Give what comes of it."""
        ...


async def here(work: Work[T]) -> T:
    """Do work at once, and nowhere else."""
    return work()


class Threads:
    """Has work done by one of some threads."""

    def __init__(self) -> None:
        self._threads: NativeThreads | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._usual = sys.getswitchinterval()
        self._number = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def __call__(self, work: Work[T]) -> T:
        """Give what comes of it; when this is cancelled, the work goes on to its end."""
        given: Any = work
        threads = self._threads or self._start()
        self._number += 1
        done = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        sys.setswitchinterval(SWITCH_SECONDS)
        threads.start(self._number, given)
        await done
        return work()

    def _start(self) -> NativeThreads:
        from streamseg_engine import Threads as NativeThreads

        self._threads, self._loop = NativeThreads(THREADS), asyncio.get_running_loop()
        self._loop.add_reader(self._threads.fileno(), self._take_note)
        return self._threads

    def _take_note(self) -> None:
        assert self._threads is not None
        for number in self._threads.finished():
            done = self._waiting.pop(number)
            if not done.done():
                done.set_result(None)
        if not self._waiting:
            sys.setswitchinterval(self._usual)

    def close(self) -> None:
        """Take no more work."""
        if self._threads is not None and self._loop is not None:
            self._loop.remove_reader(self._threads.fileno())
            self._threads.close()
