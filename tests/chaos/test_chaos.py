"""What `make chaos` does for half an hour, a few times each: nothing is lost, doubled or torn."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.__main__ import ROWS
from tests.chaos.stage import Grounds


@pytest.mark.parametrize("name", ["T1", "T4", "T6", "T7", "T8", "T19", "T20"])
def test_the_short_form_of_a_row_holds(name: str, kafka: str, redis_url: str, tmp_path: Path) -> None:
    row = ROWS[name](Grounds(kafka, redis_url, tmp_path, seed=1, short=True))
    assert [*row.verdict.examples, *row.wrong] == []
    assert row.passed
