"""Figures as a table, as JSON, and in docs/benchmarks.md with a chart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence

from benchmarks import document
from benchmarks.document import ROOT
from benchmarks.figures import Figures, Ratio, middle, ratio
from benchmarks.peer import PEERS
from benchmarks.programs import peers_python

CHART = ROOT / "docs" / "images" / "benchmarks.svg"
TITLES = {
    "decode": "decoding the JSON in a file, nothing else",
    "replay": "**streamseg replay**, from a file, on all cores, start-up included",
    **{name: peer.title for name, peer in PEERS.items()},
}
Found = Mapping[str, Sequence[Figures]]


def line(name: str, run: Figures) -> str:
    """One run, for whoever waits."""
    return f"{name:30}{run.events_per_second:>12,.0f}{run.events_per_cpu_second:>12,.0f}{run.peak_mb:>10,.0f}"


def table(found: Found) -> str:
    """All names, for a terminal."""
    rows = [f"{'':30}{'events/s':>12}{'per CPU-s':>12}{'peak MB':>10}  {'x ours':<18}{'x ours per CPU-s'}"]
    for name, runs in found.items():
        wall, cpu = _ratios(found, name)
        figures = middle(runs)
        rows.append(
            f"{name:30}{figures['events_per_second']:>12,}{figures['events_per_cpu_second']:>12,}"
            f"{figures['peak_mb']:>10,}  {_spread(wall):<18}{_spread(cpu)}"
        )
    return "\n".join(rows)


def as_json(found: Found) -> str:
    """All names in one line: medians."""
    return json.dumps({name: middle(runs) for name, runs in found.items()})


def write(found: Found, events: int, rounds: int) -> None:
    """Puts table and chart into the documentation."""
    document.replace("table", _markdown(found, events, rounds))
    subprocess.run(
        [str(peers_python()), "-m", "benchmarks.chart", str(CHART)],
        check=True,
        cwd=ROOT,
        input=as_json(found),
        text=True,
    )


def _markdown(found: Found, events: int, rounds: int) -> str:
    about = (
        f"{events:,} events, {rounds} round{'s' * (rounds > 1)}, {document.machine()}. "
        "Medians; in brackets the least and the greatest of the rounds."
    )
    rows = [
        about,
        "",
        "| | events/s | per CPU-second | peak MB | times ours | times ours, per CPU-second |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in found.items():
        wall, cpu = _ratios(found, name)
        figures = middle(runs)
        rows.append(
            f"| {TITLES[name]} (`{name}`) | {figures['events_per_second']:,} | {figures['events_per_cpu_second']:,} "
            f"| {figures['peak_mb']:,} | {_spread(wall)} | {_spread(cpu)} |"
        )
    return "\n".join(rows) + "\n"


def _ratios(found: Found, name: str) -> tuple[Ratio, Ratio]:
    ours, theirs = found["streamseg"], found[name]
    return (
        ratio([run.events_per_second for run in ours], [run.events_per_second for run in theirs]),
        ratio([run.events_per_cpu_second for run in ours], [run.events_per_cpu_second for run in theirs]),
    )


def _spread(found: Ratio) -> str:
    if found.least == found.greatest:
        return f"{found.middle:.2f}"
    return f"{found.middle:.2f} ({found.least:.2f}–{found.greatest:.2f})"
