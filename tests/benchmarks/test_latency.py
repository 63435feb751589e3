"""Small runs of `make bench-latency` and `make bench-herd`: figures come out, and fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import herd, latency
from benchmarks.document import DOCUMENT, replace
from benchmarks.feed import Load
from benchmarks.peer import DEFINITIONS
from benchmarks.samples import Sample, summary
from benchmarks.worker import Setup

RATE, SECONDS, EVERY = 200.0, 2.0, 10
MEASURED = int(RATE * SECONDS / EVERY)


def in_order(of: dict[str, float]) -> bool:
    return 0 < of["p50"] <= of["p99"] <= of["p99.9"] <= of["max"]


def test_a_latency_counts_from_when_the_event_was_due_and_its_percentiles_are_within_a_thousandth() -> None:
    found = summary(Sample(due=1_000, seen=1_000 + 1_000 * number) for number in range(1, 1_001))

    assert found["count"] == 1_000
    assert found["max"] == 1_000
    assert found["p50"] == pytest.approx(500, rel=2e-3)
    assert found["p99.9"] == pytest.approx(999, rel=2e-3)


def test_nothing_of_the_warm_up_is_measured() -> None:
    load = Load(
        kafka="", topic="", label="x", rate=100, seconds=2, warm_up=1.5, every=10, customers=1
    )  # fmt: skip

    newcomers = range(load.every, load.events + 1, load.every)

    assert load.measured == 20 == sum(load.is_measured(number) for number in newcomers)
    assert min(number for number in newcomers if load.is_measured(number)) == 160


def test_of_many_newcomers_some_are_measured_all_over_the_load() -> None:
    load = Load(
        kafka="", topic="", label="x", rate=100, seconds=2, warm_up=1.5, every=10, sampled=4, customers=1
    )  # fmt: skip

    measured = [number for number in range(1, load.events + 1) if number % load.every == 0 and load.is_measured(number)]

    assert measured == [160, 200, 240, 280, 320]
    assert load.measured == len(measured)


def test_a_table_is_put_between_its_marks_and_the_rest_stays(tmp_path: Path) -> None:
    document = tmp_path / "some.md"
    document.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nafter\n<!-- two -->\n<!-- /two -->\n")

    replace("one", "new\n", document)

    assert document.read_text() == "before\n<!-- one -->\nnew\n<!-- /one -->\nafter\n<!-- two -->\n<!-- /two -->\n"
    with pytest.raises(ValueError, match="no place for three"):
        replace("three", "", document)


@pytest.mark.parametrize("mark", ["table", "latency", "herd", "growth", "memory"])
def test_the_document_has_a_place_for_each_table(mark: str) -> None:
    text = DOCUMENT.read_text()

    assert text.count(f"<!-- {mark} -->\n") == text.count(f"<!-- /{mark} -->") == 1


def test_each_measured_event_is_seen_on_the_topic_and_in_redis(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "WARM_SECONDS", 1.0)
    plan = latency.Plan(customers=200, seconds=SECONDS, warm_up=0.5, every=EVERY, backlog=0, rate=2 * RATE)
    setup = Setup(DEFINITIONS, kafka, redis_url, tmp_path, name=prefix, clock="wall")

    found = latency.measure(setup, plan, {"given": 2 * RATE}, rates=())

    (rate,) = found["rates"]
    kinds = [rate[kind] for kind in ("append", "changes", "redis")]
    assert all(map(in_order, kinds))
    assert [of["count"] for of in kinds] == [MEASURED] * 3
    assert rate["events_per_second"] == RATE
    assert rate["cores"]["worker"] > 0
    assert found["max"] == {"given": 2 * RATE}
    assert "| 200 events/s (half of what was given), in Redis |" in latency.markdown(found, plan)


def test_a_rate_is_kept_up_with_if_what_came_last_was_not_late() -> None:
    def lagging(a_second: float) -> list[Sample]:
        """One due every 10 ms, and each later than the one before."""
        return [Sample(due, due + 300_000 + int(a_second * due)) for due in range(0, 6_000_000, 10_000)]

    assert latency.keeps_up(lagging(0.0))
    assert latency.keeps_up(lagging(0.03))
    assert not latency.keeps_up(lagging(0.05))


def test_what_a_worker_sustains_is_found_below_what_it_drains(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "TRIED_SECONDS", 1.0)
    monkeypatch.setattr(latency, "TRIED_WARM_UP", 0.0)
    monkeypatch.setattr(latency, "WARM_SECONDS", 1.0)
    plan = latency.Plan(customers=200, seconds=1.0, warm_up=0.0, every=EVERY, backlog=200_000)
    setup = Setup(DEFINITIONS, kafka, redis_url, tmp_path, name=prefix, clock="wall")

    most = latency.maxima(setup, plan)

    assert most["drained"] / 16 - 1 <= most["sustained"] < most["drained"]


def test_half_of_each_maximum_is_measured_once_all_is_warm(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "WARM_SECONDS", 1.0)
    plan = latency.Plan(customers=200, seconds=1.0, warm_up=0.0, every=EVERY, backlog=0)
    setup = Setup(DEFINITIONS, kafka, redis_url, tmp_path, name=prefix, clock="wall")

    found = latency.measure(setup, plan, {"sustained": 400.0, "drained": 600.0}, rates=())

    assert found["max"] == {"sustained": 400, "drained": 600}
    assert [(rate["events_per_second"], rate["what"]) for rate in found["rates"]] == [
        (200, "half of what it sustains"),
        (300, "half of what it drains"),
    ]


def test_a_backlog_that_is_done_at_once_is_no_measure(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.worker.LOOK_SECONDS", 1.0)
    plan = latency.Plan(customers=200, seconds=1.0, warm_up=0.0, every=EVERY, backlog=100)
    setup = Setup(DEFINITIONS, kafka, redis_url, tmp_path, name=prefix, clock="wall")

    with pytest.raises(SystemExit, match="ask for a larger --backlog"):
        latency.maxima(setup, plan)


def test_each_deadline_of_a_herd_is_seen_after_its_time_and_others_go_on(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    plan = herd.Plan(customers=300, others=200, rate=RATE, seconds=6, after=0.5)

    found = herd.measure(kafka, redis_url, tmp_path, plan, name=prefix)

    assert found["lateness"]["count"] == 300
    assert found["lateness"]["p50"] <= found["lateness"]["max"]
    assert found["seconds"] >= 0.9
    assert in_order(found["changes"]["before"])
    assert found["changes"]["meanwhile"]["count"] > 0
    assert "| changes of the herd, after their deadlines |" in herd.markdown(found, plan)
