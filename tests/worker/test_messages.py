"""What others read of a worker: CloudEvents, assignments, Redis, counters, its pages, and how it ends."""

from __future__ import annotations

import json
import uuid
from datetime import datetime
from pathlib import Path

import pytest
from aiokafka import ConsumerRecord
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat

from streamseg.formats.definitions_yaml import load_definitions
from streamseg.worker.metrics import METRIC_NAMES
from tests.worker.running_worker import STARTER, RunningWorker, Site

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
LISTENING = "0A"

DAYS = ("2026-01-01", "2026-01-20", "2026-02-10")


def purchase(customer: str, number: int, day: str) -> tuple[str, bytes]:
    event = {"id": f"{customer}-{number}", "type": "purchase", "customer_id": customer, "amount": "30.00"}
    return customer, json.dumps({**event, "time": f"{day}T10:00:00Z"}).encode()


@pytest.fixture(scope="module")
def told(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An installation whose worker has done all there was, and has stopped."""
    site = bought(kafka, redis_url, f"test-{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("told"))
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert worker.stop() == 0
    return site


@pytest.fixture
def site(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> Site:
    """An installation whose worker has still to do everything."""
    return bought(kafka, redis_url, prefix, tmp_path)


def bought(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> Site:
    """An installation with one partition and one customer who bought three times."""
    site = Site(kafka, redis_url, prefix, tmp_path, partitions=1).create()
    site.produce([purchase("c-1", number, day) for number, day in enumerate(DAYS)])
    return site


def headers(record: ConsumerRecord) -> dict[str, bytes]:
    return dict(record.headers)


def test_changes_are_cloud_events_as_the_sdk_reads_them(told: Site) -> None:
    records = told.read(told.own("segment-changes"))
    assert [json.loads(record.value)["to"] for record in records][:3] == [
        "new_customers",
        "active",
        "potential_loyalists",
    ]
    for record in records:
        assert_cloud_event(told, record)


def assert_cloud_event(site: Site, record: ConsumerRecord) -> None:
    data = json.loads(record.value)
    assert len(headers(record)) == len(record.headers), "no header twice"
    event = from_binary(KafkaMessage(headers(record), record.key, record.value), JSONFormat())
    assert event.get_specversion() == "1.0"
    assert event.get_id() == f"{data['customer_id']}:{data['version']}"
    assert event.get_source() == f"/{site.prefix}/segments"
    assert event.get_type() == "streamseg.segment.changed.v1"
    assert event.get_subject() == data["customer_id"] == record.key.decode()
    assert event.get_time() == datetime.fromisoformat(data["time"])
    assert event.get_datacontenttype() == "application/json"
    assert event.get_data() == data
    assert set(headers(record)) == {
        *("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "content-type")
    }


def test_the_assignment_of_a_customer_stands_on_the_compacted_topic_and_in_redis(told: Site) -> None:
    last = told.changes()["c-1"][-1]
    current = told.current()["c-1"]
    schemes = current.pop("schemes")
    assert current == {
        "customer_id": "c-1",
        "version": last["version"],
        "time": last["time"],
        "definitions": load_definitions(STARTER.read_bytes()).hash,
    }
    shown = told.shown()["c-1"]
    expected = {"version": str(last["version"]), "updated_at": last["time"]}
    for scheme, each in schemes.items():
        changes = [change for change in told.changes()["c-1"] if change["scheme"] == scheme]
        assert (each["segment"], each["since"]) == (changes[-1]["to"], changes[-1]["time"])
        expected |= {scheme: each["segment"], f"{scheme}.since": each["since"]}
        expected |= {f"{scheme}.next_change_at": each["next_change_at"], f"{scheme}.next_segment": each["next_segment"]}
    assert shown == expected
    assert told.counts() == {scheme: {each["segment"]: 1} for scheme, each in schemes.items()}


def test_migrations_are_counted_by_day_and_kept_for_400_days(told: Site) -> None:
    moves = told.moves()
    assert moves["value:2026-01-20"] == {"new_customers>potential_loyalists": 1}
    counted = sum(sum(each.values()) for each in moves.values())
    assert counted == sum(change["from"] is not None for change in told.changes()["c-1"])
    with told.redis() as redis:
        for key in redis.scan_iter(f"{told.prefix}:moves:*"):
            assert 399 * 86_400 < redis.ttl(key) <= 400 * 86_400


def test_a_worker_says_that_it_lives_and_is_ready_and_shows_every_metric_on_the_loopback_interface_only(
    site: Site,
) -> None:
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert worker.get("/livez") == (200, "ok\n")
        assert worker.get("/readyz") == (200, "ok\n")
        assert worker.get("/customers")[0] == 404
        status, metrics = worker.get("/metrics")
        assert status == 200
        assert all(f"# TYPE {name.removesuffix('_total')}" in metrics for name in METRIC_NAMES)
        assert "c-1" not in metrics
        assert worker.total("streamseg_events_total", result="applied", type_class="purchase") == 3
        assert worker.total("streamseg_consumer_lag_records") == 0
        assert worker.total("streamseg_redis_up") == 1
        addresses = listened_addresses(worker)
        assert addresses
        assert addresses <= LOOPBACK


def listened_addresses(worker: RunningWorker) -> set[str]:
    """Addresses that the worker's process listens on, as the kernel writes them."""
    process = Path(f"/proc/{worker.process.pid}")
    own = {str(each.readlink()) for each in (process / "fd").iterdir()}
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in (process / "net" / table).read_text().splitlines()[1:]
    ]
    return {row[1].split(":")[0] for row in rows if row[3] == LISTENING and f"socket:[{row[9]}]" in own}


def test_a_worker_that_is_told_to_stop_leaves_the_group_and_its_successor_replays_nothing(site: Site) -> None:
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert site.members() == 1
        assert worker.stop() == 0
        assert site.members() == 0
        assert worker.get("/livez") == (0, "")
    site.produce([purchase("c-2", 0, "2026-02-11")])
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert worker.total("streamseg_events_total", result="replayed") == 0
        assert worker.total("streamseg_events_total", result="applied") == 1
        assert worker.total("streamseg_republished_changes_total") == 0
        assert worker.stop() == 0
