"""Events that came to the wrong partition, whatever the reason, end with their customer, once and in order."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from streamseg.formats.messages import Origin, read_rekeyed_headers
from streamseg.formats.state import CHECKPOINT_KEY
from tests.worker.comparison import repeats, wait_for_equality
from tests.worker.reference import Outcome, assert_contiguous, expected
from tests.worker.running_worker import (
    RunningWorker,
    Sent,
    Site,
    crc32_partitioner,
    murmur2_partitioner,
    wait_until,
)

PARTITIONS = 4
Producer = Callable[[str, random.Random], "Event"]
RULES = b"""\
version: 1
currency: USD
features: {views: 'count(page_view, all)'}
schemes:
  looking:
    default: never
    segments:
      - {name: always, when: views >= 24}
      - {name: mostly, when: views >= 18}
      - {name: often, when: views >= 12}
      - {name: twice, when: views >= 2}
      - {name: once, when: views >= 1}
"""
"""Only events move anybody: the outcome does not hang on how the clocks of partitions are ahead of each other."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event and where a producer puts it."""

    customer: str
    value: bytes
    key: bytes | None
    partition: int


def event(customer: str, number: int, name: str | None = None) -> bytes:
    """The number-th event of all, in the order of their times; without an id if it has no name."""
    ident = f'"id":"{name}",' if name else ""
    at = 1_767_225_600_000 + number * 1_000
    return f'{{{ident}"type":"page_view","customer_id":"{customer}","time":{at}}}'.encode()


def history(
    events: int, customers: int, dice: random.Random, put: Callable[[str, random.Random], Event]
) -> list[Event]:
    """Page views, some of them sent twice, put where a producer would."""
    made: list[Event] = []
    for number in range(events):
        customer = f"c-{dice.randrange(customers)}"
        value = event(customer, number, f"e-{number}")
        chosen = put(customer, dice)
        made += [replace(chosen, value=value)] * (2 if dice.random() < 0.05 else 1)
    return made


def crc32_keys(customer: str, _: random.Random) -> Event:
    """As librdkafka does by default: the right key, in another partition than Java would."""
    key = customer.encode()
    return Event(customer, b"", key, crc32_partitioner(key, PARTITIONS))


def no_keys(customer: str, dice: random.Random) -> Event:
    return Event(customer, b"", None, dice.randrange(PARTITIONS))


def session_keys(customer: str, _: random.Random) -> Event:
    key = b"session-" + customer.encode()
    return Event(customer, b"", key, murmur2_partitioner(key, PARTITIONS))


def all_kinds(customer: str, dice: random.Random) -> Event:
    """Three producers for one and the same customers."""
    return dice.choice((crc32_keys, no_keys, session_keys))(customer, dice)


@pytest.fixture
def site(kafka: str, redis_url: str, prefix: str, tmp_path: Path) -> Site:
    definitions = tmp_path / "rules.yaml"
    definitions.write_bytes(RULES)
    return Site(kafka, redis_url, prefix, tmp_path, definitions, partitions=PARTITIONS).create()


def send(site: Site, events: Iterable[Event]) -> None:
    shares: defaultdict[int, list[Sent]] = defaultdict(list)
    for each in events:
        shares[each.partition].append(Sent(each.value, each.key))
    site.send(shares)


def moves(changes: dict[str, list[dict[str, Any]]], *fields: str) -> dict[str, list[tuple[Any, ...]]]:
    """Each customer's changes, without what hangs on the order in which partitions are read."""
    return {
        customer: sorted((tuple(each[field] for field in ("scheme", "from", "to", *fields)) for each in own), key=str)
        for customer, own in changes.items()
    }


def segments(schemes: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, str]]:
    return {customer: {name: each["segment"] for name, each in found.items()} for customer, found in schemes.items()}


def assert_all_counted_once(site: Site, events: list[Event]) -> Outcome:
    """Every customer went through the segments, and is in the one, that a replay of all events says."""
    wanted = expected(site.definitions, {0: [(each.customer, each.value) for each in events]})
    changes = site.changes()
    assert_contiguous(changes)
    assert moves(changes) == moves(wanted.changes)
    assert segments({name: each["schemes"] for name, each in site.current().items()}) == segments(wanted.schemes)
    wait_for_equality(site.counts, wanted.counts)
    for name, forms in repeats(site).items():
        assert len(forms) == 1, name
    return wanted


def misplaced(events: Iterable[Event]) -> int:
    return sum(each.partition != murmur2_partitioner(each.customer.encode(), PARTITIONS) for each in events)


def total(workers: Iterable[RunningWorker], name: str, **labels: str) -> float:
    return sum(worker.total(name, **labels) for worker in workers)


def test_customers_of_all_kinds_of_producers_end_where_a_replay_of_all_events_puts_them(site: Site) -> None:
    events = history(4_000, 200, random.Random(1), all_kinds)
    with site.workers(2) as workers:
        send(site, events)
        site.wait_until_done(workers)
        wanted = assert_all_counted_once(site, events)
        wrong = misplaced(events)
        assert len(events) * 0.5 < wrong < len(events)
        assert total(workers, "streamseg_rekeyed_events_total") == wrong
        assert total(workers, "streamseg_events_total", result="rekeyed", topic=site.events[0]) == wrong
        for result, count in wanted.results.items():
            assert total(workers, "streamseg_events_total", result=result) == count, result
        whys = Counter(why_of(each) for each in events if misplaced([each]))
        assert set(whys) == {"missing", "mismatch", "partition"}
        for why, count in whys.items():
            assert total(workers, "streamseg_rekeyed_events_total", why=why) == count, why
        warnings = [line for worker in workers for line in worker.log.read_text().splitlines() if "sent on" in line]
        assert 1 <= len(warnings) <= len(workers)
    assert site.read(site.own("dead-letters")) == []
    assert sum(site.ends(site.rekeyed).values()) == wrong


def why_of(each: Event) -> str:
    if each.key is None:
        return "missing"
    return "partition" if each.key == each.customer.encode() else "mismatch"


def test_events_that_one_partition_holds_of_a_customer_are_applied_in_its_order(site: Site) -> None:
    events = history(1_500, 60, random.Random(2), crc32_keys)
    with site.workers(2) as workers:
        send(site, events)
        site.wait_until_done(workers)
        wanted = assert_all_counted_once(site, events)
        assert moves(site.changes(), "version", "cause") == moves(wanted.changes, "version", "cause")


def test_killing_workers_amid_sending_events_on_loses_none_and_counts_none_twice(site: Site) -> None:
    dice = random.Random(3)
    events = history(6_000, 300, dice, all_kinds)
    kills, late = 2, 0
    with site.workers(2) as workers:
        for number in range(kills):
            enough = sum(site.ends(site.rekeyed).values()) + dice.randrange(50, 400)
            send(site, events[number * len(events) // kills : (number + 1) * len(events) // kills])
            wait_until(lambda: sum(site.ends(site.rekeyed).values()) >= enough, "some are sent on", workers)  # noqa: B023
            workers[number].kill()
            late += site.done()
            workers[number] = site.start()
        site.wait_until_done(workers)
        assert_all_counted_once(site, events)
    assert late < kills, "all was done before each kill: they prove nothing"


def test_nothing_is_acknowledged_that_the_broker_has_not_taken_to_be_sent_on(site: Site) -> None:
    events = history(300, 30, random.Random(5), no_keys)
    with site.worker() as worker:
        site.configure(site.rekeyed, cleanup_policy="delete", max_message_bytes="1")
        send(site, events)
        assert worker.end() == 70
    assert site.ends(site.rekeyed) == {}
    assert site.committed() == {}
    site.configure(site.rekeyed, cleanup_policy="delete")
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert_all_counted_once(site, events)


def test_an_event_that_was_sent_on_twice_counts_once_even_if_everything_is_read_again(site: Site) -> None:
    # Without ids: only the position tells.
    events = [Event(f"c-{number % 21}", event(f"c-{number % 21}", number), None, number % 4) for number in range(400)]
    wrong = misplaced(events)
    with site.worker() as worker:
        send(site, events)
        site.wait_until_done([worker])
        assert worker.stop() == 0
    hops = site.read(site.rekeyed)
    assert len(hops) == wrong
    site.send({number: [Sent(None, CHECKPOINT_KEY)] for number in range(PARTITIONS)}, site.changelog)
    with site.worker() as worker:
        again = len(events) - wrong + 2 * wrong
        wait_until(lambda: replayed(worker) == again, "all are sent on, and read, again", [worker])
        site.wait_until_done([worker])
        assert worker.total("streamseg_events_total", result="applied") == 0
    assert Counter(map(origin, site.read(site.rekeyed))) == Counter(map(origin, hops * 2))
    assert_all_counted_once(site, events)


def replayed(worker: RunningWorker) -> float:
    return worker.total("streamseg_events_total", result="replayed")


def origin(record: Any) -> Origin:
    return read_rekeyed_headers(record.headers)[0]


def test_an_event_without_id_is_named_by_where_its_producer_put_it(site: Site) -> None:
    home = murmur2_partitioner(b"c-1", PARTITIONS)
    away = (home + 1) % PARTITIONS
    with site.worker() as worker:
        site.send({away: [Sent(b"{"), Sent(event("c-1", 1))]})
        site.wait_until_done([worker])
        assert {change["cause"] for change in site.changes()["c-1"]} == {f"{site.events[0]}/{away}/1"}


def test_what_is_still_wrong_after_it_was_sent_on_is_rejected_with_its_origin_and_goes_no_further(site: Site) -> None:
    home = murmur2_partitioner(b"c-1", PARTITIONS)
    wrong, value = (home + 1) % PARTITIONS, event("c-1", 1)
    from_shop = origin_of(f"{site.events[0]}/2/77")
    with site.worker() as worker:
        site.send({wrong: [Sent(value, b"c-1", from_shop)]}, site.rekeyed)
        site.send({home: [Sent(value, b"c-2", from_shop), Sent(value, None, from_shop)]}, site.rekeyed)
        site.send({home: [Sent(value, b"c-1"), Sent(value, b"c-1", origin_of("shop/x"))]}, site.rekeyed)
        site.send({home: [Sent(value, b"c-1", from_shop)]}, site.rekeyed)
        site.wait_until_done([worker])
        assert worker.total("streamseg_events_total", result="applied") == 1
        assert worker.total("streamseg_rekeyed_events_total") == 0
    letters = [{name: text.decode() for name, text in each.headers} for each in site.read(site.own("dead-letters"))]
    places = Counter((each["reason"], f"{each['topic']}/{each['partition']}/{each['offset']}") for each in letters)
    assert places == {
        ("wrong_partition", f"{site.events[0]}/2/77"): 1,
        ("key_mismatch", f"{site.events[0]}/2/77"): 1,
        ("key_missing", f"{site.events[0]}/2/77"): 1,
        ("no_origin", f"{site.rekeyed}/{home}/2"): 1,
        ("no_origin", f"{site.rekeyed}/{home}/3"): 1,
    }


def test_workers_that_trust_their_producers_leave_customers_where_these_put_them(site: Site) -> None:
    site = replace(site, keys="trust", partitioner=crc32_partitioner)
    lines = [(each.customer, each.value) for each in history(500, 50, random.Random(4), crc32_keys)]
    with site.worker() as worker:
        site.produce(lines)
        site.send({0: [Sent(event("c-1", 1), b"session"), Sent(event("c-1", 1))]})
        site.wait_until_done([worker])
        assert site.changes() == expected(site.definitions, site.shares(lines)).changes
        assert worker.total("streamseg_dead_letters_total", reason="key_mismatch") == 1
        assert worker.total("streamseg_dead_letters_total", reason="key_missing") == 1
    assert site.ends(site.rekeyed) == {}
    assert_refuses_to_start(replace(site, keys="rekey"), "start with --keys trust if all producers")


def assert_refuses_to_start(site: Site, words: str) -> None:
    worker = site.start()
    try:
        assert worker.end() == 1
    finally:
        worker.kill()
    line = worker.log_tail(1)
    assert words in line
    assert "another --group and --prefix" in line


def test_nobody_lapses_before_what_was_sent_on_is_read(site: Site) -> None:
    site.definitions.write_bytes(SEEN)
    home = murmur2_partitioner(b"c-1", PARTITIONS)
    now = time.time_ns() // 1_000_000
    with site.worker() as worker:
        site.send({home: [Sent(seen(now - 65_000))]})
        site.wait_until_done([worker])
        assert worker.stop() == 0
    elsewhere = f"{site.events[0]}/{(home + 1) % PARTITIONS}"
    later = [Sent(seen(now - 55_000 + each), b"c-1", origin_of(f"{elsewhere}/{each}")) for each in range(30_000)]
    site.send({home: later}, site.rekeyed)
    site = replace(site, clock="wall")
    with site.worker() as worker:
        site.wait_until_done([worker])
        assert [change["to"] for change in site.changes()["c-1"]] == ["here"]


SEEN = b"""\
version: 1
currency: USD
features: {quiet: since(any)}
schemes: {seen: {default: gone, segments: [{name: here, when: quiet <= 60s}]}}
"""


def seen(at: int) -> bytes:
    return b'{"type":"page_view","customer_id":"c-1","time":%d}' % at


def origin_of(place: str) -> list[tuple[str, bytes]]:
    return [("origin", place.encode())]
