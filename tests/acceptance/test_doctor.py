"""`streamseg doctor` says how producers key and partition, and whether workers can live with it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from streamseg.doctor import Sample
from streamseg.worker.settings import Keys
from tests.acceptance.commands import Outcome, run
from tests.worker.running_worker import Sent, Site, crc32_partitioner, murmur2_partitioner

Partitioner = Callable[[bytes, int], int]
DICE = random.Random(1)


def anywhere(_: bytes, partitions: int) -> int:
    return DICE.randrange(partitions)


def sample(partitioners: list[Partitioner], key: Callable[[str], bytes | None] = str.encode) -> Sample:
    """What some producers in turn sent of 100 customers, twice each."""
    found = Sample("shop", 4)
    for number in range(200):
        customer = f"c-{number % 100}"
        sent = key(customer)
        partition = partitioners[number % len(partitioners)](sent or b"", 4)
        found.add(partition, sent, b'{"customer_id":"%s"}' % customer.encode())
    return found


@pytest.mark.parametrize(
    ("partitioners", "name"),
    [
        ([murmur2_partitioner], "murmur2, as"),
        ([crc32_partitioner], "CRC32, as"),
        ([murmur2_partitioner, murmur2_partitioner, crc32_partitioner], "mixed: "),
        ([anywhere], "random, or another one: "),
    ],
)
def test_the_partitioner_is_told_from_where_keys_came(partitioners: list[Partitioner], name: str) -> None:
    assert sample(partitioners).partitioner.startswith(name)
    assert sample(partitioners, lambda _: None).partitioner == "no record has a key: any partition"


def problems(found: Sample) -> dict[str, bool]:
    """Whether workers with each of `--keys` have a problem with it."""
    return {keys.value: any(each.level == "problem" for each in found.findings(keys)) for keys in Keys}


def test_it_is_a_problem_what_workers_would_reject_or_split() -> None:
    assert problems(sample([murmur2_partitioner])) == {"rekey": False, "trust": False, "reject": False}
    assert problems(sample([crc32_partitioner])) == {"rekey": False, "trust": False, "reject": True}
    assert problems(sample([anywhere])) == {"rekey": False, "trust": True, "reject": True}
    assert problems(sample([murmur2_partitioner], lambda _: None)) == {"rekey": False, "trust": True, "reject": True}
    assert any("--keys trust would do" in each.text for each in sample([crc32_partitioner]).findings(Keys.REKEY))


def doctor(site: Site, *more: str) -> Outcome:
    asked = ("--kafka", site.kafka, "--events", ",".join(site.events), "--group", site.group, "--prefix", site.prefix)
    return run("doctor", *asked, *more, directory=site.directory)


def test_an_installation_is_examined_from_its_topics_to_its_latest_events(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = Site(kafka, redis_url, prefix, tmp_path)
    assert doctor(site).lines == [
        f"✗ event topic {site.events[0]} does not exist: its owner has to create it, or correct --events"
    ]
    site.create()
    shares: defaultdict[int, list[Sent]] = defaultdict(list)
    for number in range(1_000):
        key = b"c-%d" % number
        shares[crc32_partitioner(key, 4)].append(Sent(b'{"customer_id":"%s"}' % key, key))
    shares[0] += [Sent(b"{"), Sent(b'{"customer_id":"c-x"}', b"session")]
    site.send(shares)
    found = doctor(site)
    assert found.code == 1
    assert found.lines[0].endswith("does not exist: run streamseg topics")
    assert run(
        "topics", "--kafka", kafka, "--events", site.events[0], "--group", site.group, "--prefix", prefix,
        directory=tmp_path,
    ).code == 0  # fmt: skip
    found = doctor(site)
    assert found.code == 0
    assert found.lines[0] == "✓ topics: all there, 4 partitions each, policies as they must be"
    assert found.lines[1] == f"✓ {site.events[0]}: 1,002 latest records, 1,001 customers"
    assert "1 are no events of a customer" in found.output
    assert "1 without a key, 1 under another key than the customer id: sent on" in found.output
    assert doctor(site, "--keys", "trust").code == 1
    assert doctor(site, "--records", "10").lines[1].startswith(f"✓ {site.events[0]}: 40 latest")
