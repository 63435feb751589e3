"""What a run came to, put into the documentation between marks."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "benchmarks.md"


def machine() -> str:
    """Where it was measured."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown."""
    names = list(head)
    lines = [names, ["---"] * len(names), *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def replace(mark: str, text: str, path: Path = DOCUMENT) -> None:
    """Puts lines between `<!-- mark -->` and `<!-- /mark -->`. Raises ValueError if these are not there."""
    before, begin, rest = path.read_text().partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not begin or not end:
        raise ValueError(f"{path} has no place for {mark}")
    path.write_text(f"{before}{begin}{text.rstrip()}\n{end}{after}")
