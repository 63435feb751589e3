"""The reference model gives the published answers, so that it may judge the real evaluator."""

import json
from pathlib import Path

import pytest

from tests.naive_model import naive_changes

CASES = sorted((Path(__file__).parent / "cases").iterdir())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_reference_model_gives_the_published_changes(case: Path) -> None:
    expected = [json.loads(line) for line in (case / "changes.jsonl").read_bytes().splitlines()]
    definitions = (case / "definitions.yaml").read_text(encoding="utf-8")
    events = (case / "events.jsonl").read_bytes().splitlines()
    until = (case / "until").read_text(encoding="utf-8").strip()
    assert naive_changes(definitions, events, until) == expected
