"""Draws the growth of docs/benchmarks.md: python -m benchmarks.growth_chart FILE < figures.json.

Runs in the environment of the peers, for Matplotlib is nowhere else needed.
"""

from __future__ import annotations

import json
import sys

from benchmarks.chart import OURS, plt

TITLES = {
    "customers": "customers, all events wait",
    "steady": "customers, steady rate",
    "segments": "segments, steady",
    "windows": "days of windows, steady",
    "events": "events a customer had",
}
ROOM = 1.1
"""Above the highest point."""


def short(value: int) -> str:
    """10000 as 10k."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return str(value)


def main() -> None:
    """A panel for each series; all have one scale, from zero."""
    found = json.load(sys.stdin)
    figure, panels = plt.subplots(
        2, -(-len(found) // 2), figsize=(10, 5), sharey=True, squeeze=False, layout="constrained"
    )
    for panel, (name, points) in zip(panels.flat, found.items(), strict=False):
        values, costs = [point["at"] for point in points], [point["microseconds"] for point in points]
        panel.plot(values, costs, "o-", color=OURS)
        panel.set_xscale("log")
        panel.set_xticks(values, [short(value) for value in values])
        panel.minorticks_off()
        panel.set_title(TITLES.get(name, name))
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels.flat[len(found) :]:
        panel.set_axis_off()
    panels[0][0].set_ylim(0, ROOM * max(point["microseconds"] for points in found.values() for point in points))
    for row in panels:
        row[0].set_ylabel("µs of CPU an event")
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
