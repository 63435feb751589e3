"""The topics of our own: created if missing, verified if not; the event topics are their owner's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError

from streamseg.core.errors import InputError, TryAgainError
from streamseg.worker.settings import MAX_RECORD_BYTES, Names

DAY_MS = 86_400_000
VISIBLE_POLL_SECONDS = 0.05


class TopicError(InputError):
    """A topic is not what it must be."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of ours; `required` settings are verified, `initial` ones are its owner's to change."""

    name: str
    required: Mapping[str, str]
    initial: Mapping[str, str]


def own_topics(names: Names, group: str) -> tuple[Topic, ...]:
    """The topics that a group's workers write."""
    compact = {"cleanup.policy": "compact"}
    # The broker stamps: it refuses stamps far ahead of its clock, and a worker's clock decides nothing about retention.
    stamped = {"message.timestamp.type": "LogAppendTime"}
    return (
        Topic(names.changes, {"cleanup.policy": "delete"}, {"retention.ms": str(30 * DAY_MS), **stamped}),
        Topic(names.current, compact, {"min.cleanable.dirty.ratio": "0.1", **stamped}),
        Topic(names.dead_letters, {"cleanup.policy": "delete"}, {"retention.ms": str(7 * DAY_MS), **stamped}),
        # As long as the longest outage of the workers, and longer: what is deleted unread is lost.
        Topic(names.rekeyed(group), {"cleanup.policy": "delete"}, {"retention.ms": str(7 * DAY_MS), **stamped}),
        # A record that a newer one replaced is kept for an hour: its changes may have to be published again.
        Topic(
            names.changelog(group),
            compact,
            {
                **stamped,
                "min.compaction.lag.ms": "3600000",
                "segment.ms": str(6 * 3_600_000),
                "max.message.bytes": str(MAX_RECORD_BYTES),
            },
        ),
    )


async def prepare(
    kafka: tuple[str, ...], events: tuple[str, ...], names: Names, group: str, *, create: bool = True
) -> int:
    """Creates or verifies all topics; returns how many partitions they have.

    Raises TopicError if an event topic is missing, partitions differ, or a policy is wrong; TryAgainError if no
    broker answers.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=list(kafka))
    try:
        await admin.start()
    except KafkaConnectionError as error:
        await admin.close()
        raise TryAgainError(f"no Kafka answers at {','.join(kafka)}: start it, or correct --kafka") from error
    try:
        described = await _described(admin, list(events))
        partitions = _event_partitions({name: len(each) for name, each in described.items()}, events)
        # As safe as the events they come from.
        replicas = len(described[events[0]][0]["replicas"])
        for topic in own_topics(names, group):
            await _prepare_one(admin, topic, partitions, replicas, create=create)
        return partitions
    finally:
        await admin.close()


async def wait_until_known(admin: AIOKafkaAdminClient, topic: str) -> None:
    """A broker learns of a new topic a moment after the controller."""
    while not await _described(admin, [topic]):
        await asyncio.sleep(VISIBLE_POLL_SECONDS)


async def _described(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The partitions of those topics that exist."""
    described: list[dict[str, Any]] = await admin.describe_topics(topics)
    return {each["topic"]: each["partitions"] for each in described if not each["error_code"]}


def _event_partitions(counts: Mapping[str, int], events: tuple[str, ...]) -> int:
    for topic in events:
        if topic not in counts:
            raise TopicError(f"event topic {topic} does not exist: its owner has to create it, or correct --events")
    if len({counts[topic] for topic in events}) > 1:
        listed = ", ".join(f"{topic} {counts[topic]}" for topic in events)
        raise TopicError(f"event topics must have the same number of partitions: {listed}")
    return counts[events[0]]


async def _prepare_one(
    admin: AIOKafkaAdminClient, topic: Topic, partitions: int, replicas: int, *, create: bool
) -> None:
    found = len((await _described(admin, [topic.name])).get(topic.name, ()))
    if not found:
        if not create:
            raise TopicError(f"topic {topic.name} does not exist: run streamseg topics")
        await _create(admin, topic, partitions, replicas)
        await wait_until_known(admin, topic.name)
        return
    if found != partitions:
        raise TopicError(
            f"topic {topic.name} has {found} partitions and the event topics have {partitions}: delete it, or start "
            "with another --prefix or --group"
        )
    await _verify(admin, topic)


async def _create(admin: AIOKafkaAdminClient, topic: Topic, partitions: int, replicas: int) -> None:
    configs = {**topic.initial, **topic.required}
    new = NewTopic(topic.name, num_partitions=partitions, replication_factor=replicas, topic_configs=configs)
    try:
        response = await admin.create_topics([new])
    except TopicAlreadyExistsError:  # another worker was faster
        return
    except KafkaError as error:
        raise TopicError(f"topic {topic.name} cannot be created: {error}") from error
    for name, code, *message in response.topic_errors:
        if code not in (0, 36):
            raise TopicError(f"topic {name} cannot be created: error {code} {' '.join(map(str, message))}")


async def _verify(admin: AIOKafkaAdminClient, topic: Topic) -> None:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name)
    [response] = await admin.describe_configs([resource])
    actual = {entry[0]: entry[1] for resource_ in response.resources for entry in resource_[4]}
    for key, wanted in topic.required.items():
        if actual.get(key) != wanted:
            raise TopicError(
                f"topic {topic.name} has {key}={actual.get(key)}; it must be {wanted}: kafka-configs --alter "
                f"--entity-type topics --entity-name {topic.name} --add-config {key}={wanted}"
            )
