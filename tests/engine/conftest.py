"""Where there is no Rust there is no compiled core to test; where there is Rust, a core that is missing is an error."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

RUST = Path(__file__).parents[2] / "requirements" / "rust.py"


def can_be_built() -> bool:
    return bool(subprocess.run([sys.executable, RUST], capture_output=True, text=True, check=True).stdout.strip())


if find_spec("streamseg_engine") is None and not can_be_built():
    collect_ignore_glob = ["test_*.py"]
