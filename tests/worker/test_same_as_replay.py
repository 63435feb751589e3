"""Workers on Kafka come to what `Replay` comes to without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamseg import cdnow
from streamseg.core.units import parse_instant
from streamseg.shop import Shop
from tests.worker.comparison import assert_same
from tests.worker.reference import Change, expected
from tests.worker.running_worker import EVERY_FEATURE, STARTER, Site

FEATURES = pytest.mark.parametrize("definitions", [STARTER, EVERY_FEATURE], ids=["starter", "every feature"])


def some_real_customers(endings: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """The whole history of those customers of CDNOW whose number ends so."""
    return [(customer, value) for customer, value in cdnow.lines() if customer.endswith(endings)]


@pytest.mark.parametrize(
    ("definitions", "endings", "store"),
    [
        (STARTER, ("07", "17", "27", "37", "47"), "memory"),
        (EVERY_FEATURE, ("77",), "memory"),
        (EVERY_FEATURE, ("77",), "rocksdict"),
    ],
    ids=["starter", "every feature", "every feature, with customers on disk"],
)
def test_two_workers_put_the_customers_of_a_real_shop_where_a_replay_puts_them(
    definitions: Path, endings: tuple[str, ...], store: str, kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, definitions, store=store).create()
    lines = some_real_customers(endings)
    wanted = expected(definitions, site.shares(lines))
    with site.workers(2) as workers:
        site.produce(lines)
        site.wait_until_done(workers)
        published = assert_same(site, wanted)
        assert len(published) == sum(map(len, wanted.changes.values()))
        for worker in workers:
            worker.tell_to_stop()
        assert [worker.end() for worker in workers] == [0, 0]
    assert_same_under_one_clock(site, lines, wanted.changes)


def assert_same_under_one_clock(site: Site, lines: list[tuple[str, bytes]], found: dict[str, list[Change]]) -> None:
    """To a sorted history it makes no difference which partition a customer is in."""
    ends = {number: _last_instant(share) for number, share in site.shares(lines).items()}
    for customer, changes in expected(site.definitions, {0: lines}).changes.items():
        end = ends[site.partitioner(customer.encode(), site.partitions)]
        # A partition's clock stands at its own last event, and fires no deadlines after that.
        assert found[customer] == [change for change in changes if parse_instant(change["time"]) <= end]


def _last_instant(share: list[tuple[str, bytes]]) -> int:
    return parse_instant(share[-1][1].split(b'"time":"')[1][:24].decode())


@FEATURES
def test_late_repeated_refunded_and_malformed_events_end_as_in_a_replay_of_each_partition(
    definitions: Path, kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, definitions).create()
    shop = Shop(seed=11, customers=100, events=5_000, late_ratio=0.05, duplicate_ratio=0.03, malformed_ratio=0.01)
    lines = list(shop.lines())
    wanted = expected(definitions, site.shares(lines))
    assert min(wanted.results[each] for each in ("applied", "duplicate", "rejected")) >= 40
    with site.workers(2) as workers:
        site.produce(lines)
        site.wait_until_done(workers)
        published = assert_same(site, wanted)
        assert len(published) == sum(map(len, wanted.changes.values()))
        for result, count in wanted.results.items():
            found = sum(worker.total("streamseg_events_total", result=result) for worker in workers)
            assert found == count, result
        for reason, count in wanted.rejects.items():
            found = sum(worker.total("streamseg_dead_letters_total", reason=reason) for worker in workers)
            assert found == count, reason
        assert len(site.read(site.own("dead-letters"))) == sum(wanted.rejects.values())
