"""One job, given to streamseg and to others, on one input, on this machine.

    python -m benchmarks.comparison --events 2000000 --peers "kafka-streams-memory flink"

Figures are of one machine: take the ratios. Ends with 1 if anybody's segments are not those of a replay. The last
line is one JSON object: name to events_per_second, events_per_cpu_second, peak_mb.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks import report
from benchmarks.expected import Expected, expect, published
from benchmarks.figures import Cost, Figures, figures
from benchmarks.input import Input, load, make
from benchmarks.peer import DEFINITIONS, PEERS, Peer, Run
from benchmarks.processes import warn_if_busy
from benchmarks.watch import watching
from benchmarks.writer import create_topic, delete_topics
from streamseg import services
from streamseg.services.process import Process
from streamseg.services.service import free_port

ROOT = Path(__file__).parents[1]
ALONE = ("decode", "replay")
"""Measured without Kafka."""
FEW_EVENTS = 20_000
"""What a peer takes for so few is taken for what it takes to start."""
ALWAYS = ("decode", "floor", "replay", "streamseg")


@dataclass(slots=True)
class Bench:
    """The machine's services, the inputs and what they demand, and what was measured so far."""

    folder: Path
    kafka: str
    redis: str
    events: int
    seed: int
    inputs: dict[int, tuple[Input, Expected]] = field(default_factory=dict)
    found: dict[str, list[Figures]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def measure(self, name: str, number: int) -> None:
        """One run of one name."""
        if name == "decode":
            result = measure_decode(self._input(self.events)[0])
        elif name == "replay":
            result = measure_replay(self._input(self.events)[0], self.folder / "changes.jsonl")
        else:
            peer = PEERS[name]
            start, whole = (
                asyncio.run(self._measure_peer(peer, f"{name}-{given.events}-{number}", given, expected))
                for given, expected in (self._input(FEW_EVENTS), self._given(peer))
            )
            result = whole.beyond(start)
        self.found.setdefault(name, []).append(result)
        click.echo(report.line(name, result), err=True)

    def prepare(self, names: list[str]) -> None:
        """Builds and loads all that the names need, before anything is measured."""
        for peer in (PEERS[name] for name in names if name in PEERS):
            peer.needs()
            self._input(FEW_EVENTS)
            self._given(peer)

    def _input(self, events: int) -> tuple[Input, Expected]:
        """So many events, which stand in their topic, and what they demand."""
        if events not in self.inputs:
            given = make(self.folder / f"events-{events}.jsonl", events, self.seed)
            changes = self.folder / f"changes-{events}.jsonl"
            measure_replay(given, changes)
            asyncio.run(load(self.kafka, given))
            expected = expect(given, changes)
            self.inputs[events] = given, expected
            click.echo(
                f"{events:,} events of {len(expected.segments):,} customers, {expected.moves:,} changes seen at "
                f"events, {expected.moves_in_time:,} with those by time",
                err=True,
            )
        return self.inputs[events]

    def _given(self, peer: Peer) -> tuple[Input, Expected]:
        return self._input(min(self.events, peer.most or self.events))

    async def _measure_peer(self, peer: Peer, name: str, given: Input, expected: Expected) -> Cost:
        place = self.folder / name
        place.mkdir()
        run = Run(name, self.kafka, self.redis, given.topic, place, free_port())
        topic = peer.changes(run) if peer.changes else None
        if topic and not peer.ours:
            await create_topic(self.kafka, topic)
        process = Process(
            name, peer.command(run), place / "log", directory=ROOT, environment={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        try:
            async with watching(peer, run, given.events, process) as watch:
                cost = await watch.cost()
        finally:
            await asyncio.to_thread(process.stop)
        if topic:
            problem = expected.wrong(await published(self.kafka, topic), in_time=peer.ours)
            self.wrong += [f"{name}: {problem}"] if problem else []
        await delete_topics(self.kafka, name)
        return cost


def measure_decode(given: Input) -> Figures:
    """Decoding every line, in a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.peers.decode", str(given.path), str(given.events)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.split()
    seconds, cpu, peak = map(float, said)
    return figures(given.events, seconds, cpu, peak)


def measure_replay(given: Input, changes: Path) -> Figures:
    """`streamseg replay` as its users run it: start-up, reading and writing included."""
    command = [sys.executable, "-m", "streamseg", "replay", "--definitions", str(DEFINITIONS)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--changes", str(changes), str(given.path)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"streamseg replay ended with code {process.returncode}")
    return figures(given.events, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def chosen(peers: str) -> list[str]:
    """The names to run: ours and the floors, and the peers that were asked for."""
    asked = list(PEERS) if peers == "all" else peers.split()
    if unknown := set(asked) - PEERS.keys() - set(ALONE):
        raise click.UsageError(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}, or all")
    return list(dict.fromkeys([*ALWAYS, *asked]))


@click.command()
@click.option(
    "--events",
    type=click.IntRange(min=2 * FEW_EVENTS),
    default=1_000_000,
    show_default=True,
    help="JVMs want two million.",
)
@click.option("--seed", default=7, show_default=True)
@click.option("--peers", default="", help="Names of peers, or all; without it only ours and the floors.")
@click.option("--repeat", default=1, show_default=True, help="Rounds, each of all names.")
@click.option("--report", "reported", is_flag=True, help="Write table and chart into docs; wants all peers.")
def main(events: int, seed: int, peers: str, repeat: int, reported: bool) -> None:
    """Measure, print a table, and the figures as JSON."""
    names = chosen(peers)
    if reported and not set(names) >= PEERS.keys():
        raise click.UsageError("--report needs --peers all: a part of a run does not replace the whole")
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    warn_if_busy()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        kafka = stack.enter_context(services.kafka(folder / "kafka"))
        redis = stack.enter_context(services.redis(folder / "redis"))
        bench = Bench(folder, kafka, redis, events, seed)
        bench.prepare(names)
        for number in range(1, repeat + 1):
            for each in names:
                bench.measure(each, number)
    click.echo(report.table(bench.found))
    if bench.wrong:
        raise SystemExit("\n".join(bench.wrong))
    if reported:
        report.write(bench.found, events, repeat)
    click.echo(report.as_json(bench.found))


if __name__ == "__main__":
    main()
