"""A worker whose wall clock is wrong by as many seconds as a file says; CHAOS_CLOCK names the file."""

from __future__ import annotations

import os
import time
from pathlib import Path

SHIFT = Path(os.environ["CHAOS_CLOCK"])
_time, _time_ns = time.time, time.time_ns


def shift() -> float:
    """Seconds, as the file says now."""
    return float(SHIFT.read_text() or 0)


time.time = lambda: _time() + shift()
time.time_ns = lambda: _time_ns() + int(shift() * 1e9)

if __name__ == "__main__":
    from streamseg.cli import main

    main()
