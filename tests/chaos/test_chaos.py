"""What `make chaos` does for half an hour, a few times each: nothing is lost, doubled or torn."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.chaos.__main__ import ROWS
from tests.chaos.stage import Grounds, Row

NAMES = ("T6", "T7", "T4", "T1", "T20", "T8", "T19")
"""The longest first."""
AT_A_TIME = 3
"""Most of the time goes by while a group waits for a member that is dead."""


@pytest.fixture(scope="module")
def rows(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Row]]]:
    grounds = Grounds(kafka, redis_url, tmp_path_factory.mktemp("chaos"), seed=1, short=True)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {name: pool.submit(ROWS[name], grounds) for name in NAMES}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_short_form_of_a_row_holds(name: str, rows: dict[str, Future[Row]]) -> None:
    row = rows[name].result()
    assert [*row.verdict.examples, *row.wrong] == []
    assert row.passed
