"""Whether what is measured begins when what came before it is done."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.processes import wait_until_idle


@contextmanager
def python(code: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_process_that_waits_is_idle_and_one_that_works_is_not() -> None:
    with python("print('x', flush=True); input()") as waits:
        assert wait_until_idle([waits], over=0.2)
        with python("print('x', flush=True)\nwhile True: pass") as works:
            assert not wait_until_idle([waits, works], patience=1.0, over=1.0)
