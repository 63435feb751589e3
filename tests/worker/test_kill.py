"""Workers that are killed in the midst of their work lose nothing, double nothing, and stay with what they said."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from streamseg import cdnow
from streamseg.formats.state import CHECKPOINT_KEY, FENCE_KEY, read_checkpoint
from streamseg.shop import Shop
from tests.worker.comparison import assert_same, repeats
from tests.worker.reference import expected
from tests.worker.running_worker import EVERY_FEATURE, STARTER, Site, wait_until

Line = tuple[str, bytes]


def shop_lines(events: int) -> list[Line]:
    """Events with late, repeated, refunded and malformed ones among them."""
    shop = Shop(seed=23, customers=events // 20, events=events, late_ratio=0.03, duplicate_ratio=0.03)
    return list(shop.lines())


def states(site: Site) -> int:
    """How many records there are in the changelog."""
    return sum(site.ends(site.changelog).values())


@pytest.mark.parametrize(
    ("count", "store", "kills"),
    [(1, "memory", 3), (1, "rocksdict", 1), (2, "memory", 3)],
    ids=["the only worker", "the only worker, with its customers on disk", "one of two workers"],
)
def test_killing_workers_again_and_again_changes_nothing_of_what_is_said_of_any_customer(
    count: int, store: str, kills: int, kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    data = "data" if store == "rocksdict" else ""  # what the killed one left there must not count
    site = Site(kafka, redis_url, prefix, tmp_path, EVERY_FEATURE, store=store, data=data).create()
    lines = shop_lines(9_000)
    wanted = expected(site.definitions, site.shares(lines))
    dice = random.Random(count)
    late = 0
    with site.workers(count) as workers:
        for number in range(kills):
            if number == 1:  # the others are killed while they make up for the kill before
                site.wait_until_done(workers)
            enough = states(site) + dice.randrange(5, 150)
            site.produce(lines[number * len(lines) // kills : (number + 1) * len(lines) // kills])
            wait_until(lambda: states(site) >= enough, "some states are written", workers)  # noqa: B023
            victim = dice.randrange(count)
            workers[victim].kill()
            late += site.done()
            workers[victim] = site.start()
        site.wait_until_done(workers)
        assert_same(site, wanted)
    assert_said_once(site)
    assert late <= kills // 3, "all was done before most of the kills: they prove nothing"


def assert_said_once(site: Site) -> None:
    """What was published again is the same to the last byte."""
    for name, forms in repeats(site).items():
        assert len(forms) == 1, name


def test_a_worker_that_ends_between_state_and_changes_publishes_them_when_it_is_back(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, partitions=2).create()
    lines = [(customer, value) for customer, value in cdnow.lines() if customer.endswith("42")]
    half = len(lines) // 2
    wanted = expected(STARTER, site.shares(lines))
    with site.worker() as worker:
        site.produce(lines[:half])
        site.wait_until_done([worker])
        published, before = site.ends(site.own("segment-changes")), states(site)
        # The broker takes states, and refuses changes: this is where the worker ends.
        site.configure(site.own("segment-changes"), cleanup_policy="delete", max_message_bytes="1")
        site.produce(lines[half:])
        assert worker.end() == 70
    assert states(site) > before
    assert site.ends(site.own("segment-changes")) == published
    site.configure(site.own("segment-changes"), cleanup_policy="delete")
    known = states(site)
    with site.worker() as worker:
        assert worker.total("streamseg_republished_changes_total") > 0
        assert worker.total("streamseg_recovery_records_total") == known
        assert worker.total("streamseg_recovery_remaining_records") == 0
        assert worker.total("streamseg_recovery_seconds") > 0
        site.wait_until_done([worker])
        assert_same(site, wanted)
    assert_said_once(site)


def test_a_forecast_that_moved_just_before_a_kill_is_shown_after_it(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, partitions=1).create()
    seen, seen_again = ([view(number, day) for number in range(50)] for day in (1, 2))
    wanted = expected(STARTER, {0: seen + seen_again})
    with site.worker() as worker:
        site.produce(seen)
        site.wait_until_done([worker])
        enough = states(site) + len(seen)
        site.produce(seen_again)
        wait_until(lambda: states(site) >= enough, "the states are written", [worker])
        worker.kill()
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert_same(site, wanted)


def view(customer: int, day: int) -> Line:
    """Somebody is seen on a day, which moves nobody but puts off when they are forgotten."""
    name = f"c-{customer}"
    time = f"2026-01-0{day}T10:00:00Z"
    return name, f'{{"id":"{name}-{day}","type":"page_view","customer_id":"{name}","time":"{time}"}}'.encode()


def test_killing_a_worker_after_all_was_done_publishes_nothing_and_moves_nobody(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path).create()
    lines = shop_lines(2_000)
    wanted = expected(STARTER, site.shares(lines))
    with site.worker() as worker:
        site.produce(lines)
        site.wait_until_done([worker])
        assert_same(site, wanted)
        wait_until(lambda: is_settled(site), "a checkpoint says that all is published", [worker])
        published = site.published()
        worker.kill()
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert worker.total("streamseg_republished_changes_total") == 0
        assert worker.total("streamseg_segment_changes_total") == 0
        assert site.published() == published
        # Its clock stands where it stood: to a newcomer's late event it is as late as before.
        lines.append(view(1, day=2))
        site.produce(lines[-1:])
        site.wait_until_done([worker])
        assert_same(site, expected(STARTER, site.shares(lines)))


def is_settled(site: Site) -> bool:
    """Whether the last checkpoint of each partition says that all states before it are published and shown."""
    known: dict[int, int] = {}
    states: dict[int, int] = {}
    for record in site.read(site.changelog):
        if record.key == CHECKPOINT_KEY:
            checkpoint = read_checkpoint(record.value)
            known[record.partition] = min(checkpoint.published, checkpoint.viewed, checkpoint.foreseen)
        elif record.key != FENCE_KEY:
            states[record.partition] = record.offset
    return all(known.get(partition, 0) > offset for partition, offset in states.items())
