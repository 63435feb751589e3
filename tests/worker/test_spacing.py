"""How soon a worker looks for events again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamseg.worker.batches import MOST_SPACING_SECONDS, SPACING_SECONDS, spacing

MOST = 10_000


def test_who_was_told_of_few_events_looks_again_soon() -> None:
    assert spacing(0, MOST) == SPACING_SECONDS
    assert spacing(50, MOST) < 1.1 * SPACING_SECONDS


@given(st.integers(0, MOST - 1), st.integers(0, MOST - 1))
def test_the_more_events_came_the_longer_is_the_wait_and_it_has_an_end(some: int, more: int) -> None:
    assert spacing(min(some, more), MOST) <= spacing(max(some, more), MOST) <= MOST_SPACING_SECONDS


def test_who_was_given_as_many_as_go_into_a_poll_looks_again_soon() -> None:
    assert spacing(MOST, MOST) == SPACING_SECONDS
