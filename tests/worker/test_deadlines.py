"""On the live clock, customers move by the passing of time alone: at the very instant, and only if it is true."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamseg.core.units import Instant, format_instant, parse_instant
from tests.worker.running_worker import RunningWorker, Site, wait_until

SHORT = Path(__file__).with_name("definitions") / "short.yaml"
FRESH_MS = 6_000
WINDOW_MS, TILE_MS = 60_000, 1_000
MAX_AHEAD_MS = 300_000


def wall_clock() -> Instant:
    return time.time_ns() // 1_000_000


def live_site(kafka: str, redis_url: str, prefix: str, directory: Path) -> Site:
    return Site(kafka, redis_url, prefix, directory, SHORT, clock="wall", partitions=1).create()


def event(customer: str, type_: str, at: Instant) -> tuple[str, bytes]:
    """An event that is known by its customer, type and time."""
    data = {"id": f"{customer}-{type_}-{at}", "type": type_, "customer_id": customer, "time": at, "amount": "5"}
    return customer, json.dumps(data).encode()


def lapses_at(bought: Instant) -> str:
    """When a customer stops to be fresh: `<= 6s` is false from one millisecond later on."""
    return format_instant(bought + FRESH_MS + 1)


def changes_of(site: Site, customer: str, scheme: str) -> list[dict[str, Any]]:
    return [change for change in site.changes().get(customer, []) if change["scheme"] == scheme]


def wait_for_segment(site: Site, customer: str, scheme: str, segment: str, worker: RunningWorker) -> None:
    def is_there() -> bool:
        with site.redis() as redis:
            return bool(redis.hget(f"{site.prefix}:customer:{customer}", scheme) == segment)

    wait_until(is_there, f"{customer} is {segment}", [worker])


def test_customers_lapse_at_the_exact_instant_with_no_event_and_everybody_sees_it(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = live_site(kafka, redis_url, prefix, tmp_path)
    with site.worker() as worker:
        now = wall_clock()
        viewed = now - 51_000
        site.produce([event("c-1", "purchase", now), event("c-1", "page_view", viewed)])
        site.produce([event("c-1", "page_view", now - 40_000), event("c-2", "purchase", now + 500)])
        wait_for_segment(site, "c-1", "freshness", "fresh", worker)
        wait_for_segment(site, "c-1", "interest", "busy", worker)
        for customer, scheme, segment in (
            ("c-1", "freshness", "lapsed"),
            ("c-2", "freshness", "lapsed"),
            ("c-1", "interest", "none"),
        ):
            wait_for_segment(site, customer, scheme, segment, worker)
        leaves = viewed // TILE_MS * TILE_MS + TILE_MS + WINDOW_MS
        assert_told(site, "c-1", "freshness", lapses_at(now))
        assert_told(site, "c-2", "freshness", lapses_at(now + 500))
        assert_told(site, "c-1", "interest", format_instant(leaves))
        assert worker.total("streamseg_segment_changes_total", reason="time") == 3
        assert worker.total("streamseg_deadline_lateness_seconds_count") == 3
        assert worker.total("streamseg_segment_customers", scheme="freshness", segment="lapsed") == 2


def assert_told(site: Site, customer: str, scheme: str, at: str) -> None:
    """The last change came by time, at the instant that the one before it foretold; Redis shows it."""
    *_, before, last = changes_of(site, customer, scheme)
    assert (last["reason"], last["cause"], last["time"]) == ("time", None, at)
    assert (before["next_change_at"], before["next_segment"]) == (at, last["to"])
    shown = site.shown()[customer]
    assert (shown[scheme], shown[f"{scheme}.since"]) == (last["to"], at)
    assert f"{scheme}.next_change_at" not in shown


def test_a_worker_that_catches_up_does_not_lapse_a_customer_who_bought_meanwhile(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = live_site(kafka, redis_url, prefix, tmp_path)
    with site.worker() as worker:
        first = wall_clock()
        site.produce([event("c-1", "purchase", first)])
        wait_for_segment(site, "c-1", "freshness", "fresh", worker)
        assert worker.stop() == 0
    assert not [change for change in changes_of(site, "c-1", "freshness") if change["to"] == "lapsed"]
    last = first + 5_000
    site.produce(backlog(first + 1_000))
    site.produce([event("c-1", "purchase", last)])
    wait_until(lambda: wall_clock() > first + FRESH_MS + 1_000, "the customer would have lapsed", patience=30.0)
    with site.worker() as worker:
        site.wait_until_done([worker])
        wait_for_segment(site, "c-1", "freshness", "lapsed", worker)
    fresh, lapsed = changes_of(site, "c-1", "freshness")
    assert (fresh["to"], lapsed["to"]) == ("fresh", "lapsed")
    assert (lapsed["reason"], lapsed["time"]) == ("time", lapses_at(last))


def backlog(at: Instant) -> Iterator[tuple[str, bytes]]:
    """So many events that they are read in many batches; all of one instant."""
    return (event(f"x-{number}", "page_view", at) for number in range(5_000))


def test_an_event_too_far_ahead_is_rejected_and_moves_nobodys_time(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    site = live_site(kafka, redis_url, prefix, tmp_path)
    with site.worker() as worker:
        bought = wall_clock()
        site.produce([event("c-1", "purchase", bought)])
        wait_for_segment(site, "c-1", "freshness", "fresh", worker)
        site.produce([event("c-2", "purchase", wall_clock() + 2 * MAX_AHEAD_MS)])
        wait_until(lambda: is_rejected(worker), "the event is rejected", [worker])
        assert worker.total("streamseg_partition_clock_seconds") * 1000 <= wall_clock()
        wait_for_segment(site, "c-1", "freshness", "lapsed", worker)
        [letter] = site.read(site.own("dead-letters"))
        assert dict(letter.headers)["reason"] == b"future_time"
        assert changes_of(site, "c-1", "freshness")[-1]["time"] == lapses_at(bought)
        # Within the bound an event is taken, and time goes with it.
        ahead = wall_clock() + MAX_AHEAD_MS // 2
        site.produce([event("c-3", "purchase", ahead)])
        wait_for_segment(site, "c-3", "freshness", "fresh", worker)
    [change] = changes_of(site, "c-3", "freshness")
    assert parse_instant(change["time"]) == ahead
    assert "c-2" not in site.changes()


def is_rejected(worker: RunningWorker) -> bool:
    return worker.total("streamseg_dead_letters_total", reason="future_time") == 1
