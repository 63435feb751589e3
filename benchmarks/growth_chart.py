"""Draws the growth of docs/benchmarks.md: python -m benchmarks.growth_chart FILE < figures.json.

Runs in the environment of the peers, for Matplotlib is nowhere else needed.
"""

from __future__ import annotations

import json
import sys

from benchmarks.chart import OURS, plt

TITLES = {"windows": "days of the windows", "events": "events a customer had"}


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
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.minorticks_off()
        panel.set_title(TITLES.get(name, name))
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    for row in panels:
        row[0].set_ylabel("µs of CPU an event")
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
