"""T10, T11, T13 to T15, T19, T20: topics, records and clocks that are not as they should be."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from aiokafka import AIOKafkaProducer

from streamseg.core.units import DAY
from streamseg.formats.state import CHECKPOINT_KEY
from streamseg.services import LocalKafka
from streamseg.shop import Shop
from tests.chaos.feed import Feed
from tests.chaos.stage import Grounds, Row, Stage
from tests.worker.running_worker import RunningWorker, Site

Line = tuple[str, bytes]


def t10(grounds: Grounds) -> Row:
    """A fifth of the records is no event, and some come in bursts."""
    row = Row("T10", "20 % poison, with bursts; a kill amid them")
    burst = grounds.times(10_000, 500)
    with grounds.stage(row) as stage:
        stage.start(1)
        poisoned = _poisoned(stage.dice, burst)
        stage.feed = Feed(stage.outside, poisoned, 3_000)
        row.load = "3,000/s"
        for _ in range(grounds.times(3, 1)):
            stage.pause_between(3.0, 6.0)
            stage.kill(0)
        stage.pause_between(*[grounds.times(20, 1)] * 2)
        stage.finish()
    row.notes["dead letters"] = sum(stage.site.ends(stage.site.own("dead-letters")).values())
    return row


def _poisoned(dice: random.Random, burst: int) -> Iterator[Line]:
    shop = Shop(seed=dice.randrange(1 << 30), customers=3_000, events=2_000_000, malformed_ratio=0.15).lines()
    while some := list(islice(shop, burst * 15)):
        yield from some
        yield from ((f"p-{number % 97}", b'{"type":"purchase","burst":%d' % number) for number in range(burst))


def t11(grounds: Grounds) -> Row:
    """Read everything again from offset zero: no new change comes of it."""
    row = Row("T11", "full replay from offset zero")
    with grounds.stage(row) as stage:
        stage.start(1)
        events = grounds.times(100_000, 5_000)
        stage.load(20_000, events=events)
        stage.wait(lambda: stage.feed is not None and stage.feed.ended and stage.outside.done(), "all is done")
        [worker] = stage.workers
        if code := worker.stop():
            row.wrong.append(f"ended with {code}")
        unique = len(stage.site.published())
        asyncio.run(_forget_checkpoints(stage.site))
        stage.workers.clear()
        stage.start(1)
        row.kills = 1
        stage.wait(
            lambda: stage.workers[0].total("streamseg_events_total") >= events, "all is read again", patience=300.0
        )
        again = stage.workers[0].total("streamseg_events_total", result="applied")
        stage.finish()
    row.notes |= {"applied again": int(again), "changes before": unique}
    if again:
        row.wrong.append(f"{again:.0f} events were applied a second time")
    return row


async def _forget_checkpoints(site: Site) -> None:
    """Delete where to read on, as an operator does who wants everything read again."""
    async with AIOKafkaProducer(bootstrap_servers=site.kafka) as producer:
        for partition in range(site.partitions):
            await producer.send_and_wait(site.changelog, None, CHECKPOINT_KEY, partition)


def t13(grounds: Grounds) -> Row:
    """Compact the changelog as eagerly as a broker can, and recover from what is left."""
    row = Row("T13", "forced compaction, then kill -9")
    eager = {"log.cleaner.backoff.ms": "300", "log.roll.ms": "1000"}
    directory = grounds.directory / "T13" / "kafka"
    with LocalKafka(directory, settings=eager) as kafka, grounds.stage(row, kafka.bootstrap) as stage:
        stage.start(1)
        stage.site.configure(
            stage.site.changelog, cleanup_policy="compact", segment_ms="1000", min_cleanable_dirty_ratio="0.01",
            min_compaction_lag_ms="0", delete_retention_ms="100", max_message_bytes=str(4 << 20),
        )  # fmt: skip
        stage.load(3_000, customers=2_000)
        for _ in range(grounds.times(4, 1)):
            stage.wait(lambda: _compacted(stage) > 0.3, "a third of the records is compacted away")
            stage.kill(0)
        row.notes["compacted away"] = f"{_compacted(stage):.0%}"
        stage.finish()
    return row


def _compacted(stage: Stage) -> float:
    """The share of the changelog's offsets that hold no record any more."""
    time.sleep(0.5)
    ends = sum(stage.site.ends(stage.site.changelog).values())
    return 1 - len(stage.site.read(stage.site.changelog)) / ends if ends > 2_000 else 0.0


def t14(grounds: Grounds) -> Row:
    """Let the broker refuse the state: the worker ends, and nothing is committed past it."""
    row = Row("T14", "changelog refused (max.message.bytes)")
    with grounds.stage(row) as stage:
        stage.start(1)
        stage.load(1_000)
        stage.pause_between(2.0, 3.0)
        [worker] = stage.workers
        stage.workers.clear()
        stage.site.configure(stage.site.changelog, cleanup_policy="compact", max_message_bytes="1")
        began = time.monotonic()
        code = worker.end()
        row.kills = 1
        row.notes |= {"exit code": code, "s to exit": time.monotonic() - began}
        if code in (0, 1):
            row.wrong.append(f"ended with {code}: {worker.log_tail(3)}")
        stage.site.configure(stage.site.changelog, cleanup_policy="compact", max_message_bytes=str(4 << 20))
        stage.start(1)
        stage.finish()
    return row


def t15(grounds: Grounds) -> Row:
    """Everything comes twice, and out of order within some seconds."""
    row = Row("T15", "input doubled and shuffled, kill -9 amid it")
    with grounds.stage(row) as stage:
        stage.start(1)
        shop = Shop(seed=stage.dice.randrange(1 << 30), customers=2_000, events=60_000, span_ms=60 * DAY)
        stage.feed = Feed(stage.outside, _twice_and_shuffled(shop.lines(), stage.dice), 4_000)
        row.load = "4,000/s"
        for _ in range(grounds.times(2, 1)):
            stage.pause_between(2.0, 4.0)
            stage.kill(0)
        stage.pause_between(*[grounds.times(8, 1)] * 2)
        stage.finish()
    return row


def _twice_and_shuffled(lines: Iterator[Line], dice: random.Random) -> Iterator[Line]:
    while some := list(islice(lines, 5_000)):
        both = list(chain(some, some))
        dice.shuffle(both)
        yield from both


def t19(grounds: Grounds) -> Row:
    """Topics that are not what they must be: the worker refuses to start, with one line."""
    row = Row("T19", "wrong topics: refuses to start")
    with grounds.stage(row) as stage:
        site = stage.site
        wrong = [_wrong(site, name) for name in ("missing", "policy", "partitions", "changes", "uneven")]
        for each, expected in wrong:
            worker = RunningWorker(each)
            code, said = worker.end(), worker.log.read_text().strip()
            row.kills += 1
            if code != 1 or expected not in said or len(said.splitlines()) != 1:
                row.wrong.append(f"{each.prefix}: code {code}, said {said!r}, wanted {expected!r}")
    return row


def _wrong(site: Site, what: str) -> tuple[Site, str]:
    """An installation with one thing wrong, and what must be said of it."""
    other = replace(site, prefix=f"{site.prefix}-{what}")
    if what == "missing":
        return other, "does not exist"
    other.create()
    if what == "policy":
        other.create_topic(other.changelog, other.partitions, {"cleanup.policy": "delete"})
        return other, "cleanup.policy=delete; it must be compact"
    if what == "partitions":
        other.create_topic(other.changelog, other.partitions + 1, {"cleanup.policy": "compact"})
        return other, "has 5 partitions and the event topics have 4"
    if what == "changes":
        other.create_topic(other.own("segment-changes"), other.partitions, {"cleanup.policy": "compact"})
        return other, "cleanup.policy=compact; it must be delete"
    second = f"{other.prefix}-second"
    other.create_topic(second, other.partitions + 1)
    return replace(other, topics=(*other.events, second)), "must have the same number of partitions"


def t20(grounds: Grounds) -> Row:
    """The worker's clock jumps a day ahead and an hour back: with the stream's clock nothing changes."""
    row = Row("T20", "the worker's clock jumps +1 day, −1 h; kill -9")
    with grounds.stage(row) as stage:
        clock = Path(stage.site.directory / "clock")
        clock.write_text("0")
        stage.options = {"module": "tests.chaos.shifted_worker", "environment": {"CHAOS_CLOCK": str(clock)}}
        stage.start(1)
        stage.load(1_500)
        for jump in (86_400, -3_600, 0)[: grounds.times(3, 1)]:
            stage.pause_between(1.0, 2.0)
            clock.write_text(str(jump))
            stage.pause_between(1.0, 2.0)
            stage.kill(0)
        stage.finish()
    return row
