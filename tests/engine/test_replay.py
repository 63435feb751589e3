"""A replay by the compiled core writes what one in Python writes, to the byte, alone and in shards.

`FOLD_EXAMPLES` sets how many examples each property tries.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from hypothesis import given, note, seed
from hypothesis import strategies as st

from streamseg import compiled_replay
from streamseg.compiled_replay import CompiledReplay
from streamseg.core import ledger
from streamseg.core.errors import InputError
from streamseg.core.units import parse_instant
from streamseg.engine import Engine, NoEngineError, choose
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.messages import change_data
from streamseg.formats.native_plan import plan
from streamseg.recording import replay_files
from streamseg.shop import Shop
from tests.engine.stories import PLAIN, READINGS, RETURNS, STRANGE, Tale, supported, tales
from tests.engine.test_fold import CASES, FILES, THOROUGH, named, one_scheme
from tests.properties.timelines import DAY, START, Arrival, Story
from tests.properties.written import Written, in_one_process, in_shards, shards_of

SETTINGS = st.tuples(st.sampled_from([0, 4, 10_000]), st.sampled_from([1, 3, 4_096]))
"""Below which share of lines customers are given back, and how many evaluations are taken from the core at once."""


class Watched(CompiledReplay):
    """Notes what the core leaves to Python."""

    noted: ClassVar = Counter[str]()

    def feed(self, data: bytes) -> None:
        self.noted["lines for Python"] += 1
        super().feed(data)

    def take(self, *given: Any) -> None:
        super().take(*given)
        self.noted["customers in Python's lane"] += len(self.profiles)


def by_the_core(story: Story, together: int = 8_192) -> Written:
    """What one process makes of it that gives the core so many lines at a time."""
    written = Written()
    definitions = load_definitions(story.definitions.encode())
    published: list[bytes] = []

    def publish(change: Any) -> None:
        published.append(b"")
        written.changes.append(change_data(change) + b"\n")

    replay = Watched(
        definitions, publish, written.rejects.append, plan(definitions),
        lambda core: written.changes.append(core.drain()),
    )  # fmt: skip
    with patch.object(compiled_replay, "TOGETHER", together):
        replay.run(story.lines, story.until)
    written.assignments = [line for _, line in replay.assignments()]
    assert written.assignments == [line for _, line in replay.assignments()]
    written.tally = replay.tally(len(published))
    return written


@contextmanager
def set_to(few: int, at_once: int) -> Iterator[None]:
    with patch.object(compiled_replay, "FEW", few), patch.object(compiled_replay, "AT_ONCE", at_once):
        yield


def compare(story: Story, together: int = 8_192) -> None:
    """Asserts that a replay in Python and those of the core, alone and in shards, write the same."""
    expected = in_one_process(story).all
    assert by_the_core(story, together).all == expected
    packed = plan(load_definitions(story.definitions.encode()))
    for count in (1, 2):
        assert in_shards(story, count, together, packed).all == expected


def told(definitions: str, lines: Sequence[bytes], until: int | None = None) -> Story:
    return Story(definitions, tuple(Arrival(0, "", line) for line in lines), until)


def text_of(path: Path) -> str:
    return supported(path.read_text(encoding="utf-8"))


# The files of the repository


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_worked_cases_come_to_what_is_published_of_them(case: Path) -> None:
    until = parse_instant((case / "until").read_text().strip())
    text = (case / "definitions.yaml").read_text(encoding="utf-8")
    story = told(supported(text), (case / "events.jsonl").read_bytes().splitlines(), until)
    for together in (1, 3, 100):
        compare(story, together)
    if story.definitions != text:
        return  # what is published of it, counts different values
    changes = [json.loads(line) for line in b"".join(by_the_core(story).changes).splitlines()]
    published = [json.loads(line) for line in (case / "changes.jsonl").read_bytes().splitlines()]
    assert [
        {name: change[name] for name in expected} for change, expected in zip(changes, published, strict=True)
    ] == published


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_shops_history_comes_to_the_same_by_every_file_of_definitions(path: Path) -> None:
    text = text_of(path)
    shop = Shop(
        customers=40, events=1_200, span_ms=400 * DAY, currency=load_definitions(text.encode()).currency,
        late_ratio=0.1, duplicate_ratio=0.05, malformed_ratio=0.02,
    )  # fmt: skip
    lines = [line for _, line in shop.lines()]
    for together, until in ((7, None), (500, START + 4_000 * DAY)):
        compare(told(text, lines, until), together)


def test_nearly_all_events_of_a_shop_stay_in_the_core() -> None:
    Watched.noted.clear()
    shop = Shop(customers=100, events=3_000, currency="USD")
    by_the_core(told(text_of(FILES[0]), [line for _, line in shop.lines()]))
    assert Watched.noted["lines for Python"] < 150
    assert not Watched.noted["customers in Python's lane"]


# Random definitions and events


def replayed(tale: Tale, together: int, settings: tuple[int, int]) -> None:
    """Compares replays of what happens in a tale, as far as it happens to a replay."""
    note(f"{together} lines together, {settings}\n{tale}")
    lines = [record.value for step in tale.steps for record in step.records if record.value is not None]
    times = [step.instant for step in tale.steps if step.kind == "time"]
    with set_to(*settings):
        compare(told(tale.definitions, lines, max(times) if times else None), together)


@THOROUGH
@given(tales(PLAIN, many=20), st.integers(1, 20), SETTINGS)
def test_customers_move_alike(tale: Tale, together: int, settings: tuple[int, int]) -> None:
    replayed(tale, together, settings)


@THOROUGH
@given(tales(STRANGE), st.integers(1, 20), SETTINGS)
def test_customers_move_alike_whatever_is_said_of_them(tale: Tale, together: int, settings: tuple[int, int]) -> None:
    replayed(tale, together, settings)


@THOROUGH
@given(tales(RETURNS, many=20), st.integers(1, 20), SETTINGS)
def test_orders_and_refunds_count_alike(tale: Tale, together: int, settings: tuple[int, int]) -> None:
    with patch.object(ledger, "MAX_ORDERS", 2), patch.object(ledger, "MAX_WAITING", 2):
        replayed(tale, together, settings)


@THOROUGH
@given(tales(READINGS), st.integers(1, 20), SETTINGS)
def test_fields_and_attributes_are_read_alike(tale: Tale, together: int, settings: tuple[int, int]) -> None:
    replayed(tale, together, settings)


def test_customers_are_taken_over_and_given_back_amid_random_events() -> None:
    Watched.noted.clear()
    given_back: list[bool] = []
    shelf = compiled_replay._Shelf
    give_back = shelf.give_back

    def noted(self: Any) -> None:
        before = len(self._own)
        give_back(self)
        given_back.append(len(self._own) < before)

    @seed(7)
    @THOROUGH
    @given(tales(STRANGE))
    def tell(tale: Tale) -> None:
        replayed(tale, 3, (0, 4_096))

    with patch.object(shelf, "give_back", noted):
        tell()
    assert any(given_back)
    assert Watched.noted["customers in Python's lane"]


# What only Python can do


def view(customer: str, day: float, **fields: Any) -> bytes:
    given = {"type": "page_view", "customer_id": customer, "time": START + round(day * DAY)} | fields
    return json.dumps(given).encode()


RARELY = """\
version: 1
currency: EUR
features:
  weight: sum(page_view.weight, 2d)
schemes:
  s:
    default: none
    segments:
      - {name: heavy, when: weight > 1}
      - {name: here, when: since(any) <= 1d}
"""


def test_a_customer_whom_only_python_can_keep_lapses_among_others() -> None:
    lines = [
        view("b", 0), view("a", 0, props={"weight": 0.1}), view("c", 0), view("a", 0.1, props={"weight": 1}),
        view("é", 0.2), view("b", 0.5), view("z", 9),
    ]  # fmt: skip
    for few in (0, 10_000):
        for together in (1, 2, 100):
            with set_to(few, 1):
                compare(told(RARELY, lines, START + 50 * DAY), together)


def test_customers_stay_with_python_if_most_lines_are_for_it() -> None:
    lines = [view(f"é{day}", day, props={"weight": 1}) for day in range(20)]
    Watched.noted.clear()
    by_the_core(told(RARELY, lines), 5)
    assert Watched.noted["customers in Python's lane"] == 5 + 10 + 15 + 20


def test_a_worth_beyond_64_bits_stays_with_python() -> None:
    worth = "features:\n  worth: sum(purchase.amount, all) * 1000000\nvalue: worth\n"
    text = RARELY.replace("features:\n", worth.removesuffix("value: worth\n"))
    amounts = [view("a", day, type="purchase", amount="9999999999999.99") for day in range(3)]
    compare(told(text, [view("b", 0), *amounts, view("b", 5)]), 2)


def test_what_stood_before_an_unreadable_place_is_written() -> None:
    def unreadable() -> Iterator[bytes]:
        yield from (view(customer, day) for day in range(5) for customer in "abcd")
        raise InputError("the rest cannot be read")

    definitions = load_definitions(RARELY.encode())
    expected = b"".join(in_one_process(told(RARELY, [view(c, day) for day in range(5) for c in "abcd"])).changes)
    alone, sharded = Written(), Written()
    replay = CompiledReplay(
        definitions, lambda _: None, lambda _: None, plan(definitions), lambda core: alone.changes.append(core.drain())
    )
    with pytest.raises(InputError, match="cannot be read"):
        replay.run(unreadable())
    with shards_of(RARELY.encode(), 2, plan(definitions)) as running, pytest.raises(InputError, match="cannot be read"):
        running.replay(definitions, unreadable(), sharded.outputs, None)
    assert b"".join(alone.changes) == b"".join(sharded.changes) == expected


# The choice


def test_definitions_that_the_core_has_no_word_for_are_replayed_in_python() -> None:
    definitions = one_scheme("distinct(page_view.category, 7d) >= 2")
    assert choose(definitions, Engine.AUTO) == (None, "the definitions use distinct(..)")
    with pytest.raises(NoEngineError, match="the definitions use"):
        choose(definitions, Engine.COMPILED)


def test_the_core_is_used_unless_python_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(RARELY)
    (tmp_path / "e.jsonl").write_bytes(view("a", 0) + b"\n")
    with patch.object(compiled_replay, "CompiledReplay", wraps=CompiledReplay) as used:
        for engine in Engine:
            replay_files(
                tmp_path / "d.yaml", [str(tmp_path / "e.jsonl")], tmp_path / engine, None, None, None, engine=engine
            )
    assert used.call_count == 2
    assert len({(tmp_path / engine).read_bytes() for engine in Engine}) == 1
