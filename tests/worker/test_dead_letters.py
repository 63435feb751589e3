"""What is no event goes to the dead letters as it came, with the reason; what is one is never held up by it."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from aiokafka import ConsumerRecord

from tests.worker.bad_records import Bad, bad_records, odd_events, text
from tests.worker.running_worker import RunningWorker, Sent, Site, wait_until

WHOLE = 900_000
"""Key and value together go to the dead letters whole up to so many bytes."""


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


def site_of(kafka: str, redis_url: str, prefix: str, directory: Path, keys: str = "rekey", partitions: int = 2) -> Site:
    """An installation on the live clock, whose event topic takes large records."""
    site = Site(kafka, redis_url, prefix, directory, clock="wall", partitions=partitions, keys=keys)
    return site.create({"max.message.bytes": str(12 << 20)})


def test_every_bad_record_goes_to_the_dead_letters_and_every_event_between_them_is_applied(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = site_of(kafka, redis_url, prefix, tmp_path, keys="reject")
    now = wall_clock()
    bad, odd = bad_records(now), odd_events(now)
    good = [Sent(text(now, id=f"g-{number}", customer_id="c-good"), b"c-good") for number in range(len(bad))]
    assert len({each.name for each in bad}) == len(bad) > 60
    with site.worker() as worker:
        site.send({0: [record for pair in zip(good, (each.record for each in bad), strict=True) for record in pair]})
        for customer, records in odd.items():
            site.send({site.partitioner(customer.encode(), site.partitions): records})
        site.wait_until_done([worker])
        assert_rejected(site, worker, bad)
        assert applied(worker) == len(good) + sum(map(len, odd.values()))
        assert set(site.current()) == {"c-good", *odd}
        wait_until(lambda: set(site.shown()) == {"c-good", *odd}, "Redis shows them", [worker])
        assert_nothing_else_happened(site, worker)
        assert worker.stop() == 0


def assert_rejected(site: Site, worker: RunningWorker, bad: list[Bad]) -> None:
    letters = sorted(site.read(site.own("dead-letters")), key=lambda record: int(headers(record)["offset"]))
    assert len(letters) == len(bad)
    for number, (letter, each) in enumerate(zip(letters, bad, strict=True)):
        told = headers(letter)
        assert told.pop("detail")
        place = {"topic": site.events[0], "partition": "0", "offset": str(2 * number + 1)}
        assert told == {"reason": each.reason, **place}, each.name
        assert_same_record(letter, each)
    for reason, count in Counter(each.reason for each in bad).items():
        assert worker.total("streamseg_dead_letters_total", reason=reason) == count, reason
    assert worker.total("streamseg_dead_letters_total") == len(bad)
    assert worker.total("streamseg_events_total", result="rejected") == len(bad)


def assert_nothing_else_happened(site: Site, worker: RunningWorker) -> None:
    """No time stamp moved a clock, no name made a metric, and nobody got an answer."""
    clocks = [value for (name, _), value in worker.metrics().items() if name == "streamseg_partition_clock_seconds"]
    assert len(clocks) == site.partitions
    assert max(clocks) <= wall_clock() / 1000
    assert len(worker.metrics()) < 300
    assert "victim" not in site.topic_names()


def assert_same_record(letter: ConsumerRecord, bad: Bad) -> None:
    key, value = bad.record.key, bad.record.value
    if len(key or b"") + len(value or b"") <= WHOLE:
        assert (letter.key, letter.value) == (key, value), bad.name
    else:
        assert (key or b"").startswith(letter.key or b""), bad.name
        assert (value or b"").startswith(letter.value or b""), bad.name
        assert len(letter.key or b"") + len(letter.value or b"") == WHOLE, bad.name


def headers(record: ConsumerRecord) -> dict[str, str]:
    assert len(record.headers) == 5
    return {name: value.decode() for name, value in record.headers}


def applied(worker: RunningWorker) -> float:
    return worker.total("streamseg_events_total", result="applied")


def test_an_event_that_comes_twice_counts_once_and_is_no_dead_letter(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = site_of(kafka, redis_url, prefix, tmp_path)
    twice = Sent(text(wall_clock()), b"c-good")
    with site.worker() as worker:
        site.send({0: [twice, twice]})
        site.wait_until_done([worker])
        assert applied(worker) == 1
        assert worker.total("streamseg_events_total", result="duplicate") == 1
        assert worker.total("streamseg_dead_letters_total") == 0
    assert site.read(site.own("dead-letters")) == []


def test_a_topic_that_begins_with_what_is_no_event_was_still_seen_from_its_beginning(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = site_of(kafka, redis_url, prefix, tmp_path)
    with site.worker() as worker:
        site.send({0: [Sent(b"{", b"c-good"), Sent(text(wall_clock(), type="purchase", amount=5), b"c-good")]})
        site.wait_until_done([worker])
        changes = site.changes()["c-good"]
        assert changes
        assert all(change["complete"] for change in changes)


def test_a_worker_reads_no_header_so_that_none_can_stop_it(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = site_of(kafka, redis_url, prefix, tmp_path)
    now = wall_clock()
    with site.worker() as worker:
        first, broken, third, *later = (text(now, id=f"h-{number}") for number in range(10))
        headed = Sent(broken, b"c-good", [("NAME", b"x")])
        site.send({0: [Sent(first, b"c-good"), headed, Sent(third, b"c-good")]}, broken_header="NAME")
        site.send({0: [Sent(event, b"c-good") for event in later]})
        site.wait_until_done([worker])
        assert applied(worker) == 10


def test_a_customer_who_moves_with_every_event_of_a_long_batch_does_not_outgrow_a_record(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path, definitions(tmp_path), partitions=1).create()
    bought = [text(number, id=f"p-{number}", type="purchase", amount=1) for number in range(500)]
    back = [text(number, id=f"r-{number}", type="refund", order_id=f"p-{number}") for number in range(500)]
    site.send({0: [Sent(event, b"c-good") for pair in zip(bought, back, strict=True) for event in pair]})
    with site.worker() as worker:
        site.wait_until_done([worker])
        changes = site.changes()["c-good"]
        assert [change["to"] for change in changes] == (["buyer"] * 6 + ["nobody"] * 6) * 500
        # Together they have more than two megabytes.
        assert max(len(record.value) for record in site.read(site.changelog)) < WHOLE


def definitions(directory: Path) -> Path:
    """A buyer, in six schemes, is who has an order that was not given back."""
    scheme = "{default: nobody, segments: [{name: buyer, when: orders >= 1}]}"
    path = directory / "buyers.yaml"
    path.write_text(
        "version: 1\ncurrency: USD\nfeatures: {orders: 'count(purchase, 90d)'}\n"
        "schemes:\n" + "".join(f"  scheme_{number}: {scheme}\n" for number in range(6))
    )
    return path
