"""`make soak`: steady load for as long as one likes, deaths now and then, and what it does to memory, files and lag.

python -m tests.chaos.soak --minutes 30

Of two workers one is killed every few minutes (every third time it is stopped in good order), the other never: its
memory is what is measured. Whatever its state may grow by is full when the warm-up ends: the customers are always
the same, a year of theirs goes by, which is the longest window, and each has sent more events than the ids that are
remembered.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, linear_regression, median

import click

from streamseg import services
from streamseg.core.units import DAY, format_instant
from tests.chaos.feed import Feed
from tests.chaos.stage import Grounds, Row, Stage, partitions_of
from tests.worker.running_worker import RunningWorker

FULL = 0.25
"""The part of the run after which customers' states have all they will ever have."""
WARM_UP = 0.5
"""The part of the run after which memory is measured. Until then deaths come fast, so that it has been through most of
what can come of them: a heap grows to what it once had to hold."""
EVENTS_EACH = 320
"""Events of each customer until states are full: 256 ids are remembered."""
PURCHASES = 0.2
SILENT_DAYS = 75
"""Every customer is silent for a quarter of the time, this many days on end: so that time has something to do."""
FAULTS = 40
"""Deaths and restarts in as long as a run is, in its measured part, but for the time they take."""
LONGEST_PEACE = 300.0
EARLY_FAULTS = 40
"""Deaths and restarts in the warm-up."""
COMPACTED_AFTER_MS = 120_000
"""In place of an hour: so that the changelog has come to its length when the warm-up ends, and take-overs to theirs."""
SAMPLE_SECONDS = 2.0
REST_SECONDS = 60.0
"""Within so long there are moments at which a worker holds only what it keeps: memory is given back every 15 s."""
SLOPE_LIMIT = 1.0
"""Per cent an hour."""
JUDGED_MINUTES = 20.0
"""A shorter run tells the slope, but is not judged by it: noise is larger."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a worker process takes at an instant."""

    at: float
    memory: float
    """Its own, in MB: not the programs mapped from files, of which each rare case touches more."""
    resident: float
    """With them."""
    files: int
    threads: int
    lag: float
    """Records not read yet."""


@dataclass(slots=True)
class Figures:
    """What a run came to; the last line of the output."""

    minutes: float
    events: int = 0
    kills: int = 0
    restarts: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    memory_mb: dict[str, float] = field(default_factory=dict)
    slope_percent_an_hour: float = 0.0
    files: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    largest_lag: dict[str, float] = field(default_factory=dict)
    recovery_max_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Sampler:
    """Looks at the workers of a stage every few seconds, in a thread of its own."""

    def __init__(self, stage: Stage) -> None:
        self.samples: dict[int, list[Sample]] = {}
        """By process."""
        self._stage = stage
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            for worker in list(self._stage.workers):
                sample = look(worker)
                if sample is not None:
                    self.samples.setdefault(worker.process.pid, []).append(sample)


def look(worker: RunningWorker) -> Sample | None:
    """A sample of a worker; None if it is dead or not ready."""
    place = Path(f"/proc/{worker.process.pid}")
    try:
        lag = worker.total("streamseg_consumer_lag_records") if worker.ready else None
        status, mapped = _told(place / "status"), _told(place / "smaps_rollup")
        files = len(list((place / "fd").iterdir()))
        if lag is None:
            return None
        memory, resident = (int(mapped[name].split()[0]) / 1024 for name in ("Anonymous", "Rss"))
        return Sample(time.monotonic(), memory, resident, files, int(status["Threads"]), lag)
    except (OSError, KeyError):  # it has died meanwhile
        return None


def _told(file: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)


def lines(dice: random.Random, customers: int, step_ms: float) -> Iterator[tuple[str, bytes]]:
    """The events of always the same customers, for ever; one every so many milliseconds of their time."""
    at, number = 1_767_225_600_000.0, 0
    while True:
        who = dice.randrange(customers)
        at += step_ms
        if (at / DAY / SILENT_DAYS + who) % 4 < 1:
            continue
        number += 1
        event = {"id": f"e{number}", "type": "page_view", "customer_id": f"c{who}", "time": format_instant(int(at))}
        if dice.random() < PURCHASES:
            event |= {"type": "purchase", "order_id": f"o{number}", "amount": f"{dice.randrange(500, 9000) / 100:.2f}"}
        yield f"c{who}", json.dumps(event).encode()


def slope(samples: Sequence[Sample]) -> float:
    """The growth of memory: a straight line through the least of each minute (least squares), in per cent an hour.

    What is taken for moments is no growth; through medians, its noise alone comes to 2 % in half an hour.
    """
    spans: defaultdict[int, list[float]] = defaultdict(list)
    for sample in samples:
        spans[int(sample.at / REST_SECONDS)].append(sample.memory)
    least = [min(span) for span in spans.values()]
    if len(least) < 2:
        return 0.0
    line = linear_regression([span * REST_SECONDS for span in spans], least)
    return line.slope * 3600 / fmean(least) * 100


def fault(stage: Stage, number: int, figures: Figures) -> None:
    """Kill the second worker, or stop it in good order, and start another."""
    stage.wait(lambda: all(partitions_of(worker) for worker in stage.workers), "both have a share")
    if number % 3 == 2:
        victim = stage.workers.pop(1)
        held, began = partitions_of(victim), time.monotonic()
        if code := victim.stop():
            figures.wrong.append(f"a stopped worker ended with code {code}: {victim.log_tail(3)}")
        stage.start(1)
        stage.recover(held, began)
        figures.restarts += 1
    else:
        stage.kill(1)
        figures.kills += 1


def soak(grounds: Grounds, minutes: float, rate: float) -> tuple[Figures, Sequence[Sample]]:
    """Run it; gives the samples of the worker that nobody kills, too."""
    figures, row = Figures(minutes), Row("soak", "")
    seconds = minutes * 60
    warm, full = seconds * WARM_UP, seconds * FULL
    customers = max(10, int(rate * full / EVENTS_EACH))
    with grounds.stage(row) as stage:
        stage.start(2)
        stage.site.configure(
            stage.site.changelog, cleanup_policy="compact", segment_ms="30000", min_cleanable_dirty_ratio="0.1",
            min_compaction_lag_ms=str(COMPACTED_AFTER_MS), max_message_bytes=str(4 << 20),
            message_timestamp_type="LogAppendTime",
        )  # fmt: skip
        steady = stage.workers[0].process.pid
        began = time.monotonic()
        made = lines(
            stage.dice, customers, step_ms=366 * DAY / (rate * full) * 0.75
        )  # a quarter of the draws is silent
        stage.feed = Feed(stage.outside, made, rate)
        sampler = Sampler(stage)
        number = 0
        while (left := began + seconds - time.monotonic()) > 0:
            warming = seconds - left < warm
            peace = min(LONGEST_PEACE, warm / EARLY_FAULTS if warming else seconds / FAULTS)
            stage.pause_between(*[min(peace, left)] * 2)
            if left > peace:
                fault(stage, number, figures)
                number += 1
                tell(sampler.samples[steady], began)
        sampler.stop()
        stage.finish()
        if stage.workers[0].process.pid != steady:
            figures.wrong.append("the worker that nobody kills has ended by itself")
    figures.wrong += [*row.wrong, *row.verdict.examples]
    samples = sampler.samples.pop(steady)
    conclude(figures, row, samples, sampler.samples, began + warm)
    return figures, samples


def tell(samples: Sequence[Sample], began: float) -> None:
    last = samples[-1]
    click.echo(
        f"{(last.at - began) / 60:5.1f} min: {last.memory:.1f} MB, {last.files} files, {last.threads} threads, "
        f"lag {last.lag:.0f}"
    )


def conclude(
    figures: Figures, row: Row, steady: Sequence[Sample], others: dict[int, list[Sample]], warm: float
) -> None:
    """Put the figures together; what does not hold is among `wrong`."""
    judged, measured = row.verdict, [sample for sample in steady if sample.at >= warm]
    figures.events, figures.lost, figures.doubled, figures.torn = (
        judged.events, judged.lost, judged.doubled, judged.torn,
    )  # fmt: skip
    tenth = max(1, len(measured) // 10)
    figures.memory_mb = {
        "first": round(median(sample.memory for sample in measured[:tenth]), 1),
        "last": round(median(sample.memory for sample in measured[-tenth:]), 1),
        "largest of all workers, resident": round(
            max(s.resident for each in (steady, *others.values()) for s in each), 1
        ),
    }
    figures.slope_percent_an_hour = round(slope(measured), 2)
    figures.files = _ends([sample.files for sample in measured])
    figures.threads = _ends([sample.threads for sample in measured])
    figures.largest_lag = {
        "steady": max(sample.lag for sample in steady),
        "killed": max((sample.lag for each in others.values() for sample in each), default=0.0),
    }
    figures.recovery_max_s = round(max(row.recoveries), 1)
    if figures.minutes >= JUDGED_MINUTES and figures.slope_percent_an_hour >= SLOPE_LIMIT:
        figures.wrong.append(f"memory grows by {figures.slope_percent_an_hour} % an hour")
    if not judged.right:
        figures.wrong.append("the end is not right")


def _ends(values: Sequence[int]) -> dict[str, int]:
    return {"first": values[0], "last": values[-1], "most": max(values)}


@click.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--rate", default=300.0, show_default=True, help="Events a second.")
@click.option("--seed", default=1, show_default=True)
@click.option("--directory", type=click.Path(path_type=Path), default=None, help="Where logs are kept.")
def main(minutes: float, rate: float, seed: int, directory: Path | None) -> None:
    """Run it, and end with 1 if something did not hold."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    place = directory or Path(tempfile.mkdtemp(prefix="streamseg-soak-"))
    click.echo(f"seed {seed}, {minutes:g} minutes, logs in {place}")
    with services.kafka(place / "kafka") as kafka, services.redis(place / "redis") as redis_url:
        figures, steady = soak(Grounds(kafka, redis_url, place, seed, short=False), minutes, rate)
    with (place / "memory.csv").open("w") as file:
        file.writelines(f"{sample.at:.1f},{sample.memory:.3f},{sample.resident:.3f}\n" for sample in steady)
    click.echo(json.dumps(asdict(figures)))
    sys.exit(1 if figures.wrong else 0)


if __name__ == "__main__":
    main()
