"""What a process and its descendants have used, as Linux tells."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

HERTZ = os.sysconf("SC_CLK_TCK")
QUIET = 0.5
"""The load average of a machine on which figures mean something."""
IDLE = 0.15
"""Cores that services and workers with nothing to do take together, about."""
ENDED = (FileNotFoundError, ProcessLookupError)
"""What looking at a process comes to that has ended since it was found."""


def cpu_seconds(pid: int) -> float:
    """CPU of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def waited_seconds(pid: int) -> float:
    """How long the threads of a process that live now could have run but for others who had the CPU."""
    stats = (task / "schedstat" for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int(stat.read_text().split()[1]) for stat in stats) / 1e9


def status_mb(pid: int, name: str) -> float:
    """A line of the process's status, such as VmRSS or VmHWM, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def tree(pid: int) -> list[int]:
    """A process and its descendants that live."""
    found = [pid]
    for each in found:
        try:
            tasks = list(Path(f"/proc/{each}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:  # it has ended meanwhile
            continue
    return found


def tree_cpu_seconds(pid: int) -> float:
    """CPU of a process, and of its descendants that live."""
    used = cpu_seconds(pid)
    for each in tree(pid)[1:]:
        with suppress(*ENDED):
            used += cpu_seconds(each)
    return used


def wait_until_idle(pids: Sequence[int], patience: float = 60.0, over: float = 1.0) -> bool:
    """Waits until processes take little CPU, but only so many seconds; says whether they do.

    A broker that was given much goes on to compact it.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        before = sum(map(cpu_seconds, pids))
        time.sleep(over)
        if sum(map(cpu_seconds, pids)) - before < IDLE * over:
            return True
    return False


def program(pid: int) -> str:
    """The name of the program that a process runs."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def warn_if_busy() -> None:
    """Says so when others are at work on this machine."""
    if (load := os.getloadavg()[0]) > QUIET:
        print(f"this machine is busy (load {load:.1f}): what is measured now is not worth keeping", file=sys.stderr)
