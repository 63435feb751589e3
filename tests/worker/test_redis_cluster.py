"""On Redis Cluster customers and counters lie on many nodes; whatever happens to one, all come to be right."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from redis import RedisCluster
from redis.crc import key_slot

from streamseg.core.units import DAY
from streamseg.worker.redis_cluster import mark_key, slots_to_mark
from streamseg.worker.redis_entry import Entry, Move, Parcel, Shown, Store, Writer
from streamseg.worker.redis_view import connected
from tests.chaos.failing_worker import SHOWN_ON_A_CLUSTER
from tests.worker.comparison import assert_equal
from tests.worker.redis_nodes import Node, fail_over, local_cluster, restart
from tests.worker.reference import expected
from tests.worker.running_worker import STARTER, Site, wait_until
from tests.worker.test_redis_view import assert_shown, rebuild, shop_lines

T = TypeVar("T")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with local_cluster(tmp_path_factory.mktemp("cluster"), replicas=1) as running:
        yield running


@pytest.fixture
def site(kafka: str, nodes: list[Node], prefix: str, tmp_path: Path) -> Site:
    return Site(kafka, nodes[1].url, prefix, tmp_path, partitions=2, redis_cluster=True).create()


def flush_second(nodes: list[Node]) -> None:
    nodes[1].tell("FLUSHALL")


def restart_third(nodes: list[Node]) -> None:
    restart(nodes[2])


def fail_first_over(nodes: list[Node]) -> None:
    fail_over(nodes[0], nodes[3])
    nodes[0].start()  # and it comes back as a replica
    nodes[0], nodes[3] = nodes[3], nodes[0]


def test_nodes_that_fail_amid_the_load_of_two_workers_show_all_customers_in_the_end(
    site: Site, nodes: list[Node]
) -> None:
    lines = shop_lines(6_000)
    with site.workers(2) as workers:
        for number, fault in enumerate([flush_second, restart_third, fail_first_over]):
            already, begin, end = len(site.shown()), 2_000 * number, 2_000 * (number + 1)
            site.produce(lines[begin:end])
            wait_until(partial(more_are_shown, site, already), "some more customers are shown", workers)
            fault(nodes)
            site.wait_until_done(workers)
            assert_shown(site, expected(STARTER, site.shares(lines[:end])))


def more_are_shown(site: Site, before: int) -> bool:
    return len(site.shown()) > before


def test_moves_count_once_though_a_worker_dies_between_customers_and_counters(site: Site) -> None:
    lines = shop_lines(8_000)
    wanted = expected(STARTER, site.shares(lines))
    site.produce(lines)
    doom = {"CHAOS_STEP": SHOWN_ON_A_CLUSTER, "CHAOS_PASSING": "1"}
    doomed = site.start(module="tests.chaos.failing_worker", environment=doom)
    assert doomed.end() == -signal.SIGKILL
    assert len(site.shown()) > site.counts().get("value", Counter()).total()
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert_shown(site, wanted)
        assert_equal(site.moves(), wanted.moves)


def test_a_spoilt_view_is_rebuilt_while_a_worker_writes_to_it(site: Site) -> None:
    lines = shop_lines(4_000)
    wanted = expected(STARTER, site.shares(lines))
    with site.worker() as worker:
        site.produce(lines[:2_000])
        wait_until(lambda: len(site.shown()) > 100, "some customers are shown", [worker])
        with site.redis() as client:
            client.hincrby(f"{site.prefix}:count:value", "nobody-there", 7)
            client.delete(f"{site.prefix}:customer:{next(iter(site.shown()))}")
        site.produce(lines[2_000:])
        rebuild(site)
        site.wait_until_done([worker])
        assert_shown(site, wanted)


# The counters by themselves


def parcel(partition: int, offset: int, counts: dict[str, int], moves: list[Move] | None = None) -> Parcel:
    """What a partition has to say as of an offset."""
    entry = Entry("c1", 1, "", {}, moves or [], None, Writer(partition, 1))
    return Parcel(partition, Shown(offset, offset), [entry], "", {"value": counts})


def told(site: Site, *parcels: Parcel) -> dict[str, Counter[str]]:
    """The counters after parcels that came one by one."""

    async def tell(store: Store) -> None:
        for each in parcels:
            assert await store.count([each])

    in_store(site, tell)
    return site.counts()


def in_store(site: Site, act: Callable[[Store], Awaitable[T]]) -> T:
    async def run() -> T:
        store = await connected(site.redis_url, f"{site.prefix}:")
        try:
            await store.identify()
            return await act(store)
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.fixture
def bare(kafka: str, nodes: list[Node], prefix: str, tmp_path: Path) -> Site:
    """Give an installation without topics."""
    return Site(kafka, nodes[1].url, prefix, tmp_path, redis_cluster=True)


def test_a_counter_is_the_sum_of_what_each_partition_told_last(bare: Site) -> None:
    first, second = parcel(0, 10, {"new": 3, "loyal": 1}), parcel(1, 7, {"new": 2})
    assert told(bare, first, second, parcel(0, 12, {"loyal": 4})) == {"value": Counter(new=2, loyal=4)}


def test_a_counter_that_is_told_again_or_late_does_not_move(bare: Site) -> None:
    late, last = parcel(0, 10, {"new": 3}), parcel(0, 12, {"new": 5})
    assert told(bare, late, last, last, late) == {"value": Counter(new=5)}


def test_a_counter_that_was_lost_is_whole_when_every_partition_has_told_again(bare: Site) -> None:
    both = parcel(0, 10, {"new": 3}), parcel(1, 7, {"new": 2})
    told(bare, *both)
    with bare.redis() as client:
        assert isinstance(client, RedisCluster)
        slot = key_slot(f"{bare.prefix}:count:value".encode())
        client.flushall(target_nodes=client.nodes_manager.get_node_from_slot(slot))
    assert told(bare, *both) == {"value": Counter(new=5)}


def test_a_move_counts_once_whether_it_is_told_in_one_group_or_again_with_its_own_offset(bare: Site) -> None:
    at = 3 * DAY
    group = parcel(0, 12, {}, [Move(1, "value", "new", "loyal", at), Move(2, "value", "loyal", "lost", at)])
    again = parcel(0, 15, {}, [Move(1, "value", "new", "loyal", at, 10), Move(3, "value", "lost", "new", at, 13)])
    told(bare, group, group, again, again, group)
    assert bare.moves() == {"value:1970-01-04": Counter({"new>loyal": 1, "loyal>lost": 1, "lost>new": 1})}


def test_a_customer_is_not_set_back_by_a_late_writer(bare: Site) -> None:
    def as_of(version: int, segment: str, epoch: int = 1) -> Entry:
        shown = {"segment": segment, "since": "", "next_change_at": None, "next_segment": None}
        return Entry("c{1}", version, "", {"value": shown}, [], None, Writer(0, epoch))

    async def show(store: Store) -> list[tuple[int, int] | None]:
        groups = [as_of(2, "loyal")], [as_of(1, "new"), as_of(3, "lost", epoch=2)], [as_of(3, "loyal")]
        return [await store.show(group) for group in groups]

    assert in_store(bare, show) == [(1, 0), (1, 1), (0, 1)]
    assert bare.shown()["c{1}"] == {"version": "3", "value": "lost", "value.since": "", "updated_at": ""}


def test_each_node_has_a_mark_of_its_own_that_seldom_moves() -> None:
    owners = [(slot, f"node-{slot * 3 // 16_384}") for slot in range(16_384)]
    marked = slots_to_mark(owners)
    assert sorted(dict(owners)[slot] for slot in marked) == ["node-0", "node-1", "node-2"]
    assert all(key_slot(mark_key("streamseg:", slot).encode()) == slot for slot in marked)
    moved = [(slot, "node-1" if slot < 500 else owner) for slot, owner in owners]
    assert len(set(slots_to_mark(moved)) & set(marked)) >= 2
