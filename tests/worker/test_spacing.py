"""How soon a worker looks for events again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamseg.worker.batches import FETCH_WAIT_MS, MOST_SPACING_SECONDS, SPACING_SECONDS, hold, spacing

MOST = 10_000


def test_who_was_told_of_few_events_looks_again_soon() -> None:
    assert spacing(0, MOST) == SPACING_SECONDS
    assert spacing(100, MOST) < 1.1 * SPACING_SECONDS


@given(st.integers(0, MOST - 1), st.integers(0, MOST - 1))
def test_the_more_events_came_the_longer_is_the_wait_and_it_has_an_end(some: int, more: int) -> None:
    assert spacing(min(some, more), MOST) <= spacing(max(some, more), MOST) <= MOST_SPACING_SECONDS


def test_who_was_given_as_many_as_go_into_a_poll_looks_again_soon() -> None:
    assert spacing(MOST, MOST) == SPACING_SECONDS


@pytest.mark.parametrize("events", [0, 1, MOST])
def test_what_comes_is_fetched_at_once_after_nothing_a_single_event_or_a_poll_that_left_some(events: int) -> None:
    assert hold(events, MOST) == (1, FETCH_WAIT_MS)


@given(st.integers(2, MOST - 1))
def test_amid_events_the_broker_holds_a_fetch_until_a_poll_may_take_it(events: int) -> None:
    least_bytes, most_ms = hold(events, MOST)
    assert least_bytes > 1
    assert most_ms == round(1_000 * spacing(events, MOST)) > 0
