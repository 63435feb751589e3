"""`streamseg demo` as a newcomer runs it: a command in a folder, with services of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamseg.services.jars import default_jars, ensure_jars

ENDS_WITHIN = 400.0
STARTS_WITHIN = 200.0
STOPS_WITHIN = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a project's folder; Kafka's jars, which stay, are there already."""
    ensure_jars(default_jars())
    (tmp_path / ".git").mkdir()
    (tmp_path / ".streamseg").mkdir()
    (tmp_path / ".streamseg" / "kafka").symlink_to(default_jars())
    return tmp_path


class Demo:
    """A running `streamseg demo`, what it prints, and what it left."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._output = folder / "output.txt"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMSEG_")}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamseg", "demo", *options],
                cwd=folder,
                env=environment | {"COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """Give what it printed so far."""
        return self._output.read_text()

    def wait(self, seconds: float) -> int:
        """Give its exit code."""
        return self._process.wait(seconds)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, and to it alone."""
        self._process.send_signal(number)

    def wait_until(self, holds: Callable[[str], bool]) -> None:
        """Wait until its output is as told; it must not end before."""
        deadline = time.monotonic() + STARTS_WITHIN
        while not holds(self.output):
            assert self._process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def left_files(self) -> list[str]:
        """List what it left in its folder."""
        left = [path for path in self.folder.rglob("*") if ".git" not in path.parts and path != self._output]
        return sorted(str(path.relative_to(self.folder)) for path in left if path.name not in {"kafka", ".streamseg"})

    def end(self) -> None:
        """Kill it, if it runs."""
        self._process.kill()
        self._process.wait()


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[Demo]:
    running = Demo(folder, *options)
    try:
        yield running
    finally:
        running.end()


def processes_in(folder: Path) -> list[str]:
    """Find processes that work in the folder or were told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            works_in = str((process / "cwd").readlink())
        except OSError:  # it has ended meanwhile
            continue
        if str(folder) in f"{command} {works_in}":
            found.append(command)
    return found


def assert_passed(output: str, claims: list[str]) -> None:
    assert "Check passed" in output
    assert "✗" not in output
    for claim in claims:
        assert f"✓ {claim}" in output


def test_the_demo_feeds_all_purchases_and_finds_the_worker_equal_to_a_replay(folder: Path) -> None:
    with demo(folder, "--seconds", "0") as running:
        code = running.wait(ENDS_WITHIN)

        assert code == 0, running.output
        assert_passed(
            running.output,
            [
                "all 69,659 events applied",
                "all 265,807 changes equal a replay",
                "each change once and in order",
                "Redis shows all 23,570 customers",
                "the counters in Redis are exact",
                "no dead letters",
            ],
        )
        assert running.left_files() == []
        assert processes_in(folder) == []


def test_a_worker_killed_in_the_middle_loses_nothing_of_late_doubled_and_malformed_events(folder: Path) -> None:
    with demo(folder, "--seconds", "0", "--kill", "--source", "synthetic") as running:
        code = running.wait(ENDS_WITHIN)

        assert code == 0, running.output
        assert "through 1 worker restart" in running.output
        assert_passed(running.output, ["all 100,000 events applied", "each change once", "111 malformed lines"])
        assert running.left_files() == []
        assert processes_in(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_the_demo_in_the_middle_finds_nothing_left(folder: Path, number: signal.Signals) -> None:
    with demo(folder, "--source", "synthetic", "--seconds", "600") as running:
        running.wait_until(lambda output: "% fed" in output)
        assert len(processes_in(folder)) > 3

        running.send(number)
        code = running.wait(STOPS_WITHIN)

        assert code == 130, running.output
        assert running.output.rstrip().endswith("nothing is left behind.")
        assert "Traceback" not in running.output
        assert running.left_files() == []
        assert processes_in(folder) == []
