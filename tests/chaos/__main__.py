"""`make chaos`: every fault in turn, a table, and one JSON object as the last line.

python -m tests.chaos --only "T1 T6" --seed 7
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import click
from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from streamseg import services
from streamseg.core.errors import StreamsegError
from tests.chaos import deaths, faults, inputs
from tests.chaos.stage import Grounds, Row

ROWS = {
    "T1": deaths.t1, "T2": deaths.t2, "T2b": deaths.t2b, "T3": deaths.t3, "T4": deaths.t4, "T5": faults.t5,
    "T6": faults.t6, "T7": deaths.t7, "T8": faults.t8, "T8b": faults.t8b, "T9": deaths.t9, "T10": inputs.t10,
    "T11": inputs.t11, "T13": inputs.t13, "T14": inputs.t14, "T15": inputs.t15, "T18": faults.t18, "T19": inputs.t19,
    "T20": inputs.t20,
}  # fmt: skip
REPORT = Path(__file__).parents[2] / "docs" / "chaos.md"
BEGIN, END = "<!-- table -->", "<!-- /table -->"


@click.command()
@click.option("--only", default="", help="Names of rows; all without it.")
@click.option("--seed", default=1, show_default=True)
@click.option("--short", is_flag=True, help="A few times each.")
@click.option("--report", is_flag=True, help="Write the table into docs/chaos.md.")
@click.option("--directory", type=click.Path(path_type=Path), default=None, help="Where logs are kept.")
def main(only: str, seed: int, short: bool, report: bool, directory: Path | None) -> None:
    """Run rows, print a table, and end with 1 if one did not hold."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers are away on purpose
    names = only.split() or list(ROWS)
    if unknown := set(names) - ROWS.keys():
        raise click.UsageError(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    place = directory or Path(tempfile.mkdtemp(prefix="streamseg-chaos-"))
    click.echo(f"seed {seed}, logs in {place}")
    rows = []
    with services.kafka(place / "kafka") as kafka, services.redis(place / "redis") as redis_url:
        grounds = Grounds(kafka, redis_url, place, seed, short)
        for name in names:
            row = run(name, grounds)
            rows.append(row)
            click.echo(f"{line(row)} {row.seconds:.0f} s")
            for wrong in [*row.verdict.examples, *row.wrong]:
                click.echo(f"    {wrong[:2000]}")
    if report:
        write_report(rows, seed)
    click.echo(json.dumps({row.name: figures(row) for row in rows}))
    sys.exit(0 if all(row.passed for row in rows) else 1)


def run(name: str, grounds: Grounds) -> Row:
    """A row, wrong if it did not come to its end: those after it are run all the same."""
    began = time.monotonic()
    try:
        row = ROWS[name](grounds)
    except (AssertionError, StreamsegError, KafkaError, RedisError, OSError, SubprocessError) as error:
        row = Row(name, (ROWS[name].__doc__ or "").rstrip("."), wrong=[f"{type(error).__name__}: {error}"])
    row.seconds = time.monotonic() - began
    return row


def figures(row: Row) -> dict[str, Any]:
    """The row as numbers."""
    judged = row.verdict
    return {
        "kills": row.kills,
        "lost": judged.lost,
        "doubled": judged.doubled,
        "torn": judged.torn,
        "recovery_p95_s": percentile(row.recoveries, 0.95),
        "seconds": round(row.seconds),
        "right": row.passed,
    }


def percentile(values: list[float], share: float) -> float | None:
    """The smallest value that at least this share of them does not exceed; None of none."""
    ordered = sorted(values)
    return round(ordered[max(0, -int(-share * len(ordered) // 1) - 1)], 2) if ordered else None


HEAD = """\
| test | fault | load | events | faults | lost | doubled | torn | sent again | recovery p50 / p95 / max, s | |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def line(row: Row) -> str:
    """The row of the table."""
    judged, times = row.verdict, row.recoveries
    recovery = f"{statistics.median(times):.1f} / {percentile(times, 0.95):.1f} / {max(times):.1f}" if times else ""
    notes = "; ".join(f"{name}: {value:,.4g}" if isinstance(value, float) else f"{name}: {value}"
                      for name, value in row.notes.items() if name != "events")  # fmt: skip
    cells = (
        row.name, row.fault, row.load, f"{judged.events:,}", row.kills, judged.lost, judged.doubled, judged.torn,
        f"{judged.repeats:,}", recovery, f"{'right' if row.passed else '**WRONG**'}{f' ({notes})' if notes else ''}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def write_report(rows: list[Row], seed: int) -> None:
    """Put the table into the document."""
    text = REPORT.read_text()
    table = f"{BEGIN}\nSeed {seed}.\n\n{HEAD}" + "".join(line(row) + "\n" for row in rows) + END
    before, _, rest = text.partition(BEGIN)
    REPORT.write_text(before + table + rest.partition(END)[2])


if __name__ == "__main__":
    main()
