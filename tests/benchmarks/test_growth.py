"""A small run of `make bench-growth`: its points are what they say, and costs come out."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from benchmarks import growth
from benchmarks.growth import Cost, Growth, Point, series
from streamseg.formats.definitions_yaml import load_definitions


@pytest.mark.parametrize(("segments", "days"), [(5, 7), (100, 365)])
def test_the_definitions_of_a_point_have_its_segments_and_windows(segments: int, days: int) -> None:
    definitions = load_definitions(Point(segments=segments, days=days).definitions().encode())

    (compiled,) = definitions.schemes
    assert len(compiled.scheme.names) == segments
    assert {window.length // 86_400_000 for window in definitions.layout.windows} == {days}


@pytest.mark.parametrize("quick", [True, False])
def test_in_each_series_one_thing_grows(quick: bool) -> None:
    for name, (grown, points) in series(growth.QUICK if quick else growth.BASE, quick=quick).items():
        values = [getattr(point, grown) for point in points]
        assert values == sorted(set(values)), name
        assert name in growth.TITLES


def test_a_series_that_does_not_exist_is_refused_with_those_that_do() -> None:
    assert list(growth.chosen("windows customers", quick=True)) == ["windows", "customers"]
    with pytest.raises(click.UsageError, match=r"no such series: speed; there are customers, steady, segments"):
        growth.chosen("speed", quick=True)


def test_a_cost_comes_out_at_each_point_and_one_of_two_series_is_measured_once(
    kafka: str, redis_url: str, prefix: str, tmp_path: Path
) -> None:
    base = Point(customers=200, partitions=2)
    wanted = {"workers": ("workers", [base]), "customers": ("customers", [base])}

    found = Growth(kafka, redis_url, tmp_path, events=3_000, name=prefix).all(wanted)

    [(workers, cost)], [(customers, same)] = found["workers"], found["customers"]
    assert (workers, customers) == (1, 200)
    assert cost is same
    assert cost.microseconds > 0
    assert cost.mb > 30
    assert 100 < cost.state_bytes < 2_000
    assert json.loads(growth.as_json(found))["workers"][0]["at"] == 1
    assert f"| workers | 1: **{cost.microseconds:.0f}** |" in growth.markdown(found, 3_000)


class ByHand(Growth):
    """Costs that are given, instead of measured ones."""

    def __init__(self, costs: list[float]) -> None:
        super().__init__("", "", Path(), 1)
        self.costs = iter(costs)
        self.measured: list[int] = []

    async def _measure(self, point: Point, number: int) -> Cost:  # noqa: ARG002
        self.measured.append(point.customers)
        return Cost(next(self.costs), 1, 1)


def test_of_three_rounds_the_middle_cost_counts_and_every_other_goes_backwards() -> None:
    by_hand = ByHand([1.0, 5.0, 9.0, 2.0, 1.5, 6.0])

    found = by_hand.all({"customers": ("customers", [Point(customers=10), Point(customers=20)])}, rounds=3)

    assert by_hand.measured == [10, 20, 20, 10, 10, 20]
    assert [(value, cost.microseconds) for value, cost in found["customers"]] == [(10, 1.5), (20, 6.0)]
    assert "the middle of 3 rounds" in growth.markdown(found, 1, 3)
