"""A worker that finds wrong topics ends at once, with one line that says which and how to mend it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.worker.running_worker import RunningWorker, Site, wait_until


@pytest.fixture
def site(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> Site:
    return Site(kafka, redis_url, prefix, tmp_path, partitions=2)


def last_words(site: Site) -> str:
    """What a worker says that must not start; fails unless it is one line and the exit code is 1."""
    worker = site.start()
    try:
        assert worker.end() == 1
    finally:
        worker.kill()
    [line] = worker.log.read_text().splitlines()
    return line


def test_a_missing_event_topic_is_named_and_not_created(site: Site) -> None:
    line = last_words(site)
    assert line.startswith(f"event topic {site.events[0]} does not exist: ")
    assert site.events[0] not in site.topic_names()
    assert site.own("segment-changes") not in site.topic_names()


def test_event_topics_of_different_partition_counts_are_refused(site: Site) -> None:
    both = dataclasses.replace(site, topics=(f"{site.prefix}-a", f"{site.prefix}-b"))
    both.create_topic(both.events[0], 2)
    both.create_topic(both.events[1], 3)
    line = last_words(both)
    assert line.startswith("event topics must have the same number of partitions: ")
    assert f"{both.events[0]} 2, {both.events[1]} 3" in line


@pytest.mark.parametrize(("name", "policy"), [("changelog", "compact"), ("rekeyed", "delete")])
def test_one_of_our_topics_with_another_number_of_partitions_is_refused(name: str, policy: str, site: Site) -> None:
    topic = getattr(site, name)
    site.create()
    site.create_topic(topic, 3, {"cleanup.policy": policy})
    line = last_words(site)
    assert line.startswith(f"topic {topic} has 3 partitions and the event topics have 2: ")


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("segment-current", "delete", "compact"),
        ("segment-changes", "compact", "delete"),
        ("changelog", "delete", "compact"),
        ("rekeyed", "compact", "delete"),
    ],
)
def test_a_topic_that_would_lose_what_it_must_keep_is_refused(name: str, wrong: str, right: str, site: Site) -> None:
    topic = site.own(name) if name.startswith("segment") else getattr(site, name)
    site.create()
    site.create_topic(topic, 2, {"cleanup.policy": wrong})
    line = last_words(site)
    assert line.startswith(f"topic {topic} has cleanup.policy={wrong}; it must be {right}: ")
    assert f"--add-config cleanup.policy={right}" in line


def test_a_worker_creates_its_own_topics_with_the_partitions_of_the_event_topics(site: Site) -> None:
    site.create()
    own = {site.own(name) for name in ("segment-changes", "segment-current", "dead-letters")}
    own |= {site.changelog, site.rekeyed}
    with site.worker() as worker:
        assert own <= site.topic_names()
        assert worker.ready


def test_a_broker_that_is_away_is_a_reason_to_try_again(site: Site) -> None:
    worker = RunningWorker(dataclasses.replace(site, kafka="127.0.0.1:1"))
    wait_until(lambda: worker.process.poll() is not None, "it ends", patience=90.0)
    assert worker.end() == 75
    assert "no Kafka answers at 127.0.0.1:1: start it, or correct --kafka" in worker.log.read_text().splitlines()[-1]
