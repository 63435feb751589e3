"""Draws the chart of docs/benchmarks.md: python -m benchmarks.chart FILE < figures.json.

Runs in the environment of the peers, for Matplotlib is nowhere else needed.
"""

from __future__ import annotations

import json
import sys

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "streamseg"
mpl.rcParams["svg.fonttype"] = "none"
from matplotlib import pyplot as plt  # noqa: E402 - after the choice of what draws

__all__ = ["OURS", "plt"]

OURS, FLOOR, THEIRS = "#1f77b4", "#d9d9d9", "#9ecae1"
LEFT_OUT = ("decode", "replay")
"""Without Kafka: not comparable."""


def colour(name: str) -> str:
    """Ours stands out, the floor stands back."""
    return {"streamseg": OURS, "floor": FLOOR}.get(name, THEIRS)


def main() -> None:
    """Two panels: by the clock and by the CPU."""
    found = {name: figures for name, figures in json.load(sys.stdin).items() if name not in LEFT_OUT}
    names = sorted(found, key=lambda name: found[name]["events_per_second"])
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.4 * len(names) + 1), sharey=True, layout="constrained")
    for panel, (key, title) in zip(
        panels, (("events_per_second", "events/s"), ("events_per_cpu_second", "events per CPU-second")), strict=True
    ):
        bars = panel.barh(names, [found[name][key] for name in names], color=[colour(name) for name in names])
        panel.bar_label(bars, fmt="{:,.0f}", padding=3)
        panel.set_title(title)
        panel.margins(x=0.2)
        panel.xaxis.set_visible(False)
        panel.spines[["top", "right", "bottom"]].set_visible(False)
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
