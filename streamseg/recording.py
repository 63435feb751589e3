"""Replays of files: inputs to outputs, a progress bar, a summary."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from streamseg.core.change import Change
from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError
from streamseg.core.units import Instant, format_money
from streamseg.engine import Engine, choose
from streamseg.formats.definitions_yaml import load_definitions, read_source
from streamseg.formats.messages import change_data, encode_json
from streamseg.inputs import read_lines
from streamseg.replay import Outputs, Reject, Replay, Tally
from streamseg.shards import shards

SMALL = 50_000
"""Inputs of fewer lines are replayed in one process: others would take longer to start than they save."""


def replay_files(
    definitions: Path,
    events: Sequence[str],
    changes: Path | None,
    assignments: Path | None,
    rejects: Path | None,
    until: Instant | None,
    *,
    format: str | None = None,  # noqa: A002
    jobs: int | None = None,
    engine: Engine = Engine.AUTO,
) -> None:
    """Replays files (`-` is standard input), writes what was asked for, and prints a summary.

    `jobs` is the number of processes; None is one for each core, and this one alone for a small input. What is written
    is the same for any number, and for any `engine`.
    """
    source = read_source(definitions)
    compiled = load_definitions(source, str(definitions))
    plan = choose(compiled, engine).plan
    console = Console(stderr=True)
    gc.disable()  # profiles have no cycles, and there may be millions of them to look through
    with ExitStack() as stack:
        write_reject = _writer(stack, rejects)
        outputs = Outputs(
            _writer(stack, changes),
            lambda reject: write_reject(_reject_data(reject)),
            None if assignments is None else _writer(stack, assignments),
        )
        lines = read_lines(events, format)
        if jobs is None:
            beginning, lines = _beginning(lines, SMALL)
            jobs = 1 if len(beginning) < SMALL else _cores()
        if changes is not None and changes == rejects:
            jobs = 1  # in one file they stand in the order in which they happened
        if jobs == 1:
            found = _replay_here(compiled, plan, _shown(lines, console), outputs, until)
        else:
            # The processes start before the progress display does, for that has a thread.
            running = stack.enter_context(shards(source, jobs, plan))
            found = running.replay(compiled, _shown(lines, console), outputs, until)
    piped = any(str(out) == "-" for out in (changes, assignments, rejects))
    _summarise(found, compiled, Console(stderr=piped))


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _beginning(lines: Iterator[bytes], count: int) -> tuple[list[bytes], Iterator[bytes]]:
    """The first lines, up to so many, and all lines, which may end with an InputError."""
    beginning: list[bytes] = []
    try:
        beginning.extend(islice(lines, count))
    except InputError as error:
        return beginning, chain(beginning, _raising(error))
    return beginning, chain(beginning, lines)


def _raising(error: InputError) -> Iterator[bytes]:
    yield from ()
    raise error


def _replay_here(
    definitions: Definitions, plan: bytes | None, lines: Iterable[bytes], outputs: Outputs, until: Instant | None
) -> Tally:
    """Replays in this process."""
    counted = _Counted(outputs.changes)
    if plan is None:
        replay = Replay(definitions, counted, outputs.reject)
    else:
        from streamseg.compiled_replay import CompiledReplay

        replay = CompiledReplay(definitions, counted, outputs.reject, plan, lambda core: outputs.changes(core.drain()))
    replay.run(lines, until)
    if outputs.assignments is not None:
        for _, line in replay.assignments():
            outputs.assignments(line)
    return replay.tally(counted.count)


class _Counted:
    """Writes changes and counts them."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.count = 0
        self._write = write

    def __call__(self, change: Change) -> None:
        self.count += 1
        self._write(change_data(change) + b"\n")


def _writer(stack: ExitStack, path: Path | None) -> Callable[[bytes], object]:
    if path is None:
        return lambda _: None
    try:
        to_stdout = str(path) == "-"
        file = sys.stdout.buffer if to_stdout else stack.enter_context(path.open("wb", buffering=1 << 20))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return file.write


def _reject_data(reject: Reject) -> bytes:
    text = reject.data.decode("utf-8", "replace")
    data = {"line": reject.line, "reason": reject.reason, "detail": reject.detail, "event": text}
    return encode_json(data) + b"\n"


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


def _summarise(found: Tally, definitions: Definitions, console: Console) -> None:
    total = sum(found.results.values())
    parts = [f"{count:,} {name}" for name, count in sorted(found.results.items())]
    console.print(f"{total:,} events ({', '.join(parts)}), {found.customers:,} customers, {found.changes:,} changes")
    for reason, count in found.rejects.most_common():
        console.print(f"  rejected {count:,}: {reason}")
    for scheme, segments in found.sizes.items():
        table = Table("segment", title=f"scheme {scheme}", title_justify="left")
        for heading in ("customers", "%", f"value {definitions.currency}"):
            table.add_column(heading, justify="right")
        for name, (customers, worth) in segments.items():
            share = 100 * customers / max(1, found.customers)
            table.add_row(name, f"{customers:,}", f"{share:.1f}", format_money(worth, definitions.digits))
        console.print(table)
