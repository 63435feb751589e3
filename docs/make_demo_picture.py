"""Makes docs/images/demo.svg, the picture in the README, of a real run: python docs/make_demo_picture.py.

It runs `streamseg demo --kill` and keeps what the view shows when the stream's clock comes to a date.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from streamseg.core.units import Instant, parse_instant
from streamseg.demo import Options, run_demo
from streamseg.demo.display import Lines
from streamseg.demo_view import DemoState, DemoView

PICTURE = Path(__file__).with_name("images") / "demo.svg"
DATE = parse_instant("1997-12-10T00:00:00Z")
WIDTH, HEIGHT = 112, 38
SLOW = Options(kill=True, seconds=180)
"""So slow that the worker keeps up on any machine."""

_LIGHT = (230, 237, 243)
_DARK = TerminalTheme((13, 17, 23), (201, 209, 217), [_LIGHT] * 8, [_LIGHT] * 8)
_FONTS = "ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
_FONT_ASPECT = 0.602
"""Width by height of a letter, nearly the same in all of these fonts."""


class Moment(Lines):
    """Shows lines, and keeps the first state from a date on."""

    def __init__(self, console: Console, date: Instant) -> None:
        super().__init__(console)
        self.kept: DemoState | None = None
        self._date = date

    def show(self, state: DemoState) -> None:
        """Keep it, if it is the one."""
        super().show(state)
        if self.kept is None and state.simulated >= self._date:
            self.kept = state


def svg_of(state: DemoState) -> str:
    """Draw a state as it stands on a terminal of `WIDTH` by `HEIGHT`."""
    console = Console(
        width=WIDTH, height=HEIGHT, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(DemoView(state), end="")
    # Pictures on a page cannot load fonts: those that are there must do.
    style = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    style = style.replace("font-family: Fira Code, monospace", f"font-family: {_FONTS}")
    style = style.replace("<svg ", '<svg xml:space="preserve" ', 1)  # some would cut spaces off
    return console.export_svg(
        title="streamseg demo --kill", theme=_DARK, code_format=style, font_aspect_ratio=_FONT_ASPECT
    )


def main() -> int:
    """Run the demo and write the picture; the demo's exit code."""
    console = Console()
    moment = Moment(console, DATE)
    code = run_demo(SLOW, console, moment)
    if code == 0 and moment.kept is not None:
        PICTURE.write_text(svg_of(moment.kept), encoding="utf-8")
        console.print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
