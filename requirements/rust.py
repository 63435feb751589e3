"""Says `yes` if this machine has a Rust that the compiled core can be built with: `make setup` asks.

An older one is none: distributions have had those, and the worker does without.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

MANIFEST = Path(__file__).parents[1] / "engine" / "Cargo.toml"


def version(text: str, before: str) -> tuple[int, ...]:
    """The version that stands behind some words."""
    found = re.search(re.escape(before) + r"(\d+(?:\.\d+)+)", text)
    return tuple(map(int, found[1].split("."))) if found is not None else ()


def is_there() -> bool:
    """Whether there is a cargo of the version that the manifest asks for."""
    try:
        told = subprocess.run(["cargo", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return version(told, "cargo ") >= version(MANIFEST.read_text(), 'rust-version = "')


if __name__ == "__main__":
    print("yes" if is_there() else "")
