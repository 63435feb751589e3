"""What every local service can do: start, stop, crash, hang, and come back on the same port."""

from __future__ import annotations

import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from streamseg.services.process import Process, ServiceError

LOOPBACK = "127.0.0.1"
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 100
_claims: list[socket.socket] = []
"""Names that say which ports this process has been given: they go with it."""


class LocalService(ABC):
    """A server on this machine's loopback, with its files and its log in `directory`.

    As a context manager it is started and stopped. Its port is chosen once and kept over restarts, so that
    clients find it again. It dies with the process that started it.
    """

    name: ClassVar[str]
    """What errors call it; in lower case, the name of its log."""
    ready_within: ClassVar[float] = 120.0
    """Seconds until a start has failed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.port = free_port()
        self._process: Process | None = None

    @property
    def log(self) -> Path:
        """The file with the server's output, of all its starts."""
        return self.directory / f"{self.name.lower()}.log"

    @property
    def running(self) -> bool:
        """Whether the server's process is there. A paused one runs."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises ServiceError when it is running already, or when it ends or does not answer in time (with the
        end of its log), and MissingProgramError when a program is not installed.
        """
        if self.running:
            raise ServiceError(f"{self.name} runs already on port {self.port}: stop it before starting it again.")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._process = Process(self.name, self._command(), self.log)
        self._process.wait_until_ready(self._problem, self.ready_within)

    def stop(self) -> None:
        """End the server in good order. Nothing happens if it does not run."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL). ServiceError if it does not run."""
        self._running().kill()

    def pause(self) -> None:
        """Make the server hang: connections stay open, nothing answers. ServiceError if it does not run."""
        self._running().pause()

    def resume(self) -> None:
        """End a `pause`. ServiceError if it does not run."""
        self._running().resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Make the folder ready and give the server's command line. It runs in `directory`."""

    @abstractmethod
    def _problem(self) -> str | None:
        """Say what keeps the server from answering, None when it answers."""

    def _running(self) -> Process:
        if self._process is None or not self._process.running:
            raise ServiceError(f"{self.name} does not run. Start it first.")
        return self._process


def free_port() -> int:
    """Give a loopback port that nobody listens on, and that no process on this machine was given that still runs.

    So it stays free while its server is down, or is not up yet. It lies below the ports that the system gives to
    outgoing connections: while the server is down, no client that tries to reconnect can be given the server's own
    port.
    """
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            if _claim(port):
                return port
    raise ServiceError(f"No free port on {LOOPBACK} among {_PORT_TRIES} from {_PORTS.start} to {_PORTS.stop - 1}.")


def _claim(port: int) -> bool:
    """Take a port for as long as this process lives; false if another has it, or this one. No file is left of it."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0streamseg-port-{port}")  # a name that is no path: Linux frees it with the socket
    except OSError:
        claim.close()
        return False
    _claims.append(claim)
    return True


def refusal(host: str, port: int, within: float = 3.0) -> str | None:
    """Say why no TCP connection to `host`:`port` can be had `within` seconds, None when one can."""
    try:
        socket.create_connection((host, port), within).close()
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    return None
