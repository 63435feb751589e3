"""`streamseg demo` from its first line to its last."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from streamseg import services
from streamseg.demo.changes import Changes
from streamseg.demo.check import Finding, shown_differences
from streamseg.demo.display import Display, display_on
from streamseg.demo.figures import Figures
from streamseg.demo.performance import Performance
from streamseg.demo.reference import Reference
from streamseg.demo.source import SOURCES, Line, Source, moments_of
from streamseg.demo.stage import DEFINITIONS, Stage, Worker, child, demo_folder, prepared
from streamseg.demo_view import print_summary
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.services.jars import default_jars, ensure_jars
from streamseg.services.redis import without_password
from streamseg.worker.settings import Names

_INTERRUPTED = 130
_WATCH_SECONDS = 0.5
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to show."""

    source: str = "cdnow"
    """A name of `SOURCES`."""
    seconds: float = 45.0
    """How long the feed takes; 0: as fast as possible."""
    kill: bool = False
    """Whether the worker is killed in the middle."""
    keep: bool = False
    """Whether everything goes on running until Ctrl-C."""


def run_demo(options: Options, console: Console | None = None, display: Display | None = None) -> int:
    """Run the demo and give the exit code: 0 when the check passed, 1 when not, 130 after Ctrl-C.

    Without `display`, it is shown as suits the console. Raises StreamsegError when it cannot be set up or does
    not come to an end. Whatever happens, no process and no file of it is left.
    """
    console = console or Console()
    console.print(_introduction(options), highlight=False)
    findings: list[Finding] = []
    try:
        with _interruptible(), ExitStack() as stack:
            try:
                _run(options, console, display or display_on(console), stack, findings)
            finally:
                _ignore_interrupts()
    except KeyboardInterrupt:
        console.print("\nStopped. Nothing is left running, and nothing is left behind.")
        if not findings:
            return _INTERRUPTED
    return 0 if all(finding.passed for finding in findings) else 1


def _introduction(options: Options) -> str:
    summary = SOURCES[options.source].summary
    pace = f"within {options.seconds:.0f} s" if options.seconds else "as fast as they go"
    kill = " In the middle the worker is killed with kill -9." if options.kill else ""
    return (
        f"[bold]streamseg demo[/]: feeds {summary} through Kafka to a real worker, {pace}, "
        f"shows how customers move between segments, and checks the result.{kill}\n"
    )


def _run(options: Options, console: Console, display: Display, stack: ExitStack, findings: list[Finding]) -> None:
    """Set up, play and tell; `stack` holds what is to be taken down."""
    performance = _set_up(options, console, display, stack)
    with display:
        findings += asyncio.run(performance.play())
    print_summary(console, performance.figures.state())
    _tell(console, findings)
    if not options.keep:
        console.print(_POINTER, highlight=False)
        return
    console.print(_directions(performance), highlight=False, soft_wrap=True)
    while True:
        performance.worker.keep_running()
        time.sleep(_WATCH_SECONDS)


def _set_up(options: Options, console: Console, display: Display, stack: ExitStack) -> Performance:
    source, definitions = SOURCES[options.source], load_definitions(DEFINITIONS.read_bytes(), str(DEFINITIONS))
    lines = _read(console, source)
    folder = stack.enter_context(demo_folder())
    stack.enter_context(_logging_to(folder / "demo.log"))
    reference = Reference(folder / "reference")
    # It takes a while: it runs beside all else, at low priority.
    arguments = (str(DEFINITIONS), options.source, str(reference.folder))
    replaying = child(folder, "reference", "streamseg.demo.reference", *arguments)
    stack.callback(replaying.kill)
    stage = _services(console, folder, stack)
    changes = Changes()
    return Performance(
        stage=stage,
        worker=_worker(console, stage, stack),
        definitions=definitions,
        lines=lines,
        reference=reference,
        replaying=replaying,
        figures=Figures(definitions, changes, source.title, moments_of(lines[:1])[0]),
        changes=changes,
        display=display,
        seconds=options.seconds,
        kill=options.kill,
    )


def _read(console: Console, source: Source) -> Sequence[Line]:
    with console.status("Reading the events …"):
        lines = list(source.lines())
    customers = len({customer for customer, _ in lines})
    _done(console, "events", f"{len(lines):,} of {customers:,} customers")
    return lines


def _services(console: Console, folder: Path, stack: ExitStack) -> Stage:
    with console.status("Starting Redis …"):
        redis = stack.enter_context(services.redis(folder / "redis"))
    _done(console, "Redis", without_password(redis))
    if not os.environ.get("STREAMSEG_KAFKA"):
        with console.status("Looking for Kafka's jars: the first time, Maven fetches 40 MB …"):
            ensure_jars(default_jars())
    with console.status("Starting Kafka …"):
        kafka = stack.enter_context(services.kafka(folder / "kafka"))
        stage = stack.enter_context(prepared(folder, kafka, redis))
    _done(console, "Kafka", kafka)
    return stage


def _worker(console: Console, stage: Stage, stack: ExitStack) -> Worker:
    with console.status("Starting the worker …"):
        worker = Worker(stage)
        stack.callback(worker.stop)
        worker.wait_until_ready()
    _done(console, "worker", f"http://{stage.http}")
    return worker


def _done(console: Console, what: str, where: str) -> None:
    console.print(f" [green]✓[/] {what:<8}{escape(where)}", highlight=False)


def _tell(console: Console, findings: Sequence[Finding]) -> None:
    """Print the check list."""
    passed = all(finding.passed for finding in findings)
    verdict = "[bold green]passed[/]" if passed else "[bold red]FAILED[/]"
    console.print(f"\n Check {verdict}", highlight=False)
    for finding in findings:
        mark = "[green]✓[/]" if finding.passed else "[red]✗ this does not hold:[/]"
        console.print(f" {mark} {escape(finding.claim)}", highlight=False, soft_wrap=True)
        for difference in shown_differences(finding):
            console.print(f"     {escape(difference)}", highlight=False, soft_wrap=True)


def _directions(performance: Performance) -> str:
    """How to look around, with this run's addresses."""
    stage, customer = performance.stage, performance.changes.latest()[0].customer
    prefix = "" if stage.names == Names() else f" --prefix {stage.names.prefix}"
    group = prefix and f" --group {stage.group}"
    return f"""
 [bold]Everything goes on running until Ctrl-C. In another terminal:[/]

   streamseg explain {customer} --definitions {DEFINITIONS} --kafka {stage.kafka}{group}{prefix}
   streamseg tail --from-beginning --kafka {stage.kafka}{prefix}
   redis-cli -u {stage.redis} HGETALL {stage.names.redis}customer:{customer}
   redis-cli -u {stage.redis} HGET {stage.names.redis}customer:{customer} value
   curl -s http://{stage.http}/metrics
"""


_POINTER = """
 [bold]streamseg demo --keep[/] leaves Kafka, Redis and the worker running, and prints
 the commands to ask them: streamseg explain and tail, redis-cli, /metrics.
 [bold]streamseg demo --kill[/] kills the worker in the middle: nothing is lost."""


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Keep what libraries log away from the picture."""
    handler = logging.FileHandler(path)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, in good order."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in _ENDING[1:]:
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore_interrupts() -> None:
    """What is being taken down is taken down to the end."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
