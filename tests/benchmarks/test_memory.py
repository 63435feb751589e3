"""A small run of `make bench-memory`, and the formula by which operators size their workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import memory, sizing
from benchmarks.changelog import make_models
from benchmarks.worker import Setup
from tests.docs.markdown import ROOT
from tests.worker.running_worker import EVERY_FEATURE


def test_the_documentation_has_the_formulas() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()

    assert f"{sizing.STATE_FORMULA}\n{sizing.WORKER_FORMULA}\n" in text


def test_the_bytes_of_a_state_are_those_of_the_formula() -> None:
    found = memory.states({**memory.FILES, "every feature": EVERY_FEATURE}, models=40)

    assert len(found) == 9
    assert memory.wrong({"states": found, "workers": []}) == []


def test_a_formula_that_does_not_hold_is_told() -> None:
    states = [{"definitions": "starter", "events": 20, "bytes": 500, "formula": 340}]
    workers = [{"customers": 100_000, "resident_mb": 200, "formula_mb": 140, "in_use_bytes": 9_000}]

    told = memory.wrong({"states": states, "workers": workers})

    assert told == [
        "starter, 20 events: 500 bytes, by the formula 340",
        "100,000 customers: 200 MB, by the formula 140 MB",
        "9,000 bytes more of a customer in use, not up to 2,500",
    ]
    assert memory.wrong({"states": [], "workers": workers}, whole=False) == []


def test_the_parts_of_a_state_add_up(tmp_path: Path) -> None:
    models = make_models(Setup(EVERY_FEATURE, "", "", tmp_path), 50)
    profiles = [profile for profile, _ in models.profiles]

    parts = sizing.parts(models.definitions, profiles)

    size = sum(sizing.encoded(models.definitions, profile) for profile in profiles) / len(profiles)
    assert sum(parts.values()) == pytest.approx(size)
    assert min(parts.values()) > 0


def test_what_a_worker_with_some_customers_takes_comes_out(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    found = memory.collect(kafka, redis_url, tmp_path, sizes=(5_000,), events=1_000, models=5, name=prefix)

    (worker,) = found["workers"]
    assert worker["customers"] == 5_000
    assert worker["resident_mb"] >= found["few"]["resident_mb"] > 30
    assert worker["peak_mb"] >= worker["resident_mb"]
    assert worker["bytes"] == pytest.approx(worker["state_bytes"] + worker["besides_bytes"], abs=1)
    assert "| 5,000 |" in memory.markdown(found)
