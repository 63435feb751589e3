"""Where a running demo is shown: a picture on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live

from streamseg.core.units import day_of
from streamseg.demo_view import DemoState, DemoView

LINE_SECONDS = 5.0


class Display(Protocol):
    """Shows one state after the other, while it is open."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, state: DemoState) -> None:
        """Show the next state; it comes a few times a second."""


class Picture:
    """The whole terminal; afterwards it is as it was."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, screen=True, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, state: DemoState) -> None:
        """Draw it."""
        self._live.update(DemoView(state), refresh=True)


class Lines:
    """A line of text every `LINE_SECONDS`, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._due = 0.0
        self._last = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is to be put back."""

    def show(self, state: DemoState) -> None:
        """Print it, if it is time and there is news."""
        line = _line(state)
        if time.monotonic() < self._due or line == self._last:
            return
        self._due, self._last = time.monotonic() + LINE_SECONDS, line
        self._console.print(line, highlight=False, soft_wrap=True)


def display_on(console: Console) -> Display:
    """Choose what suits the console."""
    return Picture(console) if console.is_terminal else Lines(console)


def _line(state: DemoState) -> str:
    return (
        f"{state.elapsed:4.0f} s  {state.progress:4.0%} fed  {day_of(state.simulated)}  {state.events:,} events  "
        f"{state.events_per_second:,.0f}/s  {state.moves_total:,} changes  {state.restarts} worker restarts"
    )
