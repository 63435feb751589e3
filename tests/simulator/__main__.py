"""`make simulate`: stories by the thousand, and whether protocols without a step are found out.

    python -m tests.simulator --seeds 10000
    python -m tests.simulator --seed 4711
    python -m tests.simulator --broken all --report

The last line is one JSON object. Exit code 1 if something was not as it must be.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

from tests.simulator.broken import BY_NAME, MUTATIONS, Broken
from tests.simulator.story import Told, tell

REPORT = Path(__file__).parents[2] / "docs" / "chaos.md"
BEGIN, END = "<!-- broken -->", "<!-- /broken -->"
MEMORY_BYTES = 4 << 30
"""Of a process: a story without an end shall not take the machine with it."""
CAUGHT_WITHIN = 2_000
TOLD_FAILURES = 20
Verdict = tuple[str, int, str]
"""The name of a mutation, the seed at which it was found out (0 if it was not), and how."""


@click.command()
@click.option("--seeds", default=10_000, show_default=True, help="How many stories.")
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--seed", type=int, default=None, help="One story, with its trace.")
@click.option("--broken", default="", help="Names of protocols without a step, or all.")
@click.option("--within", default=CAUGHT_WITHIN, show_default=True, help="In how many stories, at most.")
@click.option("--report", is_flag=True, help="Write where they were found out into docs/chaos.md.")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True)
def main(seeds: int, first: int, seed: int | None, broken: str, within: int, report: bool, processes: int) -> None:
    """Simulate workers, Kafka and Redis, with faults between any two steps."""
    names = list(BY_NAME) if broken == "all" else broken.split()
    if unknown := set(names) - BY_NAME.keys():
        raise click.UsageError(f"no such protocol: {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}")
    began = time.monotonic()
    if seed is not None:
        figures = _one(seed, names)
    elif names:
        figures = _broken(names, first, within, processes)
        if report:
            write_report(figures["caught"])
    else:
        figures = _all(range(first, first + seeds), processes)
    click.echo(json.dumps({**figures, "seconds": round(time.monotonic() - began, 1)}))
    sys.exit(1 if figures["failures"] else 0)


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _one(seed: int, names: list[str]) -> dict[str, Any]:
    _limit_memory()
    with BY_NAME[names[0]].applied() if names else nullcontext():
        told = tell(seed, traced=True)
    click.echo("\n".join([*told.trace, told.wrong or "all is as it must be"]))
    return _figures([told])


def _all(seeds: Iterable[int], processes: int) -> dict[str, Any]:
    with multiprocessing.Pool(processes, _limit_memory) as pool:
        return _figures(_shown(pool.imap_unordered(tell, seeds, chunksize=20)))


def _shown(stories: Iterable[Told]) -> Iterator[Told]:
    failures = 0
    for told in stories:
        yield told
        if told.wrong:
            failures += 1
            if failures == 1:
                click.echo("\n".join(tell(told.seed, traced=True).trace))
            if failures <= TOLD_FAILURES:
                click.echo(f"seed {told.seed}: {told.wrong}\n    again, with its trace: make simulate SEED={told.seed}")


def _figures(stories: Iterable[Told]) -> dict[str, Any]:
    count, steps, failures = 0, 0, list[int]()
    injected, seen = Counter[str](), Counter[str]()
    for told in stories:
        count += 1
        steps += told.steps
        injected += told.injected
        seen += told.seen
        if told.wrong:
            failures.append(told.seed)
    return {
        "seeds": count,
        "failures": len(failures),
        "failed": sorted(failures)[:TOLD_FAILURES],
        "faults": dict(injected.most_common()),
        "seen": dict(seen.most_common()),
        "steps": steps,
    }


def _broken(names: list[str], first: int, within: int, processes: int) -> dict[str, Any]:
    caught: dict[str, int] = {}
    missed: list[str] = []
    with multiprocessing.Pool(processes, _limit_memory) as pool:
        for name, seed, how in pool.imap_unordered(partial(find_out, first=first, within=within), names):
            click.echo(f"{name}: {f'seed {seed}, {how[:200]}' if seed else f'not found out by {within} stories'}")
            if seed:
                caught[name] = seed
            else:
                missed.append(name)
    failures = sum(not BY_NAME[name].covered for name in missed)
    return {"broken": len(names), "failures": failures, "missed": missed, "caught": caught}


def write_report(caught: dict[str, int]) -> None:
    """Write the table of mutations into docs/chaos.md."""
    lines = ["| left out | so that | found out by story |", "|---|---|---|"]
    lines += [f"| `{each.name}` | {each.what} | {_found_out(each, caught)} |" for each in MUTATIONS]
    before, _, rest = REPORT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    REPORT.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]))


def _found_out(broken: Broken, caught: dict[str, int]) -> str:
    return str(caught.get(broken.name, f"none: {broken.covered}" if broken.covered else "none"))


def find_out(name: str, first: int = 1, within: int = CAUGHT_WITHIN) -> Verdict:
    """Tell stories of a protocol without a step until one of them goes wrong."""
    with BY_NAME[name].applied():
        for seed in range(first, first + within):
            if wrong := tell(seed).wrong:
                return name, seed, wrong
    return name, 0, ""


if __name__ == "__main__":
    main()
