"""An event loop without threads, sockets or waiting: time jumps to the next timer, and workers die between steps."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any

WORKER: ContextVar[str] = ContextVar("worker", default="")
"""Whose step it is; empty for the world around the workers."""

MOST_STEPS = 1_000_000
"""Of one story; some 8,000 are usual."""


class StuckError(AssertionError):
    """Nothing is left to do, or there is no end to it, and the story has not ended."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order asyncio promises; those of dead workers never, those of frozen ones later."""

    _ready: Any
    _scheduled: Any

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0
        self.dead: set[str] = set()
        self.frozen: dict[str, list[asyncio.Handle]] = {}
        self.after_step: Callable[[str], None] = lambda _: None
        """Called after each step of a worker."""

    def time(self) -> float:
        """Seconds since the story began."""
        return self.now

    def later(self, seconds: float, what: Callable[..., Any], *given: Any) -> None:
        """Have the world, not a worker, do something."""
        self.call_later(seconds, what, *given, context=Context())

    def within(self, worker: str, what: Callable[..., Any], *given: Any) -> None:
        """Have a worker do something, as a step of its own."""
        context = Context()
        context.run(WORKER.set, worker)
        self.call_soon(what, *given, context=context)

    def kill(self, worker: str) -> None:
        """Let a worker never do anything again."""
        self.dead.add(worker)
        self.frozen.pop(worker, None)

    def freeze(self, worker: str) -> None:
        """Hold a worker's steps back."""
        self.frozen.setdefault(worker, [])

    def thaw(self, worker: str) -> None:
        """Let it go on where it stood."""
        self._ready.extend(self.frozen.pop(worker, []))

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody has to be woken."""

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise StuckError(f"nothing is left to do at {self.now:.3f}")
            self.now = max(self.now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        for _ in range(len(ready)):
            self._step(ready.popleft())

    def _step(self, handle: Any) -> None:
        if handle._cancelled:
            return
        worker = handle._context.get(WORKER, "")
        if worker in self.dead:
            return
        if worker in self.frozen:
            self.frozen[worker].append(handle)
            return
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise StuckError(f"there is no end to it: {MOST_STEPS} steps by {self.now:.3f}")
        handle._run()
        if worker:
            self.after_step(worker)
