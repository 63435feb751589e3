"""`streamseg dead-letters`: what an operator sees of rejected events, and how they are sent again."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from streamseg.core.units import parse_instant
from streamseg.formats.rejection import REASONS
from tests.acceptance.commands import Outcome, run
from tests.worker.running_worker import STARTER, Sent, Site, crc32_partitioner

PARTITIONS = 3
RESULTS = ("applied", "duplicate", "rejected")


def event(customer: str, number: int, **changes: Any) -> Sent:
    body = {
        "id": f"e-{number}", "type": "purchase", "customer_id": customer, "time": "2026-01-02T10:00:00Z", "amount": 5,
        **changes,
    }  # fmt: skip
    return Sent(
        json.dumps({name: value for name, value in body.items() if value is not None}).encode(), customer.encode()
    )


YEN = event("ada", 1, currency="JPY")
NAMELESS = event("ada", 2, id=None, currency="JPY")
TIMELESS = event("ada", 3, time=None, props={"note": "n" * 99})
BINARY = Sent(b"\x00\xff\x1b[31mred", b"ada")
HUGE = Sent(b"x" * 1_500_000, b"ada")
ANCIENT = Sent(b"[]", b"bob")


@pytest.fixture
def site(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> Site:
    """An installation whose definitions have no rate for yen yet; keys are not where a Java client would put them."""
    site = Site(kafka, redis_url, prefix, tmp_path, tmp_path / "shop.yaml", partitions=PARTITIONS)
    site.definitions.write_text(STARTER.read_text())
    return site.create({"max.message.bytes": str(4 << 20)})


def partition(customer: str) -> int:
    return crc32_partitioner(customer.encode(), PARTITIONS)


def letters(site: Site, *options: object) -> Outcome:
    arguments = ["--kafka", site.kafka, "--prefix", site.prefix, *options]
    return run("dead-letters", *arguments, directory=site.directory, COLUMNS="250")


def listed(site: Site, *options: object) -> list[dict[str, Any]]:
    done = letters(site, "--json", *options)
    assert done.code == 0, done
    return [json.loads(line) for line in done.lines]


def rejected(site: Site, *sent: Sent) -> None:
    """Let a worker reject some events."""
    with site.worker() as worker:
        for each in sent:
            assert each.key
            site.send({partition(each.key.decode()): [each]})
        site.wait_until_done([worker])
        assert worker.stop() == 0


def write_letter(site: Site, told: dict[str, object], sent: Sent, written: int, number: int = 0) -> None:
    """Write a dead letter as a worker does, at another time or a second time."""
    headers = [(name, str(value).encode()) for name, value in told.items()]
    site.send({number: [Sent(sent.value, sent.key, headers, written)]}, site.own("dead-letters"))


def test_an_operator_sees_what_was_rejected_where_it_stood_why_and_what_to_do(site: Site) -> None:
    rejected(site, YEN, TIMELESS, BINARY)
    topic, number = site.events[0], partition("ada")
    done = letters(site)
    assert (done.code, done.errors) == (0, "")
    first, second, third, _, headline, *summary = done.lines
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\S+Z  unknown_currency  (.*)", first)
    value = (YEN.value or b"").decode()
    assert first.endswith(f"  unknown_currency  {topic}/{number}/0  no rate for JPY in the definitions  {value}")
    begins = (TIMELESS.value or b"")[:120].decode()
    assert second.endswith(f"  missing_field  {topic}/{number}/1  Object missing required field `time`  {begins}…")
    # Nothing that is in an event can steer the terminal.
    assert third.endswith(r"  \u0000�\u001b[31mred")
    assert headline == f"3 dead letters in {site.own('dead-letters')}"
    assert sorted(each.split(maxsplit=2)[:2] for each in summary) == [
        ["1", "malformed_json"], ["1", "missing_field"], ["1", "unknown_currency"],
    ]  # fmt: skip
    for line in summary:
        _, reason, text = line.split(maxsplit=2)
        assert text.strip() == f"{REASONS[reason].what}: {REASONS[reason].mend}"

    check_choices(site)
    check_json(site)


def check_choices(site: Site) -> None:
    latest = letters(site, "--max", 1)
    assert "  malformed_json  " in latest.lines[0]
    assert latest.lines[2] == f"3 dead letters in {site.own('dead-letters')}, the latest 1 are shown"
    assert [each["reason"] for each in listed(site, "--reason", "missing_field", "--reason", "unknown_currency")] == [
        "unknown_currency", "missing_field",
    ]  # fmt: skip
    assert [each["reason"] for each in listed(site, "--max", 2)] == ["missing_field", "malformed_json"]
    two_hours_ago = time.time_ns() // 1_000_000 - 7_200_000
    told = {"reason": "too_deep", "detail": "", "topic": site.events[0], "partition": 2, "offset": 9}
    empty = (partition("ada") + 1) % PARTITIONS
    site.configure(site.own("dead-letters"), message_timestamp_type="CreateTime")  # else it would be written now
    write_letter(site, told, ANCIENT, two_hours_ago, empty)
    site.send({empty: [Sent(b"not one of ours")]}, site.own("dead-letters"))
    assert {each["reason"] for each in listed(site)} == {
        "too_deep",
        *(each["reason"] for each in listed(site, "--since", "1h")),
    }
    assert "too_deep" not in {each["reason"] for each in listed(site, "--since", "1h")}


def check_json(site: Site) -> None:
    yen, timeless, binary = listed(site, "--since", "1h")
    place = {"topic": site.events[0], "partition": partition("ada")}
    assert abs(parse_instant(yen.pop("time")) - time.time_ns() // 1_000_000) < 600_000
    assert yen == {
        "reason": "unknown_currency", "detail": "no rate for JPY in the definitions", **place, "offset": 0,
        "key": "ada", "value": (YEN.value or b"").decode(),
    }  # fmt: skip
    assert timeless["offset"] == 1
    assert "value" not in binary
    assert binary["value_base64"] == "AP8bWzMxbXJlZA=="


def test_rejected_events_are_sent_again_as_they_were_to_where_they_were(site: Site) -> None:
    rejected(site, YEN, event("ada", 7), NAMELESS, TIMELESS, HUGE)
    # The worker was killed once, and wrote a letter twice.
    [first, *_] = site.read(site.own("dead-letters"))
    told = {name: value.decode() for name, value in first.headers}
    write_letter(site, told, Sent(first.value, first.key), first.timestamp, first.partition)
    topic, number = site.events[0], partition("ada")
    asked = letters(site, "--resubmit")
    assert asked.code == 1
    assert asked.lines[:6] == [
        f"3 to {topic}",
        "an event that was accepted meanwhile under the same id is dropped as a duplicate",
        "1 have no id: each time they are sent they count as new events",
        "what is wrong lies in the events themselves, so these will be rejected again: missing_field 1, too_large 1",
        "1 are left out: their bytes were cut off, or there are none",
        "Send 3 events again? [y/N]: ",
    ]
    assert len(site.read(topic)) == 5
    done = letters(site, "--resubmit", "--reason", "unknown_currency", "--yes")
    assert (done.code, done.lines[-1]) == (0, "2 sent again")
    again = site.read(topic)[5:]
    assert [(each.partition, each.key, each.value) for each in again] == [
        (number, b"ada", YEN.value), (number, b"ada", NAMELESS.value),
    ]  # fmt: skip
    assert [each.headers for each in again] == [
        (("resubmitted", f"{topic}/{number}/{offset}".encode()),) for offset in (0, 2)
    ]
    check_elsewhere(site)
    check_accepted(site)


def check_elsewhere(site: Site) -> None:
    """They can be sent to another topic to be mended, which need not have as many partitions."""
    other = f"{site.prefix}-other"
    site.create_topic(other, PARTITIONS - 2)
    done = letters(site, "--resubmit", "--reason", "missing_field", "--to", other, "--yes")
    assert (done.code, done.lines[0], done.lines[-1]) == (0, f"1 to {other}", "1 sent again")
    assert not [line for line in done.lines if "rejected again" in line]
    assert [each.value for each in site.read(other)] == [TIMELESS.value]


def check_accepted(site: Site) -> None:
    """What was mended elsewhere is accepted, and what came twice under an id counts once."""
    site.definitions.write_text(STARTER.read_text() + "\nrates: {JPY: 0.01}\n")
    group = dataclasses.replace(site, prefix=f"{site.prefix}-2", topics=site.events)
    with group.worker() as worker:
        group.wait_until_done([worker])
        results = {name: worker.total("streamseg_events_total", result=name) for name in RESULTS}
    assert results == {"applied": 4, "duplicate": 1, "rejected": 2}


def test_a_topic_that_is_gone_gets_nothing_and_the_way_out_is_named(site: Site) -> None:
    site.create_topic(site.own("dead-letters"), 1)
    assert letters(site).lines == [f"no dead letters in {site.own('dead-letters')}"]
    told = {"reason": "too_deep", "detail": "", "topic": f"{site.prefix}-gone", "partition": 0, "offset": 9}
    write_letter(site, told, YEN, 1_700_000_000_000)
    done = letters(site, "--resubmit", "--yes")
    assert (done.code, done.errors) == (1, f"topic {site.prefix}-gone does not exist: give --to TOPIC\n")
    assert f"{site.prefix}-gone" not in site.topic_names()
