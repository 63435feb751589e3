"""A topic that holds little but rejected events stops the worker, at the same event however often it is started."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamseg.formats import state as records
from streamseg.formats.state import Checkpoint, Rejections
from streamseg.worker.tolerance import SLICE, WINDOW, Tally, Tolerance
from tests.worker.running_worker import RunningWorker, Sent, Site

GOOD, BAD = True, False
Feed = list[bool]


def stops_at(tally: Tally, feed: Feed) -> int | None:
    """Which event is one too many; None if none is."""
    for number, good in enumerate(feed):
        if good:
            tally.accept()
        elif not tally.reject("missing_field"):
            return number
    return None


# The count


def test_a_topic_of_nothing_but_rejected_events_is_left_after_half_a_window() -> None:
    assert stops_at(Tally(Tolerance(run=0)), [BAD] * WINDOW) == WINDOW // 2


def test_a_fifth_of_poison_and_bursts_of_it_never_stop_the_worker() -> None:
    dice = random.Random(3)
    feed = [dice.random() > 0.2 for _ in range(40_000)] + [BAD] * 3_000
    assert stops_at(Tally(Tolerance()), feed * 3) is None


def test_a_topic_that_is_short_is_never_left() -> None:
    assert stops_at(Tally(Tolerance()), [BAD] * 5_000) is None


def test_what_was_rejected_long_ago_is_forgotten() -> None:
    tally = Tally(Tolerance(run=0))
    for _ in range(3):
        assert stops_at(tally, [BAD] * (WINDOW // 2) + [GOOD] * WINDOW) is None
    assert stops_at(tally, [BAD] * WINDOW) == WINDOW // 2


def test_good_events_do_not_stop_the_worker_though_the_window_is_full_of_rejected_ones() -> None:
    tally = Tally(Tolerance(run=0))
    assert stops_at(tally, [BAD] * (WINDOW // 2) + [GOOD] * (SLICE // 2)) is None
    assert stops_at(tally, [BAD]) == 0


@pytest.mark.parametrize("run", [1, 7, 5_000])
def test_a_run_of_rejected_events_ends_with_the_first_good_one(run: int) -> None:
    tally = Tally(Tolerance(1, run))
    assert stops_at(tally, ([BAD] * run + [GOOD]) * 5) is None
    assert stops_at(tally, [BAD] * (run + 1)) == run


def test_the_first_rejected_event_stops_a_worker_that_tolerates_none() -> None:
    tally = Tally(Tolerance(0, 0))
    assert stops_at(tally, [GOOD] * 10 + [BAD]) == 10


def test_without_limits_nothing_stops_the_worker_and_nothing_is_held_against_what_comes_later() -> None:
    tally = Tally(Tolerance(1, 0))
    assert stops_at(tally, [BAD] * 3 * WINDOW) is None
    assert tally.record() == Rejections()
    assert stops_at(Tally(Tolerance(), tally.record()), [GOOD, BAD] * WINDOW) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_count_that_is_stored_and_read_at_any_moment_stops_at_the_same_event(seed: int) -> None:
    dice = random.Random(seed)
    feed = [dice.random() > 0.3 for _ in range(20_000)] + [dice.random() > 0.7 for _ in range(20_000)]
    expected = stops_at(Tally(Tolerance()), feed)
    assert expected is not None
    assert expected > 20_000
    tally, begun = Tally(Tolerance()), 0
    while begun < expected:
        length = min(dice.randrange(1, 4_000), expected - begun)
        assert stops_at(tally, feed[begun : begun + length]) is None
        begun += length
        tally = Tally(Tolerance(), stored_and_read(tally.record()))
    assert stops_at(tally, feed[begun:]) == 0


def stored_and_read(rejections: Rejections) -> Rejections:
    checkpoint = Checkpoint(1, 1, 0, {"events": 5}, -1, "", rejections={"events": rejections})
    return records.read_checkpoint(records.encode_checkpoint(checkpoint)).rejections["events"]


def test_a_checkpoint_of_a_version_without_counts_is_read_as_one_that_counted_nothing() -> None:
    stored = records.encode_checkpoint(Checkpoint(1, 1, 0, {"events": 5}, -1, ""))
    old = b"\x99" + stored[1:].removesuffix(b"\x80\xa0\xff")  # an array of nine, without the last three
    assert (stored[:1], stored[-3:]) == (b"\x9c", b"\x80\xa0\xff")
    assert records.read_checkpoint(old) == records.read_checkpoint(stored)


# The worker


def event(number: int) -> Sent:
    customer = f"c-{number % 7}"
    body = {"id": f"e-{number}", "type": "purchase", "customer_id": customer, "amount": 5, "time": 1_700_000_000_000}
    return Sent(json.dumps(body).encode(), customer.encode())


def poison(number: int) -> Sent:
    return Sent(b'{"type":"purchase","number":%d}' % number, b"c-%d" % (number % 7))


def letters(site: Site) -> list[int]:
    """The offsets of all events that went to the dead letters, as often as they did."""
    return [int(dict(record.headers)["offset"]) for record in site.read(site.own("dead-letters"))]


@contextmanager
def running(site: Site, **extra: Any) -> Iterator[RunningWorker]:
    """A worker with some limits, until the end of the block."""
    worker = site.start(extra=extra)
    try:
        worker.wait_until_ready()
        yield worker
    finally:
        worker.kill()


def stopped(site: Site, **extra: Any) -> str:
    """What a worker says last that stops by itself."""
    worker = site.start(extra=extra)
    try:
        assert worker.end() == 1, worker.log_tail()
    finally:
        worker.kill()
    return worker.log_tail(1)


@pytest.fixture
def site(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> Site:
    return Site(kafka, redis_url, prefix, tmp_path, partitions=2).create()


def test_a_worker_stops_before_it_drains_a_topic_and_says_where_why_and_what_to_do(site: Site) -> None:
    site.send({1: [*(event(n) for n in range(50)), *(poison(n) for n in range(900))], 0: [event(n) for n in range(60)]})
    limits = {"--max-rejected": 0.05}
    said = stopped(site, **limits)
    topic = site.events[0]
    assert f"worker stops, partition 1 failed: {topic}/1 has one rejected event too many at offset 550: " in said
    assert "501 of the last 10,000 events were rejected, 501 of them as missing_field (`type`, `customer_id`" in said
    assert "have the producer send the event corrected, under the same id" in said
    assert "start with --max-rejected 1 --max-rejected-run 0 until it is passed" in said
    assert letters(site) == list(range(50, 550))
    assert all(end <= 550 for end in site.committed().values())
    # Started again, it stops at the same event, and puts none more or again to the dead letters.
    assert " at offset 550: " in stopped(site, **limits)
    assert letters(site) == list(range(50, 550))


def test_what_a_worker_was_told_to_let_through_is_not_held_against_what_comes_later(site: Site) -> None:
    site.send({0: [poison(n) for n in range(30)]})
    with running(site, **{"--max-rejected": 1, "--max-rejected-run": 0}) as worker:
        site.wait_until_done([worker])
        assert worker.stop() == 0
    site.send({0: [poison(n) for n in range(30, 50)]})
    said = stopped(site, **{"--max-rejected-run": 15})
    assert f"{site.events[0]}/0 has one rejected event too many at offset 45: more than 15 events in a row" in said
    assert letters(site) == list(range(45))
