"""Decoding every line of a file, and nothing else: python -m benchmarks.peers.decode FILE EVENTS.

Prints the seconds that it took, the seconds of CPU, and the peak of memory in MB.
"""

from __future__ import annotations

import resource
import sys
import time
from itertools import islice
from pathlib import Path

from benchmarks.peers.wire import decode


def main() -> None:
    """Decode all lines."""
    path, events = sys.argv[1:]
    with Path(path).open("rb") as file:
        lines = list(islice(file, int(events)))
    started, cpu = time.perf_counter(), time.process_time()
    for line in lines:
        decode(line)
    taken, used = time.perf_counter() - started, time.process_time() - cpu
    print(taken, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
