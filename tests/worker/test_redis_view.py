"""Whatever happens to Redis, customers go on, and it comes to show them all again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import connection

from streamseg.services import LocalRedis
from streamseg.shop import Shop
from streamseg.worker.redis_entry import Entry, Writer
from streamseg.worker.redis_view import connected, is_of_client
from streamseg.worker.settings import Names
from tests.worker.comparison import assert_equal, hashes, wait_for_equality, without_times
from tests.worker.reference import Outcome, expected
from tests.worker.running_worker import ROOT, STARTER, Site, wait_until

Line = tuple[str, bytes]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[LocalRedis]:
    """Give a Redis of the test's own."""
    with LocalRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def site(kafka: str, redis: LocalRedis, prefix: str, tmp_path: Path) -> Site:
    return Site(kafka, redis.url, prefix, tmp_path, partitions=2).create()


def shop_lines(events: int) -> list[Line]:
    return list(Shop(seed=11, customers=events // 10, events=events).lines())


def assert_shown(site: Site, wanted: Outcome) -> None:
    """Redis shows every customer as they are, and counts them exactly."""
    wait_for_equality(lambda: without_times(site.shown()), hashes(wanted))
    assert_equal(site.counts(), wanted.counts)


def flush(redis: LocalRedis) -> None:
    with Redis.from_url(redis.url) as client:
        client.flushall()


def crash(redis: LocalRedis) -> None:
    redis.kill()
    redis.start()


def evict(redis: LocalRedis) -> None:
    """Fill it up, let the workers meet that, and make room."""
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", "1mb")
        refused = "errorstat_OOM"
        wait_until(lambda: refused in client.info("errorstats"), "writes are refused")
        client.config_set("maxmemory", "0")


def rebuild(site: Site) -> None:
    command = [sys.executable, "-m", "streamseg", "rebuild-redis", "--redis", site.redis_url, "--prefix", site.prefix]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("deleted ")


@pytest.mark.parametrize("fault", [flush, crash, evict])
def test_a_redis_that_fails_amid_the_load_of_two_workers_shows_all_customers_in_the_end(
    fault: Callable[[LocalRedis], None], site: Site, redis: LocalRedis
) -> None:
    lines = shop_lines(20_000)
    wanted = expected(STARTER, site.shares(lines))
    with site.workers(2) as workers:
        site.produce(lines[:6_000])
        wait_until(lambda: len(site.shown()) > 100, "some customers are shown", workers)
        site.produce(lines[6_000:])
        assert not site.done(), "all was done before the fault: it proves nothing"
        fault(redis)
        site.wait_until_done(workers)
        assert_shown(site, wanted)


def test_a_redis_that_is_flushed_while_nothing_happens_is_filled_again(site: Site, redis: LocalRedis) -> None:
    lines = shop_lines(3_000)
    wanted = expected(STARTER, site.shares(lines))
    with site.worker() as worker:
        site.produce(lines)
        site.wait_until_done([worker])
        assert_shown(site, wanted)
        flush(redis)
        assert_shown(site, wanted)
        changed = worker.total("streamseg_segment_changes_total")
        assert changed == sum(map(len, wanted.changes.values()))


def test_a_redis_that_was_flushed_while_no_worker_ran_is_filled_by_the_next_one(site: Site, redis: LocalRedis) -> None:
    lines = shop_lines(3_000)
    wanted = expected(STARTER, site.shares(lines))
    with site.worker() as worker:
        site.produce(lines)
        site.wait_until_done([worker])
        assert_shown(site, wanted)
        assert worker.stop() == 0
    flush(redis)
    with site.worker():
        assert_shown(site, wanted)


def test_a_worker_that_lost_a_partition_does_not_show_an_older_forecast(site: Site) -> None:
    def entry(epoch: int, ahead: str) -> Entry:
        shown = {"segment": "top", "since": "then", "next_change_at": ahead, "next_segment": "nobody"}
        return Entry("ada", 3, "then", {"value": shown}, [], None, Writer(0, epoch))

    async def write() -> list[tuple[int, int] | None]:
        store = await connected(site.redis_url, Names(site.prefix).redis)
        assert await store.identify()
        entries = [entry(1, "soon"), entry(2, "later"), entry(1, "soon")]
        found = [await store.show([each]) for each in entries]
        await store.close()
        return found

    assert asyncio.run(write()) == [(1, 0), (1, 0), (0, 1)]
    assert site.shown()["ada"]["value.next_change_at"] == "later"


def test_only_the_client_s_own_lost_connection_is_a_failure_of_redis() -> None:
    async def write(closed: connection.Connection) -> None:
        await closed._send_packed_command([b"PING"])

    with pytest.raises(AttributeError) as theirs:
        asyncio.run(write(connection.Connection()))
    with pytest.raises(AttributeError) as ours:
        _ = None.writelines  # type: ignore[attr-defined]
    assert (is_of_client(theirs.value), is_of_client(ours.value)) == (True, False)


def test_events_go_on_while_redis_hangs(site: Site, redis: LocalRedis) -> None:
    lines = shop_lines(6_000)
    wanted = expected(STARTER, site.shares(lines))
    with site.worker() as worker:
        site.produce(lines[:1_000])
        site.wait_until_done([worker])
        redis.pause()
        site.produce(lines[1_000:])
        site.wait_until_done([worker])
        redis.resume()
        assert_shown(site, wanted)


def test_a_worker_with_much_to_tell_a_redis_that_hangs_reads_no_further_until_it_is_back(
    site: Site, redis: LocalRedis
) -> None:
    lines = shop_lines(9_000)
    wanted = expected(STARTER, site.shares(lines))
    worker = site.start(module="tests.worker.small_queue_worker")  # with small groups, too: not all is under way
    try:
        worker.wait_until_ready()
        redis.pause()
        site.produce(lines)
        wait_until(lambda: worker.total("streamseg_redis_backlog") > 100, "assignments wait", [worker])
        wait_until(Same(site.committed, times=20), "the worker reads no further", [worker])
        assert not site.done()
        redis.resume()
        site.wait_until_done([worker])
        assert_shown(site, wanted)
    finally:
        worker.kill()


class Same:
    """Whether something was the same so many times in a row."""

    def __init__(self, look: Callable[[], object], times: int) -> None:
        self._look, self._times = look, times
        self._seen: list[object] = []

    def __call__(self) -> bool:
        self._seen.append(self._look())
        last = self._seen[-self._times :]
        return len(last) == self._times and all(each == last[0] for each in last)


def test_a_view_that_somebody_spoilt_is_rebuilt_while_workers_write_to_it(site: Site) -> None:
    lines = shop_lines(8_000)
    wanted = expected(STARTER, site.shares(lines))
    with site.workers(2) as workers:
        site.produce(lines[:4_000])
        wait_until(lambda: len(site.shown()) > 200, "some customers are shown", workers)
        with site.redis() as client:
            client.hincrby(f"{site.prefix}:count:value", "nobody-there", 7)
            client.delete(f"{site.prefix}:customer:{next(iter(site.shown()))}")
        site.produce(lines[4_000:])
        rebuild(site)
        site.wait_until_done(workers)
        assert_shown(site, wanted)


def test_a_worker_stops_in_good_order_while_redis_hangs(site: Site, redis: LocalRedis) -> None:
    with site.worker() as worker:
        site.produce(shop_lines(500))
        site.wait_until_done([worker])
        redis.pause()
        site.produce(shop_lines(500))
        site.wait_until_done([worker])
        assert worker.stop(signal.SIGTERM) == 0
        redis.resume()
