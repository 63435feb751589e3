"""T5, T6, T8, T18: brokers, Redis and networks that fail."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from redis import Redis

from streamseg.rebuild import rebuild
from streamseg.services import LocalKafka, LocalRedis
from streamseg.services.service import LOOPBACK, free_port
from streamseg.worker.settings import Names
from tests.chaos.proxy import Proxy
from tests.chaos.stage import PATIENCE, ChaosError, Grounds, Row, Stage
from tests.worker.redis_nodes import Node, fail_over, local_cluster
from tests.worker.running_worker import ROOT, Site, wait_until

STALL_SECONDS = 5.0


def t5(grounds: Grounds) -> Row:
    """Kill the broker, and start it again after a while."""
    row = Row("T5", "kill -9 the broker, back after 10 s and 60 s")
    with LocalKafka(grounds.directory / "T5" / "kafka") as kafka, grounds.stage(row, kafka.bootstrap) as stage:
        stage.start(2)
        stage.load(1_500)
        for down in [10.0, 60.0, 5.0] if not grounds.short else [3.0]:
            stage.pause_between(2.0, 4.0)
            kafka.kill()
            row.kills += 1
            stage.pause_between(down, down)
            kafka.start()
            stage.recover(set(range(stage.site.partitions)))
        stage.finish()
    return row


def t6(grounds: Grounds) -> Row:
    """Stall the broker, then kill the worker just after it goes on: what was not written must not be acknowledged."""
    row = Row("T6", "broker SIGSTOP 5 s, worker kill -9 within 0.5 s after")
    with LocalKafka(grounds.directory / "T6" / "kafka") as kafka:
        with grounds.stage(row, kafka.bootstrap) as stage:
            stage.start(1)
            stage.load(4_000)
            for _ in range(grounds.times(20, 1)):
                stage.pause_between(0.5, 2.0)
                _stall(kafka)
                time.sleep(stage.dice.uniform(0.0, 0.5))
                stage.kill(0)
            stage.finish()
        lost, doubled = control(grounds, kafka, grounds.times(5, 1))
    row.notes |= {"stock Faust lost": lost, "stock Faust doubled": doubled}
    if not lost and not doubled:
        row.wrong.append("stock Faust lost and doubled nothing: the fault does not bite")
    return row


def _stall(kafka: LocalKafka) -> None:
    kafka.pause()
    time.sleep(STALL_SECONDS)
    kafka.resume()


def control(grounds: Grounds, kafka: LocalKafka, times: int) -> tuple[int, int]:
    """The same fault with stock Faust: events lost and events counted more than once."""
    row = Row("T6-control", "")
    with grounds.stage(row, kafka.bootstrap) as stage:
        site = stage.site
        arguments = {"group": site.group, "kafka": site.kafka, "topic": site.events[0], "partitions": site.partitions}
        site.create_topic(f"{site.group}-counts-changelog", site.partitions, {"cleanup.policy": "compact"})
        stage.load(800, customers=1_000)
        worker = _stock(arguments, site.directory)
        try:
            for _ in range(times):
                _until_it_commits(stage, worker)
                stage.pause_between(1.0, 3.0)
                _stall(kafka)
                time.sleep(stage.dice.uniform(0.0, 0.5))
                worker.kill()
                worker.wait()
                worker = _stock(arguments, site.directory)
            assert stage.feed is not None
            stage.feed.stop()
            stage.wait(site.done, "stock Faust has committed all", 3 * PATIENCE)
        finally:
            worker.kill()
            worker.wait()
        sent = Counter(record.key for record in site.read(site.events[0]))
        counted = {r.key: int(r.value) for r in site.read(f"{site.group}-counts-changelog") if r.value is not None}
    differences = [counted.get(key, 0) - count for key, count in sent.items()]
    return -sum(each for each in differences if each < 0), sum(each for each in differences if each > 0)


def _stock(arguments: dict[str, object], directory: Path) -> subprocess.Popen[bytes]:
    data = directory / f"stock-{time.monotonic_ns()}"
    with (directory / "stock.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.control", json.dumps({**arguments, "data": str(data)})],
            cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip


def _until_it_commits(stage: Stage, worker: subprocess.Popen[bytes]) -> None:
    before = stage.site.committed()

    def commits() -> bool:
        if worker.poll() is not None:
            raise ChaosError(f"stock Faust ended with code {worker.poll()}: see stock.log")
        return stage.site.committed() != before

    stage.wait(commits, "stock Faust commits")


def t8(grounds: Grounds) -> Row:
    """Let Redis crash, hang, forget and overflow, and its network be slow, cut and dead; events go on meanwhile."""
    row = Row("T8", "Redis: kill -9, SIGSTOP, FLUSHALL, maxmemory; network +200 ms, resets, half-open")
    with LocalRedis(grounds.directory / "T8-redis") as redis, _network(redis.port, grounds.seed) as network:
        url = f"redis://{LOOPBACK}:{network.port}/0"
        with grounds.stage(row, redis_url=url) as stage:
            stage.start(2)
            stage.load(1_500, customers=3_000)
            for fault in (_away(redis), _hanging(redis), _flushed(redis), _full(redis), _slow(network), _dead(network)):
                stage.pause_between(*grounds.between((2.0, 3.0), (0.2, 0.4)))
                _go_on_amid(stage, fault, grounds.times(15, 1))
            for _ in range(grounds.times(10, 2)):
                network.cut(0.5)
                row.kills += 1
                stage.pause_between(0.1, 0.5)
            stage.finish()
    return row


def t8b(grounds: Grounds) -> Row:
    """The same with a cluster: one node forgets, one comes back empty, one fails over, and it is all made anew."""
    row = Row("T8b", "Redis Cluster: FLUSHALL of a node, restart without data, fail-over, rebuild-redis")
    with (
        local_cluster(grounds.directory / "T8b-redis", replicas=1) as nodes,
        grounds.stage(row, redis_url=nodes[1].url, redis_cluster=True) as stage,
    ):
        stage.start(2)
        stage.load(1_000, customers=3_000)
        for fault in (_forget_one(nodes), _empty(nodes), _fail_over(nodes), _rebuild(stage.site)):
            stage.pause_between(*grounds.between((2.0, 3.0), (0.2, 0.4)))
            _go_on_amid(stage, fault, grounds.times(10, 1))
        stage.finish()
    return row


def _go_on_amid(stage: Stage, fault: AbstractContextManager[None], seconds: float) -> None:
    """Events are committed while the fault lasts."""
    stage.require_unfinished()
    stage.row.kills += 1
    with fault:
        before = _committed(stage.outside)
        stage.pause_between(seconds, seconds)
        stage.wait(lambda: _committed(stage.outside) > before, "events are worked on amid the fault")


def _committed(site: Site) -> int:
    return sum(site.committed().values())


@contextmanager
def _network(port: int, seed: int) -> Iterator[Proxy]:
    proxy = Proxy(port, seed)
    try:
        yield proxy
    finally:
        proxy.stop()


@contextmanager
def _away(redis: LocalRedis) -> Iterator[None]:
    redis.kill()
    yield
    redis.start()


@contextmanager
def _hanging(redis: LocalRedis) -> Iterator[None]:
    redis.pause()
    yield
    redis.resume()


@contextmanager
def _flushed(redis: LocalRedis) -> Iterator[None]:
    with Redis.from_url(redis.url) as client:
        client.flushall()
    yield


@contextmanager
def _full(redis: LocalRedis) -> Iterator[None]:
    with Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", "1mb")
        yield
        client.config_set("maxmemory", "0")


@contextmanager
def _slow(network: Proxy) -> Iterator[None]:
    network.delay = 0.2
    yield
    network.delay = 0.0


@contextmanager
def _dead(network: Proxy) -> Iterator[None]:
    network.hanging = True
    yield
    network.hanging = False


@contextmanager
def _forget_one(nodes: list[Node]) -> Iterator[None]:
    nodes[1].tell("FLUSHALL")
    yield


@contextmanager
def _empty(nodes: list[Node]) -> Iterator[None]:
    nodes[2].kill()
    yield
    nodes[2].start()


@contextmanager
def _fail_over(nodes: list[Node]) -> Iterator[None]:
    wait_until(lambda: nodes[3].works, "the cluster works")
    fail_over(nodes[0], nodes[3])
    yield


@contextmanager
def _rebuild(site: Site) -> Iterator[None]:
    rebuild(site.redis_url, Names(site.prefix))
    yield


def t18(grounds: Grounds) -> Row:
    """A network between worker and broker that is slow, cuts connections, and hangs for longer than a session."""
    row = Row("T18", "network: +200 ms, resets, half-open for 20 s")
    inner = free_port()
    proxy = Proxy(inner, grounds.seed)
    directory = grounds.directory / "T18" / "kafka"
    try:
        with LocalKafka(directory, settings={}) as probe:
            broker, controller = probe.port, probe._controller_port
            probe.stop()
            probe.settings.update(
                {
                    "listeners": f"PLAINTEXT://{LOOPBACK}:{broker},FAR://{LOOPBACK}:{inner},"
                    f"CONTROLLER://{LOOPBACK}:{controller}",
                    "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{broker},FAR://{LOOPBACK}:{proxy.port}",
                    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,FAR:PLAINTEXT,CONTROLLER:PLAINTEXT",
                    "inter.broker.listener.name": "PLAINTEXT",
                }
            )
            probe.start()
            with grounds.stage(row, f"{LOOPBACK}:{proxy.port}", outside=probe.bootstrap) as stage:
                stage.start(2)
                stage.load(1_000)
                everything = set(range(stage.site.partitions))
                stage.pause_between(1.0, 2.0)
                proxy.delay = 0.2
                stage.pause_between(*[grounds.times(15, 3)] * 2)
                proxy.delay = 0.0
                row.kills += 1
                stage.recover(everything)
                for _ in range(grounds.times(30, 5)):
                    proxy.cut(0.3)
                    row.kills += 1
                    stage.pause_between(0.3, 0.6)
                stage.recover(everything)
                proxy.hanging = True
                time.sleep(grounds.times(20, 12))
                proxy.hanging = False
                row.kills += 1
                stage.recover(everything)
                stage.finish()
    finally:
        proxy.stop()
    return row
