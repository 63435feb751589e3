"""The commands that talk to Kafka, beside a worker that runs."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.partitioner import DefaultPartitioner

from streamseg.core.units import parse_instant
from tests.acceptance.commands import PATIENCE, Outcome, run, started
from tests.worker.running_worker import STARTER, Site, do, wait_until

CUSTOMER = "c000003"


@pytest.fixture
def site(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> Site:
    return Site(kafka, redis_url, prefix, tmp_path)


def records(kafka: str, topic: str, partitions: int) -> dict[int, list[ConsumerRecord]]:
    """All records of a topic, by partition."""

    async def read() -> dict[int, list[ConsumerRecord]]:
        found: dict[int, list[ConsumerRecord]] = defaultdict(list)
        async with AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
            tps = [TopicPartition(topic, each) for each in range(partitions)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            for tp in tps:
                found[tp.partition] = []
                while await consumer.position(tp) < ends[tp]:
                    found[tp.partition] += (await consumer.getmany(tp, timeout_ms=1000)).get(tp, [])
        return found

    return do(read())


def history(events: int, customers: int = 40, seed: int = 3) -> list[object]:
    return [
        "generate", "--events", events, "--customers", customers, "--seed", seed, "--start", "2026-01-01T00:00:00Z",
    ]  # fmt: skip


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process at the end of the block, whatever happened."""
    with process:
        try:
            yield process
        finally:
            process.kill()


# Generate


def test_generated_history_comes_to_the_partitions_where_any_client_would_put_it(
    kafka: str, topic: str, tmp_path: Path
) -> None:
    done = run(*history(3_000), "--kafka", kafka, "--topic", topic, "--partitions", 5, directory=tmp_path)
    assert done.code == 0, done
    assert f"3,000 events to {topic}" in done.errors
    found = records(kafka, topic, 5)
    assert sorted(found) == [0, 1, 2, 3, 4]
    partitioner, every = DefaultPartitioner(), list(range(5))
    assert all(partitioner(record.key, every, every) == each for each, own in found.items() for record in own)
    made = run(*history(3_000), directory=tmp_path).bytes.splitlines()
    assert sorted(record.value for own in found.values() for record in own) == sorted(made)


def test_each_customer_s_events_keep_their_order(kafka: str, topic: str, tmp_path: Path) -> None:
    ratios = ["--late-ratio", 0, "--duplicate-ratio", 0, "--malformed-ratio", 0]
    settings = [*history(3_000), *ratios]
    assert run(*settings, "--kafka", kafka, "--topic", topic, "--partitions", 2, directory=tmp_path).code == 0
    for own in records(kafka, topic, 2).values():
        times = [json.loads(record.value)["time"] for record in own]
        assert times == sorted(times)


def test_a_topic_that_is_missing_is_only_created_when_told_how(kafka: str, topic: str, tmp_path: Path) -> None:
    done = run(*history(100), "--kafka", kafka, "--topic", topic, directory=tmp_path)
    assert (done.code, done.errors) == (
        1,
        f"topic {topic} does not exist: give --partitions N to create it, or correct --topic\n",
    )


def test_live_traffic_is_of_now_and_ends_when_it_is_told_to(site: Site, kafka: str, topic: str, tmp_path: Path) -> None:
    site.create_topic(topic, 2)
    began = time.time_ns() // 1_000_000
    arguments = ["generate", "--customers", 30, "--rate", 400, "--malformed-ratio", 0, "--late-ratio", 0]
    process = started([*arguments, "--kafka", kafka, "--topic", topic], tmp_path)
    with stopped(process):
        wait_until(lambda: sum(map(len, records(kafka, topic, 2).values())) > 700, "there is traffic")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    ended = time.time_ns() // 1_000_000
    events = [json.loads(record.value) for own in records(kafka, topic, 2).values() for record in own]
    assert f"{len(events):,} events to {topic}" in errors.decode()
    times = [parse_instant(event["time"]) for event in events]
    in_order = [event for event in events if not event["id"].count("again")]
    assert all(began - 3_600_000 <= each <= ended for each in times)
    assert sum(each >= began for each in times) > 0.9 * len(times)
    assert len({event["id"] for event in in_order}) > 0.95 * len(in_order)


# Tail and explain


def tail(site: Site, *arguments: object) -> Outcome:
    options = ["--kafka", site.kafka, "--prefix", site.prefix, *arguments]
    return run("tail", *options, directory=site.directory)


def explain(site: Site, customer: str, *arguments: object) -> Outcome:
    options = ["--definitions", site.definitions, *arguments]
    return run("explain", customer, *options, directory=site.directory)


def of_kafka(site: Site) -> list[object]:
    return ["--kafka", site.kafka, "--prefix", site.prefix, "--group", site.group]


def fed(site: Site, lines: Iterable[bytes]) -> None:
    site.produce([(json.loads(line)["customer_id"], line) for line in lines])


def shop_lines(site: Site, events: int) -> list[bytes]:
    done = run(*history(events), "--malformed-ratio", 0, "--late-ratio", 0, directory=site.directory)
    (site.directory / "events.jsonl").write_bytes(done.bytes)
    return done.bytes.splitlines()


def test_tail_shows_what_the_worker_published_and_explain_what_a_replay_would(site: Site) -> None:
    site.create()
    with site.worker() as worker:
        fed(site, shop_lines(site, 1_500))
        site.wait_until_done([worker])
        changes = site.published()
        assert worker.stop() == 0
    assert len(changes) > 50
    shown = tail(site, "--from-beginning", "--max", len(changes), "--json")
    assert shown.code == 0, shown
    key = "customer_id", "version"
    assert sorted((json.loads(line) for line in shown.lines), key=lambda each: [each[name] for name in key]) == sorted(
        changes, key=lambda each: [each[name] for name in key]
    )
    check_line(site, next(change for change in changes if change["from"] and change["reason"] == "event"))
    check_filters(site, changes)
    check_explain(site, {change["customer_id"] for change in changes})


def check_line(site: Site, change: dict[str, Any]) -> None:
    wanted = ["--customer", change["customer_id"], "--scheme", change["scheme"]]
    shown = tail(site, "--from-beginning", *wanted, "--max", 1 + changes_before(site, change))
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in change["values"].items()}
    values = " ".join(f"{name}={text}" for name, text in texts.items())
    assert shown.lines[-1] == (
        f"{change['time']}  {change['customer_id']}  {change['scheme']}: {change['from']} → {change['to']}"
        f"  event {change['cause']}  {values}"
    )


def changes_before(site: Site, change: dict[str, Any]) -> int:
    """How many changes of the same customer and scheme there were earlier."""
    same = [each for each in site.published() if each["customer_id"] == change["customer_id"]]
    return sum(each["scheme"] == change["scheme"] and each["version"] < change["version"] for each in same)


def check_filters(site: Site, changes: list[dict[str, Any]]) -> None:
    wanted = [each for each in changes if each["scheme"] == "engagement" and each["customer_id"] == CUSTOMER]
    assert wanted
    options = ["--from-beginning", "--scheme", "engagement", "--customer", CUSTOMER, "--json"]
    shown = tail(site, *options, "--max", len(wanted))
    assert [json.loads(line) for line in shown.lines] == wanted


def check_explain(site: Site, customers: set[str]) -> None:
    for customer in sorted(customers)[:3]:
        at = ["--at", "2027-01-01T00:00:00Z", "--json"]
        stored = explain(site, customer, *of_kafka(site), *at)
        assert stored.code == 0, stored
        replayed = explain(site, customer, "--replay", "events.jsonl", *at)
        assert json.loads(stored.output) == json.loads(replayed.output)
    before = time.time_ns() // 1_000_000
    now = json.loads(explain(site, CUSTOMER, *of_kafka(site), "--json").output)["time"]
    assert before <= parse_instant(now) <= time.time_ns() // 1_000_000
    unknown = explain(site, "nobody", *of_kafka(site))
    assert unknown.code == 1
    assert unknown.errors.startswith(f"customer 'nobody' is unknown: {site.changelog} has no state of it.")
    other = site.directory / "other.yaml"
    other.write_bytes(STARTER.read_bytes() + b"# changed\n")
    wrong = run("explain", CUSTOMER, "--definitions", other, *of_kafka(site), directory=site.directory)
    assert wrong.code == 1
    assert "give the file that the worker runs with" in wrong.errors


def test_tail_follows_a_worker_and_ends_with_code_0_at_ctrl_c(site: Site) -> None:
    site.create()
    lines = shop_lines(site, 600)
    with (
        site.worker() as worker,
        stopped(started(["tail", "--kafka", site.kafka, "--prefix", site.prefix, "--json"], site.directory)) as process,
    ):
        assert process.stderr is not None
        assert b"following" in process.stderr.readline()
        fed(site, lines)
        site.wait_until_done([worker])
        expected = site.published()
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline()) for _ in expected]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""
    by_id = sorted((each["customer_id"], each["version"]) for each in seen)
    assert by_id == sorted((each["customer_id"], each["version"]) for each in expected)


def test_tail_ends_quietly_when_nobody_reads_any_more(site: Site) -> None:
    site.create()
    with site.worker() as worker:
        fed(site, shop_lines(site, 300))
        site.wait_until_done([worker])
    with stopped(
        started(["tail", "--kafka", site.kafka, "--prefix", site.prefix, "--from-beginning"], site.directory)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    "command", [["tail"], ["explain", "c1", "--definitions", str(STARTER)]], ids=["tail", "explain"]
)
def test_without_a_worker_s_topics_the_hint_is_to_correct_the_prefix(
    command: list[str], kafka: str, prefix: str, tmp_path: Path
) -> None:
    done = run(*command, "--kafka", kafka, "--prefix", prefix, directory=tmp_path)
    assert done.code == 1
    assert f"topic {prefix}." in done.errors
    assert "does not exist: correct --prefix" in done.errors
