"""Names the fastest Python from 3.11 on among those on this machine: `make setup` builds .venv with it.

Builds differ by far: on one machine the same work took a Python that was built as a shared library without
profile-guided optimisation 1.4 times as long as the distribution's own. So candidates run a short loop, and the
best of some runs counts; a candidate that cannot make an environment, or is older, is left out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

OLDEST = (3, 11)
NEWEST = (3, 14)
"""The locked packages have wheels up to this one."""
NAMES = ("python3", *(f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)))
PLACES = ("/usr/bin", "/usr/local/bin")
PROBE = f"""
import sys, time, venv, pyexpat, ssl, zlib, lzma, ctypes
if not {OLDEST} <= sys.version_info[:2] <= {NEWEST}: sys.exit(1)
def work():
    seen = {{}}
    for number in range(200_000):
        seen[number % 997] = seen.get(number % 997, 0) + len(str(number)[1:])
def taken():
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
print(min(taken() for _ in range(3)))
"""


def candidates() -> list[str]:
    """Interpreters to try, the one that runs this first; each once."""
    found = [sys.executable, *(shutil.which(name) for name in NAMES)]
    found += [shutil.which(name, path=place) for place in PLACES for name in NAMES]
    return list(dict.fromkeys(path for path in found if path))


def seconds(path: str) -> float | None:
    """How long the probe takes; None if the interpreter will not do."""
    try:
        done = subprocess.run([path, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return float(done.stdout) if done.returncode == 0 else None


def main() -> int:
    """Prints the path of the best; returns the exit code."""
    timed = {path: taken for path in candidates() if (taken := seconds(path)) is not None}
    if not timed:
        sys.stderr.write(
            "Python 3.11 to 3.14 is needed, with its venv and ssl modules. Say make PYTHON=python3.12 ...\n"
        )
        return 1
    sys.stdout.write(min(timed, key=lambda path: timed[path]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
