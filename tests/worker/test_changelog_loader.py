"""A changelog read in bulk: exactly the records that were asked for, however the broker sends them."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import PartitionRecords

from streamseg.worker.fetches import Record
from streamseg.worker.store import LOAD_SETTINGS, ChangelogLoader
from tests.worker.running_worker import Sent, Site, do

Found = dict[int, list[tuple[int, bytes | None, bytes | None]]]


async def read(site: Site, starts: dict[int, int], ends: dict[int, int]) -> Found:
    found: Found = defaultdict(list)

    def take(partition: int, records: Sequence[Record]) -> None:
        found[partition] += [(record.offset, record.key, record.value) for record in records]

    async with AIOKafkaConsumer(bootstrap_servers=site.kafka, **LOAD_SETTINGS) as consumer:
        loader = ChangelogLoader(site.events[0], consumer)
        takes = {partition: lambda records, p=partition: take(p, records) for partition in starts}
        count = await loader.read(starts, ends, takes)
    assert count == sum(map(len, found.values()))
    return found


def written(partition: int) -> list[Sent]:
    """Customers of a partition, every tenth of them deleted."""
    return [
        Sent(None if number % 10 == 0 else b"state %d" % number, b"customer-%d-%d" % (partition, number))
        for number in range(3_000)
    ]


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 3_000), (7, 2_991), (1_500, 1_501)],
    ids=["all", "from within a batch to within a batch", "a single one"],
)
def test_each_record_from_start_to_end_comes_once_and_in_order(
    start: int, end: int, kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, partitions=2).create()
    log = {partition: written(partition) for partition in range(2)}
    site.send(log)
    found = do(read(site, dict.fromkeys(log, start), dict.fromkeys(log, end)))
    for partition, sent in log.items():
        wanted = [(offset, sent[offset].key, sent[offset].value) for offset in range(start, end)]
        assert found[partition] == wanted


async def fetches_kept(site: Site, ends: dict[int, int]) -> int:
    """How many fetches are in memory when all were taken, if each brings one batch and nobody collects garbage."""
    gc.collect()
    gc.disable()
    try:
        async with AIOKafkaConsumer(
            bootstrap_servers=site.kafka, **{**LOAD_SETTINGS, "max_partition_fetch_bytes": 1}
        ) as consumer:
            loader = ChangelogLoader(site.events[0], consumer)
            await loader.read(dict.fromkeys(ends, 0), ends, dict.fromkeys(ends, list[Record]().extend))
            return sum(type(each) is PartitionRecords for each in gc.get_objects())
    finally:
        gc.enable()


def test_what_was_fetched_goes_as_it_is_taken(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, partitions=2).create()
    for _ in range(10):
        site.send({partition: written(partition)[:100] for partition in range(2)})
    # What the last round of the loop brought, and what was on its way.
    assert do(fetches_kept(site, dict.fromkeys(range(2), 1_000))) <= 4
