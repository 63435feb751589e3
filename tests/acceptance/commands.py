"""The command line as a user runs it: a process, what goes in, what comes out, and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 120.0


def environment(**variables: str) -> dict[str, str]:
    """Nothing of our own environment but where programs are."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", **variables}


def started(arguments: Sequence[object], directory: Path, **variables: str) -> subprocess.Popen[bytes]:
    """A command that runs. Its input is a pipe that stays open until it is told more; its output is in pipes."""
    command, pipe = [sys.executable, "-m", "streamseg", *map(str, arguments)], subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=directory, env=environment(**variables))


class Outcome:
    """What a command did."""

    def __init__(self, code: int, output: bytes, errors: bytes) -> None:
        self.code = code
        self.bytes = output
        self.output = output.decode("utf-8", "replace")
        self.errors = errors.decode("utf-8", "replace")

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()

    def __repr__(self) -> str:
        return f"code {self.code}\n{self.output}\n{self.errors}"


def run(*arguments: object, directory: Path, given: bytes = b"", **variables: str) -> Outcome:
    """Run a command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "streamseg", *map(str, arguments)],
        input=given,
        capture_output=True,
        cwd=directory,
        env=environment(**variables),
        timeout=PATIENCE,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
