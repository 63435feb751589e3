"""The Faust shell on a real Kafka, with an owner that only counts."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.types import TP

from streamseg.worker.app import ShellSettings, TopicsError, check_partitions
from streamseg.worker.log import Item, Log, RecordTooLargeError
from streamseg.worker.reading import OffsetHoleError, Reading, Readings, StartOffsetError
from tests.worker.counting import CountingProcess, Job

T = TypeVar("T")


def do(what: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(what)


def job(kafka: str, data_dir: Path, **options: int) -> Job:
    return do(Job(kafka, data_dir, **options).create())


def test_every_event_is_counted_once_when_workers_are_killed_again_and_again(kafka: str, tmp_path: Path) -> None:
    count = job(kafka, tmp_path)
    sent = do(count.produce(30_000))
    dice = random.Random(5)
    slow = {"pause": 0.05, "poll_records": 300}
    workers = [count.worker(**slow), count.worker(**slow)]
    try:
        for victim in (0, 1, 0):
            workers[victim].wait_for_count(dice.randrange(500, 2000))
            workers[victim].kill()
            workers[victim] = count.worker(**slow)
        wait_until_committed(count, workers)
        assert [worker.stop() for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    assert do(count.counted()) == sent


def wait_until_committed(count: Job, workers: list[CountingProcess]) -> None:
    ends = do(count.ends())
    workers[0].wait(lambda: all(worker.process.poll() is None for worker in workers) and committed(count) == ends)


def committed(count: Job) -> dict[tuple[str, int], int]:
    return do(count.committed())


def test_a_partition_that_is_kept_goes_on_without_being_opened_again(kafka: str, tmp_path: Path) -> None:
    count = job(kafka, tmp_path, topics=2)
    sent = do(count.produce(20_000))
    with count.worker(pause=0.05, poll_records=200) as first:
        first.wait(lambda: first.total > 500)
        with count.worker(pause=0.05, poll_records=200) as second:
            second.wait(lambda: second.total > 500)
            first.wait(lambda: len(first.closed) == 2)
            assert sorted(first.opened) == [0, 1, 2, 3]
            assert sorted(second.opened) == sorted(first.closed)
            first.wait(lambda: list(first.state["owns"].values()) == [True, True])
            assert second.stop() == 0
        first.wait(lambda: len(first.opened) == 6 and first.caught_up(4))
        assert sorted(first.opened[4:]) == sorted(first.closed)
        assert first.stop() == 0
    assert do(count.counted()) == sent


def test_a_worker_that_comes_to_others_gets_its_share(kafka: str, tmp_path: Path) -> None:
    count = job(kafka, tmp_path)
    with count.worker() as first, count.worker() as second:
        first.wait(lambda: len(first.opened) >= 2 and len(second.opened) >= 2)
        with count.worker() as third:
            third.wait(lambda: len(third.opened) == 1)


def test_events_that_come_before_a_poll_has_its_turn_come_with_it(kafka: str, tmp_path: Path) -> None:
    count = job(kafka, tmp_path)
    with count.worker(spacing=3.0) as worker:
        worker.wait(lambda: worker.caught_up(4))
        do(count.produce_one_by_one(2))
        worker.wait(lambda: worker.total == 2)
        assert worker.state["batches"] == 1
        do(count.produce_one_by_one(1, 1))
        worker.wait(lambda: worker.total == 4)
        assert worker.state["batches"] == 2
        assert worker.stop() == 0


def test_a_stopped_worker_finishes_commits_leaves_and_exits_with_zero(kafka: str, tmp_path: Path) -> None:
    count = job(kafka, tmp_path)
    sent = do(count.produce(10_000))
    with count.worker(pause=0.05, poll_records=200) as worker:
        worker.wait_for_count(1000)
        assert worker.stop(signal.SIGTERM) == 0
        assert worker.strays == []
        assert sorted(worker.closed) == [0, 1, 2, 3]
    # Everything counted is committed, and nothing that is not.
    assert sum(committed(count).values()) == do(count.counted()).total()
    with count.worker() as successor:
        successor.wait(lambda: successor.caught_up(4))
        assert successor.stop(signal.SIGINT) == 0
    assert do(count.counted()) == sent


def test_state_comes_back_in_bulk_and_reading_starts_where_the_owner_says(kafka: str, tmp_path: Path) -> None:
    count = job(kafka, tmp_path)
    topic = count.topics[0]
    sent = do(count.produce(8000, keys=4000))
    with count.worker() as first:
        first.wait(lambda: first.caught_up(4) and first.total == 8000)
        assert first.stop() == 0
    ends = committed(count)
    assert set(ends.values()) == {2000}
    written = len(do(count.records(count.changelog)))
    # To open takes longer than the session: the worker must stay in the group meanwhile.
    with count.worker(starts={topic: 1990}, opening=4.0) as second:
        second.wait(lambda: second.caught_up(4))
        assert sorted(second.opened) == [0, 1, 2, 3]
        assert second.loaded == written
        assert (second.total, second.state["late"]) == (8000, 0)
        assert second.state["first"] == {f"{topic}/{each}": 1990 for each in range(4)}
        assert second.stop() == 0
    assert committed(count) == ends
    assert do(count.counted()) == sent


def test_a_worker_whose_state_is_ahead_of_the_topic_refuses_and_says_how_to_mend_it(kafka: str, tmp_path: Path) -> None:
    count = job(kafka, tmp_path)
    with count.worker(starts={count.topics[0]: 7}) as worker:
        assert worker.process.wait(60) == 70
    assert any("was read up to offset 7 but ends at 0" in line for line in worker.complaints)


def test_a_worker_is_caught_up_only_when_it_has_read_to_the_end_and_on_empty_partitions_too(
    kafka: str, tmp_path: Path
) -> None:
    count = job(kafka, tmp_path)
    do(count.produce(8000, partitions=[2]))
    with count.worker(pause=0.05, poll_records=200, bound=500) as worker:
        worker.wait(lambda: worker.caught_up(4) and worker.total == 8000)
        on_the_way = [state for state in worker.states if 0 < state["handed"].get("2", 0) < 8000]
        assert on_the_way
        assert not any(state["caught_up"]["2"] for state in on_the_way)
        assert any(state["caught_up"]["0"] for state in on_the_way)
        do(count.produce(1, partitions=[0]))
        worker.wait(lambda: worker.caught_up(4) and worker.total == 8001)
        assert worker.stop() == 0


def test_aborted_transactions_are_not_counted_and_their_markers_do_not_look_like_events_to_come(
    kafka: str, tmp_path: Path
) -> None:
    count = job(kafka, tmp_path, partitions=1)
    do(transact(count))
    with count.worker() as worker:
        worker.wait(lambda: worker.caught_up(1) and worker.total == 10)
        assert worker.stop() == 0
    assert committed(count) == do(count.ends())
    assert do(count.counted()) == Counter({b"committed": 10})


async def transact(count: Job) -> None:
    async with AIOKafkaProducer(bootstrap_servers=count.kafka, transactional_id=count.group) as producer:
        for key, number in ((b"aborted", 5), (b"committed", 10), (b"aborted", 5)):
            await producer.begin_transaction()
            for _ in range(number):
                await producer.send(count.topics[0], b"{}", key, 0)
            await (producer.commit_transaction() if key == b"committed" else producer.abort_transaction())


def test_a_log_keeps_order_headers_and_time_and_tells_the_last_offset(kafka: str, tmp_path: Path) -> None:
    count = job(kafka, tmp_path, partitions=1)
    before = int(time.time() * 1000)
    offsets, records = do(append_and_read(count))
    assert offsets == [999, 1999, -1, 2000]
    assert [record.key for record in records] == [*(b"%d" % each for each in range(2000)), b"gone"]
    assert records[7].headers == (("id", b"7"),)
    assert records[-1].value is None
    assert before <= records[0].timestamp <= int(time.time() * 1000)


async def append_and_read(count: Job) -> tuple[list[int], list[Any]]:
    topic = count.changelog
    items: list[Item] = [(b"%d" % each, b"x" * 200, [("id", b"%d" % each)]) for each in range(2000)]
    async with AIOKafkaProducer(
        bootstrap_servers=count.kafka, enable_idempotence=True, max_batch_size=16_384, compression_type="lz4"
    ) as producer:
        log = Log(lambda: producer, 50_000)
        with pytest.raises(RecordTooLargeError, match=r"key b'big'.*max_record_bytes"):
            await log.append(topic, 0, [(b"small", b"x", []), (b"big", b"x" * 50_000, [])])
        parts: tuple[list[Item], ...] = (items[:1000], items[1000:], [], [(b"gone", None, [])])
        appended = await asyncio.gather(*(log.append(topic, 0, part) for part in parts))
        offsets = [await each for each in appended]
    async with AIOKafkaConsumer(topic, bootstrap_servers=count.kafka, auto_offset_reset="earliest") as consumer:
        records: list[Any] = []
        while len(records) < 2001:
            for polled in (await consumer.getmany(timeout_ms=1000)).values():
                records.extend(polled)
        assert await consumer.position(TopicPartition(topic, 0)) == 2001
    return offsets, records


def test_a_batch_that_got_lost_inside_the_worker_is_noticed_at_the_next_one() -> None:
    reading = Reading(TP("events", 0), None)
    assert reading.begin(committed=5, earliest=0, end=100) == 5
    reading.place()
    reading.hand(5, 10)
    with pytest.raises(OffsetHoleError, match="expected the batch at offset 10, got the one at 20") as caught:
        reading.hand(20, 30)
    assert caught.value.exit_code == 75


def test_a_start_offset_that_retention_deleted_gives_way_to_the_earliest() -> None:
    assert Reading(TP("events", 0), 3).begin(committed=None, earliest=8, end=9) == 8
    assert Reading(TP("events", 0), None).begin(committed=None, earliest=8, end=9) == 8
    with pytest.raises(StartOffsetError):
        Readings(["events"]).open(0, {"other": 1})


def test_topics_with_other_partition_counts_are_refused() -> None:
    settings = ShellSettings(("host:1",), ("a", "b"), "g", "c", 4, Path())
    check_partitions({"a": 4, "b": 4, "c": 4}, settings)
    with pytest.raises(TopicsError, match="topic b has 3 partitions but 4 are configured"):
        check_partitions({"a": 4, "b": 3, "c": 4}, settings)
    with pytest.raises(TopicsError, match="topic c does not exist"):
        check_partitions({"a": 4, "b": 4, "c": 0}, settings)
