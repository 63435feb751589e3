"""Recorded inputs and outputs: files of JSON lines, a progress bar, a summary."""

from __future__ import annotations

import gc
import gzip
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from streamseg.core.assignment import forecast
from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError
from streamseg.core.units import Instant, format_money
from streamseg.formats.event_json import MAX_BYTES
from streamseg.formats.messages import assignment, change_data, current_data, encode_json
from streamseg.replay import Reject, Replay

MAX_LINE = 1 << 20
"""Longer lines are no events; they are cut so that one cannot fill the memory."""


def replay_files(
    definitions: Definitions,
    events: Sequence[str],
    changes: Path | None,
    assignments: Path | None,
    rejects: Path | None,
    until: Instant | None,
) -> None:
    """Replays files (`-` is standard input), writes what was asked for, and prints a summary."""
    console = Console(stderr=True)
    gc.disable()  # profiles have no cycles, and there may be millions of them to look through
    with ExitStack() as stack:
        counted = _Counted(_writer(stack, changes))
        write_reject = _writer(stack, rejects)
        write_assignment = _writer(stack, assignments)
        replay = Replay(definitions, counted, lambda reject: write_reject(_reject_data(reject)))
        for line in _shown(read_lines(events), console):
            replay.feed(line)
        if until is not None:
            replay.segmenter.advance(until)
        if assignments is not None:
            _write_assignments(replay, write_assignment)
    piped = any(str(out) == "-" for out in (changes, assignments, rejects))
    _summarise(replay, counted.count, Console(stderr=piped))


class _Counted:
    """Writes changes and counts them."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.count = 0
        self._write = write

    def __call__(self, change: Change) -> None:
        self.count += 1
        self._write(change_data(change))


def _writer(stack: ExitStack, path: Path | None) -> Callable[[bytes], None]:
    if path is None:
        return lambda _: None
    try:
        to_stdout = str(path) == "-"
        file = sys.stdout.buffer if to_stdout else stack.enter_context(path.open("wb", buffering=1 << 20))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error

    def write(line: bytes) -> None:
        file.write(line + b"\n")

    return write


def _reject_data(reject: Reject) -> bytes:
    text = reject.data.decode("utf-8", "replace")
    return encode_json({"line": reject.line, "reason": reject.reason, "detail": reject.detail, "event": text})


def read_lines(events: Sequence[str]) -> Iterator[bytes]:
    """The lines of files one after the other; `-` is standard input. Raises InputError if one cannot be read."""
    for name in events:
        with _opened(name) as file:
            for line in iter(partial(file.readline, MAX_LINE), b""):
                if len(line) == MAX_LINE:
                    _skip_line(file, line)
                yield line if len(line) <= MAX_BYTES else line.rstrip(b"\r\n")


def _skip_line(file: IO[bytes], line: bytes) -> None:
    """Reads on to the end of a line that is too long."""
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE)


def _opened(name: str) -> IO[bytes]:
    if name == "-":
        return sys.stdin.buffer
    try:
        if name.endswith(".gz"):
            return cast(IO[bytes], gzip.open(name, "rb"))
        return Path(name).open("rb", buffering=1 << 20)
    except OSError as error:
        raise InputError(f"events file {name}: {error.strerror}") from error


def _shown(lines: Iterator[bytes], console: Console) -> Iterator[bytes]:
    """The lines, with a progress display if somebody looks."""
    return _with_progress(lines, console) if console.is_terminal else lines


def _with_progress(lines: Iterator[bytes], console: Console) -> Iterator[bytes]:
    columns = (
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("lines"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("replay", total=None)
        for count, line in enumerate(lines, 1):
            if count % 2_000 == 0:
                progress.update(task, completed=count)
            yield line


def _write_assignments(replay: Replay, write: Callable[[bytes], None]) -> None:
    definitions, every = replay.definitions, range(len(replay.definitions.schemes))
    for customer in sorted(replay.profiles):
        profile = replay.profiles[customer]
        ahead = forecast(definitions, profile, profile.at, every)
        write(current_data(customer, profile, definitions, assignment(definitions, profile, ahead)))


def sizes(replay: Replay) -> dict[str, dict[str, tuple[int, int]]]:
    """Customers and their worth (minor units) by scheme and segment."""
    found: dict[str, dict[str, tuple[int, int]]] = {
        compiled.scheme.name: dict.fromkeys(compiled.scheme.names, (0, 0)) for compiled in replay.definitions.schemes
    }
    worth_of = replay.definitions.value
    for profile in replay.profiles.values():
        value: Any = worth_of(profile, profile.at) if worth_of is not None else None
        worth = 0 if value is None else round(value)
        for compiled, segment in zip(replay.definitions.schemes, profile.segments, strict=True):
            if segment >= 0:
                segments, name = found[compiled.scheme.name], compiled.scheme.names[segment]
                customers, total = segments[name]
                segments[name] = (customers + 1, total + worth)
    return found


def _summarise(replay: Replay, changes: int, console: Console) -> None:
    total = sum(replay.results.values())
    parts = [f"{count:,} {name}" for name, count in sorted(replay.results.items())]
    console.print(f"{total:,} events ({', '.join(parts)}), {len(replay.profiles):,} customers, {changes:,} changes")
    for reason, count in replay.rejects.most_common():
        console.print(f"  rejected {count:,}: {reason}")
    for scheme, segments in sizes(replay).items():
        table = Table("segment", title=f"scheme {scheme}", title_justify="left")
        for heading in ("customers", "%", f"value {replay.definitions.currency}"):
            table.add_column(heading, justify="right")
        for name, (customers, worth) in segments.items():
            share = 100 * customers / max(1, len(replay.profiles))
            table.add_row(name, f"{customers:,}", f"{share:.1f}", format_money(worth, replay.definitions.digits))
        console.print(table)
