"""What the worker's metrics tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from streamseg.worker.metrics import LAGS, Lags

NAME, MEANING = "streamseg_event_lag_seconds", "How late."
seconds = st.one_of(st.sampled_from([0.0, *LAGS]), st.floats(0, 10_000))


def told(registry: CollectorRegistry) -> list[str]:
    """What a scrape shows, without when the histogram was made."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.lists(seconds.map(lambda lag: round(lag, 3)), max_size=5), max_size=4))
def test_many_lags_at_once_are_told_as_if_each_had_been_observed_by_itself(given_at_once: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    lags = Lags(NAME, MEANING, ours)
    histogram = Histogram(NAME, MEANING, buckets=LAGS, registry=theirs)
    for some in given_at_once:
        lags.observe(some)
        for lag in some:
            histogram.observe(lag)
    shown, expected = told(ours), told(theirs)
    assert [line for line in shown if "_sum" not in line] == [line for line in expected if "_sum" not in line]
    assert abs(total(shown) - total(expected)) < 1e-6


def total(lines: list[str]) -> float:
    """The sum of what was observed."""
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{NAME}_sum"))
