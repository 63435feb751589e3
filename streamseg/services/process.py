"""A child process with a log file, a check that it is ready, and an end when its parent ends."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from streamseg.core.errors import StreamsegError
from streamseg.services.lifeline import Launch, Spawn, release, spawn

_POLL_SECONDS = 0.05
_TAIL_LINES = 20
_TAIL_BYTES = 16_384


class ServiceError(StreamsegError):
    """A service that streamseg needs cannot be started, or does not answer. Exit code 75: try again."""

    exit_code = 75


class MissingProgramError(ServiceError):
    """A program that a local service needs is not installed. The text says how to install it. Exit code 1."""

    exit_code = 1


class Process:
    """A running child process, whose output is appended to `log`, and which never outlives its parent.

    It is started by the constructor, in the folder `directory` and in a session of its own, so that Ctrl-C
    reaches only the parent. `name` is what errors call it. Raises OSError when the log cannot be written.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        lifeline: Spawn = spawn,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._child = lifeline(Launch(command, directory or log.parent, environment, output))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet. A paused process runs."""
        return self._child.poll() is None

    def wait_until_ready(self, problem: Callable[[], str | None], within: float) -> None:
        """Ask `problem` until it gives None; it gives what is still missing, in words.

        Raises ServiceError, with the end of the log, when the process ends first or `within` seconds go by.
        The process is killed then, as on any other exception (Ctrl-C).
        """
        try:
            self._poll(problem, time.monotonic() + within, within)
        except BaseException:
            self.kill()
            raise

    def _poll(self, problem: Callable[[], str | None], deadline: float, within: float) -> None:
        while True:
            if not self.running:
                raise self._error(f"ended with {_ending(self._child.returncode)} before it was ready")
            missing = problem()
            if missing is None:
                return
            if time.monotonic() > deadline:
                raise self._error(f"was not ready within {within:g} s: {missing}")
            time.sleep(_POLL_SECONDS)

    def stop(self, within: float = 15.0) -> None:
        """Ask it to end (SIGTERM), and kill it after `within` seconds. Nothing happens if it has ended."""
        self._signal(signal.SIGTERM)
        self.resume()  # a paused process would not see the SIGTERM
        try:
            self._child.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
        release(self._child)

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL), and wait until it is gone."""
        self._signal(signal.SIGKILL)
        self._child.wait()
        release(self._child)

    def pause(self) -> None:
        """Stop its clockwork (SIGSTOP): its connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause` (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def tail(self) -> str:
        """Give the last lines that this process (not an earlier one with the same log) has written."""
        with self.log.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(self._log_start, size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def _signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)  # a child that has ended is left alone

    def _error(self, what: str) -> ServiceError:
        tail = self.tail()
        said = f"The end of its log, {self.log}:\n{tail}" if tail else f"Its log, {self.log}, is empty."
        return ServiceError(f"{self.name} {what}. {said}")


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
