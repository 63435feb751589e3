"""Children that die with their parent, even when the parent is killed and can clean up nothing.

On Linux the kernel does it (PR_SET_PDEATHSIG). Elsewhere a shell beside the child waits on a pipe from the
parent. Either way the child's process id is the one that `Popen` knows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TypeAlias

Child: TypeAlias = "subprocess.Popen[bytes]"

# Sets the signal, then becomes the command. The parent may have died before the signal was set: then its id
# differs. Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays ignored in the command: so they are
# given back.
_BIND = """
import ctypes, os, signal, sys
for name in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(name, signal.SIG_DFL)
PR_SET_PDEATHSIG, unused = 1, ctypes.c_ulong(0)
kill = ctypes.c_ulong(signal.SIGKILL)
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, kill, unused, unused, unused):
    sys.exit(f"PR_SET_PDEATHSIG: {os.strerror(ctypes.get_errno())}")
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""

# The shell's background part outlives `exec`: $$ is the command. A line says that all is well, an end of file
# that the parent is gone.
_WATCH = """
exec 3<&0 0</dev/null
(read -r _ <&3 || kill -9 $$) >/dev/null 2>&1 &
exec 3<&-
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run, where, with which environment (None: ours), and the open file that takes its output."""

    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str] | None
    output: IO[bytes]


Spawn: TypeAlias = Callable[[Launch], Child]


def spawn_bound(launch: Launch) -> Child:
    """Start a child that the kernel kills with us (Linux only). OSError when it cannot be forked."""
    command = [sys.executable, "-I", "-S", "-c", _BIND, str(os.getpid()), *launch.command]
    return _forever(os.getpid()).run(partial(_popen, launch, command, subprocess.DEVNULL))


def spawn_watched(launch: Launch) -> Child:
    """Start a child beside a shell that kills it when our end of a pipe closes (any POSIX)."""
    return _popen(launch, ["/bin/sh", "-c", _WATCH, "sh", *launch.command], subprocess.PIPE)


spawn: Spawn = spawn_bound if sys.platform == "linux" else spawn_watched


def release(child: Child) -> None:
    """Tell the watching shell, if there is one, that `child` has ended: its id may soon be another's."""
    if child.stdin is None or child.stdin.closed:
        return
    try:
        child.stdin.write(b"\n")
        child.stdin.close()
    except BrokenPipeError:
        return  # the shell has ended by itself


def _popen(launch: Launch, command: Sequence[str], stdin: int) -> Child:
    return subprocess.Popen(
        command,
        cwd=launch.directory,
        env=launch.environment,
        stdin=stdin,
        stdout=launch.output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C at the terminal is for us; we stop the child in our order
    )


class _Thread:
    """A thread that runs calls one after the other and never ends.

    PR_SET_PDEATHSIG fires when the *thread* that forked ends, so a child started from a short-lived thread
    (of a test, of an executor) would die with that thread.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Child], Callable[[], Child]]] = SimpleQueue()
        threading.Thread(target=self._work, name="streamseg-spawn", daemon=True).start()

    def run(self, call: Callable[[], Child]) -> Child:
        done: Future[Child] = Future()
        self._calls.put((done, call))
        return done.result()

    def _work(self) -> None:
        while True:
            done, call = self._calls.get()
            try:
                done.set_result(call())
            except BaseException as error:  # noqa: BLE001  it is raised again in the caller's thread
                done.set_exception(error)


@cache
def _forever(_process: int) -> _Thread:
    """Give this process its thread; a fork has no threads but its own, hence the argument."""
    return _Thread()
