"""What others may do around a worker, to its port, topics and definitions: it goes on, or ends with one clear line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from streamseg.formats import state as records
from streamseg.formats.state import CHECKPOINT_KEY
from streamseg.services.service import LOOPBACK
from streamseg.worker.http import MOST_CONNECTIONS
from tests.worker.bad_records import text
from tests.worker.running_worker import RunningWorker, Sent, Site, do, wait_until
from tests.worker.test_dead_letters import applied, headers, wall_clock

COMPACT = {"cleanup.policy": "compact"}
NEARLY = 290_000
"""Nearly five minutes, in milliseconds."""


@pytest.fixture
def site(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> Site:
    return Site(kafka, redis_url, prefix, tmp_path, clock="wall", partitions=2)


# The port


def connected(worker: RunningWorker, begin: bytes) -> socket.socket:
    """A connection on which somebody has said something."""
    connection = socket.create_connection((LOOPBACK, worker.port), timeout=10)
    connection.sendall(begin)
    return connection


def status(worker: RunningWorker, request: bytes) -> int:
    """The status that a request gets."""
    with connected(worker, request) as connection:
        answer = connection.recv(4096)
    return int(answer.split()[1])


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


@contextmanager
def slow_connections(worker: RunningWorker, count: int) -> Iterator[list[socket.socket]]:
    """Many who begin a request and never end it."""
    with ExitStack() as stack:
        yield [stack.enter_context(connected(worker, b"GET /metrics HTTP/1.1\r\nHost: ")) for _ in range(count)]


REQUESTS = {
    b"GET /" + b"a" * 8_192 + b" HTTP/1.1\r\nHost: x\r\n\r\n": 400,
    b"GET /" + b"a" * 7_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n": 404,
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n": 400,
    b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n": 404,
    b"GET /metrics%00 HTTP/1.1\r\nHost: x\r\n\r\n": 404,
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n": 404,
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n": 404,
    b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n": 200,
    b"PUT /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n": 405,
    b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n": 405,
    b"BREW /metrics HTTP/1.1\r\nHost: x\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": 400,
    b"nonsense\r\n\r\n": 400,
}


def test_nobody_can_hold_up_events_or_the_health_check_from_the_worker_s_port(site: Site) -> None:
    site.create()
    now = wall_clock()
    with site.worker() as worker, slow_connections(worker, 4 * MOST_CONNECTIONS) as slow:
        site.send({0: [Sent(text(now, id=f"e-{number}"), b"c-good") for number in range(50)]})
        site.wait_until_done([worker])
        assert {request[:40]: status(worker, request) for request in REQUESTS} == {
            request[:40]: code for request, code in REQUESTS.items()
        }
        assert (applied(worker), worker.get("/livez")[0], worker.get("/readyz")[0]) == (50, 200, 200)
        wait_until(lambda: sum(map(is_open, slow)) <= MOST_CONNECTIONS, "most slow connections are closed", [worker])


# Input topics


def test_odd_offsets_and_times_of_records_change_nothing_and_a_changelog_may_hold_what_is_of_nobody(site: Site) -> None:
    site.create({"message.timestamp.type": "LogAppendTime"})
    write_what_is_of_nobody(site)
    began = wall_clock()
    with site.worker() as worker:
        do(transact(site, began))
        site.send({1: time_bomb(began)})
        site.wait_until_done([worker])
        assert applied(worker) == 30 + 1
        assert_gaps_were_passed(site, worker)
        assert worker.total("streamseg_dead_letters_total", reason="future_time") == len(time_bomb(began)) - 1
        assert worker.total("streamseg_partition_clock_seconds", partition="1") == (began + NEARLY) / 1000
        assert worker.stop() == 0
    with site.worker() as worker:
        site.send({0: [Sent(text(began, id="last"), b"c-good")]})
        site.wait_until_done([worker])
        assert applied(worker) == 1
        assert worker.total("streamseg_events_total") == 1


@pytest.mark.parametrize("compression", [None, "snappy", "gzip", "lz4", "zstd"])
def test_events_count_however_their_producers_compress_them(site: Site, compression: str | None) -> None:
    site.create()
    do(send_compressed(site, compression, wall_clock()))
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert applied(worker) == worker.total("streamseg_events_total") == 300


async def send_compressed(site: Site, compression: str | None, now: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=site.kafka, compression_type=compression, linger_ms=50) as producer:
        for number in range(300):
            customer = f"c-{number % 30}"
            await producer.send(site.events[0], text(now, id=f"z-{number}", customer_id=customer), customer.encode())


def write_what_is_of_nobody(site: Site) -> None:
    """A customer who was deleted, a record of another version, no checkpoint; a checkpoint of a topic of old."""
    site.create_topic(site.changelog, site.partitions, COMPACT)
    checkpoint = records.encode_checkpoint(records.Checkpoint(0, 0, 0, {"a-topic-of-old": 5}, -1, ""))
    nobody = [Sent(None, b"c-1"), Sent(b"?", b"\x00of another version"), Sent(None, CHECKPOINT_KEY)]
    site.send({1: nobody, 0: [Sent(checkpoint, CHECKPOINT_KEY)]}, site.changelog)


async def transact(site: Site, now: int) -> None:
    """Leave gaps, as transactions and compaction do.

    Six turns of five good events and one that is none, a marker, nine events that never happened, and a marker.
    """
    async with AIOKafkaProducer(bootstrap_servers=site.kafka, transactional_id=site.prefix) as producer:
        for turn in range(6):
            await producer.begin_transaction()
            for number in range(5):
                await producer.send(site.events[0], text(now, id=f"{turn}-{number}"), b"c-good", 0)
            await producer.send(site.events[0], b"{", b"c-good", 0)
            await producer.commit_transaction()
            await producer.begin_transaction()
            for number in range(9):
                await producer.send(site.events[0], text(now, id=f"no-{turn}-{number}"), b"c-good", 0)
            await producer.abort_transaction()


def assert_gaps_were_passed(site: Site, worker: RunningWorker) -> None:
    letters = [headers(record) for record in site.read(site.own("dead-letters")) if record.partition == 0]
    assert [(each["reason"], each["offset"]) for each in letters] == [
        ("malformed_json", str(17 * turn + 5)) for turn in range(6)
    ]
    assert worker.total("streamseg_consumer_lag_records") == 0


def time_bomb(now: int) -> list[Sent]:
    """Events that are each nearly five minutes ahead of the one before."""
    events = [text(now + step * NEARLY, id=f"t-{step}", customer_id="c-early") for step in range(1, 20)]
    return [Sent(event, b"c-early") for event in events]


# Our own topics


def ends_with(site: Site, code: int) -> str:
    """The last line of a worker that ends by itself with an exit code."""
    worker = site.start()
    try:
        assert worker.end() == code, worker.log_tail()
    finally:
        worker.kill()
    return worker.log_tail(1)


def test_a_changelog_that_somebody_else_wrote_to_is_refused_with_its_place(site: Site) -> None:
    site.create().create_topic(site.changelog, site.partitions, COMPACT)
    site.send({1: [Sent(b"hello, this is no state of anybody's", b"c-1")]}, site.changelog)
    said = ends_with(site, 70)
    assert f"{site.changelog}/1 has at offset 0, under the key b'c-1', a record that cannot be read: " in said
    assert "start with the version that wrote it, or with another --group and --prefix" in said


def test_without_dead_letters_nothing_that_was_rejected_is_acknowledged_and_nothing_behind_it_applied(
    site: Site,
) -> None:
    site.create()
    now = wall_clock()
    with site.workers() as [worker]:
        site.send({0: [Sent(text(now, id="before"), b"c-good")]})
        site.wait_until_done([worker])
        states = [r.offset for r in site.read(site.changelog) if r.key == b"c-good"]
        site.configure(site.own("dead-letters"), cleanup_policy="delete", max_message_bytes="1")
        site.send({0: [Sent(b"{" * 50, b"c-good"), Sent(text(now, id="after"), b"c-good")]})
        assert worker.end() == 70
        topic = site.own("dead-letters")
        assert f"partition 0 failed: the broker did not take what was written to {topic}/0: " in worker.log_tail(1)
    assert {tp.partition: offset for tp, offset in site.committed().items()} == {0: 1}
    checkpoints = [r.value for r in site.read(site.changelog) if r.partition == 0 and r.key == CHECKPOINT_KEY]
    assert records.read_checkpoint(checkpoints[-1]).sources.get(site.events[0], 0) <= 1
    assert site.read(site.own("dead-letters")) == []
    assert [r.offset for r in site.read(site.changelog) if r.key == b"c-good"] == states


# Definitions


@pytest.mark.parametrize(
    "hostile",
    [
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n",
        b"version: !!python/object/apply:os.system ['touch hacked']\n",
    ],
    ids=["an alias bomb", "an object"],
)
def test_a_worker_does_not_start_with_hostile_definitions(hostile: bytes, site: Site) -> None:
    definitions = site.directory / "hostile.yaml"
    definitions.write_bytes(hostile)
    worker = replace(site, definitions=definitions).start()
    try:
        assert worker.end() == 1
    finally:
        worker.kill()
    said = worker.log.read_text()
    assert said.startswith(f"{definitions}:1:")
    assert "error: " in said.splitlines()[0]
    assert "Traceback" not in said
    assert not (site.directory / "hacked").exists()
