"""Child processes: they tell why they failed, and never outlive whoever started them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamseg.services.lifeline import Spawn, spawn_bound, spawn_watched
from streamseg.services.process import Process, ServiceError

LIFELINES = pytest.mark.parametrize("lifeline", [spawn_bound, spawn_watched])
DEADLINE_SECONDS = 60.0

OWNER = """
import sys, time
from pathlib import Path
from streamseg.services import lifeline
from streamseg.services.process import Process

spawn = getattr(lifeline, sys.argv[1])
print(Process("sleeper", ["sleep", "600"], Path(sys.argv[2]), lifeline=spawn).pid, flush=True)
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and waits for its parent to notice does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def shell(script: str, folder: Path, lifeline: Spawn = spawn_bound) -> Iterator[Process]:
    process = Process("The till", ["sh", "-c", script], folder / "till.log", lifeline=lifeline)
    try:
        yield process
    finally:
        process.kill()


def says(process: Process, word: str) -> Callable[[], str | None]:
    return lambda: None if word in process.tail() else f"it has not said {word!r}"


@LIFELINES
def test_a_service_dies_when_its_owner_is_killed(lifeline: Spawn, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, lifeline.__name__, str(tmp_path / "sleeper.log")],
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        service = int(owner.stdout.readline())
        wait_for(lambda: Path(f"/proc/{service}/comm").read_text() == "sleep\n")

        owner.kill()

        wait_for(lambda: not is_alive(service))


@LIFELINES
def test_a_service_that_fails_tells_its_exit_code_and_its_last_words(lifeline: Spawn, tmp_path: Path) -> None:
    with (
        shell("echo the port is taken >&2; exit 3", tmp_path, lifeline) as till,
        pytest.raises(ServiceError) as failure,
    ):
        till.wait_until_ready(lambda: "no answer", within=DEADLINE_SECONDS)

    assert str(failure.value) == (
        "The till ended with exit code 3 before it was ready. "
        f"The end of its log, {tmp_path / 'till.log'}:\nthe port is taken"
    )


def test_a_service_that_a_signal_ended_tells_which_one(tmp_path: Path) -> None:
    with (
        shell("kill -ABRT $$", tmp_path) as till,
        pytest.raises(ServiceError, match=r"^The till ended with signal SIGABRT before it was ready\. Its log"),
    ):
        till.wait_until_ready(lambda: "no answer", within=DEADLINE_SECONDS)


def test_a_service_that_never_gets_ready_is_killed_and_told_what_was_missing(tmp_path: Path) -> None:
    with shell("exec sleep 600", tmp_path) as till:
        with pytest.raises(ServiceError, match=r"^The till was not ready within 0\.1 s: the drawer is shut\."):
            till.wait_until_ready(lambda: "the drawer is shut", within=0.1)

        assert not till.running


def test_a_service_does_not_survive_a_ready_check_that_breaks(tmp_path: Path) -> None:
    def interrupted() -> str | None:
        raise KeyboardInterrupt

    with shell("exec sleep 600", tmp_path) as till:
        with pytest.raises(KeyboardInterrupt):
            till.wait_until_ready(interrupted, within=DEADLINE_SECONDS)

        assert not till.running


@LIFELINES
def test_a_stopped_service_ends_in_its_own_order(lifeline: Spawn, tmp_path: Path) -> None:
    script = "trap 'echo closed; exit 0' TERM; echo open; while :; do sleep 0.05; done"
    with shell(script, tmp_path, lifeline) as till:
        till.wait_until_ready(says(till, "open"), within=DEADLINE_SECONDS)

        till.stop()

        assert not till.running
        assert till.tail() == "open\nclosed"


def test_a_paused_service_can_still_be_stopped_in_order(tmp_path: Path) -> None:
    script = "trap 'echo closed; exit 0' TERM; echo open; while :; do sleep 0.05; done"
    with shell(script, tmp_path) as till:
        till.wait_until_ready(says(till, "open"), within=DEADLINE_SECONDS)
        till.pause()

        till.stop()

        assert till.tail() == "open\nclosed"


@LIFELINES
def test_a_service_deaf_to_stop_is_killed(lifeline: Spawn, tmp_path: Path) -> None:
    with shell("trap '' TERM; echo open; while :; do sleep 0.05; done", tmp_path, lifeline) as till:
        till.wait_until_ready(says(till, "open"), within=DEADLINE_SECONDS)

        till.stop(within=0.1)

        assert not till.running


def test_the_tail_of_a_log_leaves_out_what_an_earlier_run_wrote(tmp_path: Path) -> None:
    with (
        shell("echo yesterday; exit 1", tmp_path) as till,
        pytest.raises(ServiceError, match="yesterday"),
    ):
        till.wait_until_ready(lambda: "no answer", within=DEADLINE_SECONDS)

    with shell("echo today; exit 1", tmp_path) as till, pytest.raises(ServiceError) as failure:
        till.wait_until_ready(lambda: "no answer", within=DEADLINE_SECONDS)

    assert "today" in str(failure.value)
    assert "yesterday" not in str(failure.value)


@LIFELINES
def test_a_service_hears_no_interrupt_from_its_owners_terminal(lifeline: Spawn, tmp_path: Path) -> None:
    with shell("exec sleep 600", tmp_path, lifeline) as till:
        assert os.getsid(till.pid) != os.getsid(0)
