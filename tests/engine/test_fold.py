"""What the compiled core makes of events is what Python makes of them, to the byte.

`FOLD_EXAMPLES` sets how many examples each property tries.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from streamseg.core import ledger
from streamseg.core.definitions import Definitions
from streamseg.core.units import format_instant
from streamseg.engine import Engine, NoEngineError
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.native_plan import UnsupportedError, plan
from streamseg.formats.state import StateError, decode_state, in_this_format, without_outbox
from streamseg.shop import Shop
from streamseg.worker import compiled as compiled_module
from streamseg.worker import partition as partition_module
from streamseg.worker.compiled import CompiledPartition
from streamseg.worker.engine import kind_of_partition
from streamseg.worker.memory_states import MemoryStates
from streamseg.worker.partition import Batch, Group, Partition
from streamseg.worker.settings import Keys
from streamseg.worker.states import States
from tests.engine.stories import PLAIN, READINGS, RETURNS, STRANGE, Tale, supported, tales
from tests.engine.twins import Pair, Record, at_once, compiled, fetched, fold, items, load, pure, seen, stored
from tests.properties.timelines import START

THOROUGH = settings(
    max_examples=int(os.environ.get("FOLD_EXAMPLES", "30")),
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a tale takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests" / "golden" / "cases").iterdir())
FILES = [
    ROOT / "streamseg" / "definitions" / "starter.yaml",
    ROOT / "deploy" / "definitions.yaml",
    ROOT / "benchmarks" / "job.yaml",
    *sorted((ROOT / "docs" / "examples").glob("*.yaml")),
    *sorted((ROOT / "tests" / "worker" / "definitions").glob("*.yaml")),
    *(case / "definitions.yaml" for case in CASES),
]
HEAD = "version: 1\ncurrency: EUR\nrates: {USD: 0.5}\n"
MINUTE, DAY = 60_000, 86_400_000
ALL = float("inf")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def definitions_of(path: Path) -> Definitions:
    """Those of a file, without different values if there are any."""
    return load_definitions(supported(path.read_text(encoding="utf-8")).encode())


def one_scheme(when: str, head: str = "", rest: str = "") -> Definitions:
    text = f"{HEAD}{head}\nschemes:\n  s:\n    default: d\n    segments:\n      - {{name: a, when: '{when}'{rest}}}\n"
    return load_definitions(text.encode())


def event(number: int, time: int, customer: str = "a", **fields: Any) -> Record:
    """An event `time` milliseconds after the start."""
    given = {"type": "page_view", "customer_id": customer, "time": START + time, "id": f"e{number}"} | fields
    return Record(number, customer.encode(), json.dumps(given, ensure_ascii=False).encode())


def numbered(lines: Iterable[bytes]) -> list[Record]:
    """Lines as records, with the keys that they should have."""
    return [Record(number, customer_of(line), line) for number, line in enumerate(lines)]


def customer_of(line: bytes) -> bytes | None:
    try:
        return str(json.loads(line)["customer_id"]).encode()
    except (ValueError, TypeError, KeyError):
        return None


def in_batches(pair: Pair, records: list[Record], size: int) -> None:
    for start in range(0, len(records), size):
        pair.fold(records[start : start + size])


class Shelf:
    """States in an object that is no dictionary."""

    def __init__(self) -> None:
        self._all: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._all.get(key)

    def put(self, states: Mapping[bytes, bytes]) -> None:
        self._all.update(states)

    def delete(self, key: bytes) -> None:
        self._all.pop(key, None)

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        return self._all.items()

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self._all))

    def drop(self) -> None:
        self._all.clear()


# States of earlier versions


@pytest.mark.parametrize("at_home", [True, False], ids=["in the core's memory", "in Python's"])
def test_customers_whose_states_have_an_earlier_format_stay_in_the_core(at_home: bool) -> None:
    file = ROOT / "tests" / "formats" / "states_of_format_2.json"
    known = next(each for each in json.loads(file.read_text()) if "distinct" not in each["definitions"])
    states = {
        each["customer"].encode(): without_outbox(in_this_format(base64.b64decode(each["record"])))
        for each in known["customers"]
    }
    pair = Pair(load_definitions(known["definitions"].encode()))
    for one in pair.both:
        given = one.memory() if at_home else MemoryStates()
        given.put(states)
        load(one, given, 8)
        one.segmenter.clock = known["clock"]
    pair.show([key.decode() for key in states], told=False)
    pair.advance(known["clock"] + 20 * DAY)
    shop = Shop(customers=1, events=400, span_ms=20 * DAY, start=known["clock"] + 20 * DAY)
    lines = [line.replace(b"c000000", key) for (_, line), key in zip(shop.lines(), cycle(states), strict=False)]
    in_batches(pair, [Record(100_000 + number, line, line) for number, line in enumerate(lines)], 50)
    pair.advance(pair.pure.segmenter.clock + 400 * DAY)
    noted = pair.compiled.noted
    assert noted["states for Python"] <= noted["events for Python"] < 10


@pytest.fixture(autouse=True, scope="module")
def large_groups_of_deadlines() -> Iterator[None]:
    """How many deadlines come to nothing depends on what is in memory: so groups are the same only if they have all."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(Partition, "group_deadlines", 10_000)
        yield


# The files of the repository


@pytest.mark.parametrize("size", [13, 700])
@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_shops_customers_move_alike_by_every_file_of_definitions(path: Path, size: int) -> None:
    definitions = definitions_of(path)
    shop = Shop(
        customers=40, events=1_200, span_ms=400 * DAY, currency=definitions.currency, late_ratio=0.1,
        duplicate_ratio=0.05, malformed_ratio=0.02,
    )  # fmt: skip
    pair = Pair(definitions)
    records = numbered(line for _, line in shop.lines())
    half = len(records) // 2
    in_batches(pair, records[:half], size)
    pair.swap(Shelf)
    in_batches(pair, records[half - 20 :], size)
    pair.show(pair.pure.customers, told=False)
    pair.advance(pair.pure.segmenter.clock + 100 * DAY)
    pair.advance(pair.pure.segmenter.clock + 2_000 * DAY)


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_worked_cases_come_to_the_same(case: Path, size: int) -> None:
    pair = Pair(definitions_of(case / "definitions.yaml"))
    in_batches(pair, numbered((case / "events.jsonl").read_bytes().splitlines()), size)
    pair.advance(START + 4_000 * DAY)


def test_nearly_all_events_of_a_shop_stay_in_the_core() -> None:
    pair = Pair(definitions_of(FILES[0]))
    pair.fold(numbered(line for _, line in Shop(customers=100, events=3_000, currency="USD").lines()))
    assert pair.compiled.noted["events for Python"] < 150


def test_a_visit_that_moves_no_forecast_is_not_told_and_a_purchase_that_moves_one_is() -> None:
    pair = Pair(one_scheme("count(purchase, 30d) >= 1 or count(page_view, 1d) >= 9"))
    pair.fold([event(0, 0, type="purchase", amount=5)])

    pair.fold([event(1, DAY)])
    assert pair.refresh(ALL) == []

    pair.fold([event(2, 2 * DAY, type="purchase", amount=5)])
    [(customer, assignment)] = pair.refresh(ALL)
    assert customer == b"a"
    assert json.loads(assignment)["schemes"]["s"]["next_change_at"] == format_instant(START + 32 * DAY + 360 * MINUTE)
    assert pair.refresh(ALL) == []


def test_who_is_behind_tells_whatever_came() -> None:
    pair = Pair(one_scheme("count(purchase, 30d) >= 1"))
    pair.fold([event(0, 0, type="purchase", amount=5)])

    pair.fold([event(1, DAY)], behind=True)

    assert [customer for customer, _ in pair.refresh(ALL)] == [b"a"]


@pytest.mark.parametrize("behind", [False, True])
def test_a_forecast_that_an_event_moves_after_a_deadline_of_its_customer_is_told(behind: bool) -> None:
    often, ever = "{name: often, when: 'count(purchase, 2d) >= 2'}", "{name: ever, when: 'count(purchase, 9d) >= 1'}"
    text = f"{HEAD}schemes:\n  s:\n    default: d\n    segments:\n      - {often}\n      - {ever}\n"
    pair = Pair(load_definitions(text.encode()))
    pair.fold([event(number, number, type="purchase", amount=5) for number in range(2)])

    pair.fold([event(2, 3 * DAY, type="purchase", amount=5)], behind=behind)

    [(_, assignment)] = pair.refresh(ALL)
    assert json.loads(assignment)["schemes"]["s"] == {
        "segment": "ever",
        "since": format_instant(START + 2 * DAY + 15 * MINUTE),
        "next_change_at": format_instant(START + 12 * DAY + 60 * MINUTE),
        "next_segment": "d",
    }


# Random definitions and events


def lived(tale: Tale, keys: Keys = Keys.REKEY, partitions: int = 1) -> Pair:
    """Both after a tale, if they came to the same at every step."""
    note(str(tale))
    # So that customers come again who have no room, and some are kept because there is much of them.
    with patch.object(compiled_module, "ROOMS", 2), patch.object(compiled_module, "SMALL", 12):
        return _lived(tale, keys, partitions)


def _lived(tale: Tale, keys: Keys, partitions: int) -> Pair:
    pair = Pair(load_definitions(tale.definitions.encode()), keys, partitions)
    for number, step in enumerate(tale.steps):
        pair.at(float(number), number)
        if step.records:
            pair.fold(step.records, behind=number % 3 == 2)
        elif step.kind == "time" and step.number:
            pair.advance_by(step.instant, step.number)
        elif step.kind == "time":
            pair.advance(step.instant)
        elif step.kind == "refresh":
            pair.refresh(number - step.number)
        elif step.kind == "show":
            pair.show([*pair.pure.customers, "nobody"], told=bool(step.number))
        elif step.kind == "swap":
            kinds: list[type[States]] = [MemoryStates, Shelf]
            pair.swap(kinds[step.number])
    pair.settle()
    pair.noted += pair.compiled.noted
    return pair


@contextmanager
def tight() -> Iterator[None]:
    """Little is kept of orders, and groups end soon."""
    with (
        patch.object(partition_module, "OUTBOX_BYTES", 900),
        patch.object(compiled_module, "OUTBOX_BYTES", 900),
        patch.object(ledger, "MAX_ORDERS", 2),
        patch.object(ledger, "MAX_WAITING", 2),
    ):
        yield


@THOROUGH
@given(tales(PLAIN, many=20))
def test_customers_move_alike(tale: Tale) -> None:
    lived(tale)


@THOROUGH
@given(tales(STRANGE))
def test_customers_move_alike_whatever_is_said_of_them(tale: Tale) -> None:
    lived(tale)


@THOROUGH
@given(tales(RETURNS, many=20))
def test_orders_and_refunds_count_alike(tale: Tale) -> None:
    lived(tale)


@THOROUGH
@given(tales(READINGS))
def test_fields_and_attributes_are_read_alike(tale: Tale) -> None:
    lived(tale)


@THOROUGH
@given(tales(PLAIN, many=20) | tales(RETURNS, many=20))
def test_groups_end_alike_and_orders_are_forgotten_alike(tale: Tale) -> None:
    with tight():
        lived(tale)


@THOROUGH
@given(tales(PLAIN, keys=True), st.sampled_from(Keys), st.sampled_from([1, 2, 4]))
def test_events_with_wrong_keys_and_of_other_partitions_are_treated_alike(
    tale: Tale, keys: Keys, partitions: int
) -> None:
    lived(tale, keys, partitions)


def test_most_random_events_stay_in_the_core_and_customers_are_handed_over_amid_a_group() -> None:
    noted = Counter[str]()

    @seed(7)
    @settings(THOROUGH, max_examples=40, phases=[Phase.generate], database=None)
    @given(tales(PLAIN, many=20))
    def tell(tale: Tale) -> None:
        noted.update(lived(tale).noted)
        noted["events"] += tale.events

    tell()
    assert noted["events for Python"] < noted["events"] / 2
    assert noted["customers taken over with changes"]
    assert noted["deadlines for Python"] > 10


# Threads


def test_who_looks_while_another_thread_folds_waits_and_finds_what_came_of_it() -> None:
    made = numbered(line for _, line in Shop(customers=500, events=20_000, currency="USD").lines())
    partition, alone = (compiled(definitions_of(FILES[0])) for _ in range(2))
    expected = [seen(alone, group) for group in fold(alone, fetched(made))]
    engine, clocks, done = partition.customers.engine, list[int](), threading.Event()

    def look() -> None:
        while not done.is_set():
            clocks.append(engine.clock)
            assert engine.touched >= 0

    looking = threading.Thread(target=look)
    looking.start()
    try:
        found = [seen(partition, group) for group in fold(partition, fetched(made))]
    finally:
        done.set()
        looking.join()
    assert found == expected
    assert clocks == sorted(clocks)


# Lanes


VIEWS = "count(page_view, 1d) >= 2 or sum(page_view.qty, 1d) > 7"


def test_a_customer_is_handed_over_with_what_was_told_and_comes_back_with_the_next_group() -> None:
    pair = Pair(one_scheme("count(page_view, 1d) == 2"))
    big = "9" * 13
    pair.fold([event(n, n, type="page_view", **({"amount": big} if n == 2 else {})) for n in range(5)])
    assert pair.compiled.noted["customers taken over with changes"] == 1
    before = pair.compiled.noted["events for Python"]
    pair.fold([event(n, n) for n in range(5, 9)])
    assert pair.compiled.noted["events for Python"] == before


def test_what_waits_of_one_topic_is_folded_at_once_and_acknowledged_with_it() -> None:
    partition, acknowledged = compiled(one_scheme("count(page_view, 1d) >= 1")), list[str]()

    async def ack(name: str) -> None:
        acknowledged.append(name)

    def wait(topic: str, name: str, offsets: range) -> None:
        records = fetched([Record(offset, b"1", b"{}") for offset in offsets])
        partition._batches.append(Batch(topic, records, [cast("Any", partial(ack, name))]))

    wait("a", "first", range(4, 8))
    partition._batches[0].done = 3
    wait("a", "second", range(8, 10))
    wait("b", "of another topic", range(3))
    wait("a", "behind that", range(10, 12))
    partition._join()
    assert len(partition._batches) == 4  # one that is folded in part is not kept from its acknowledgement
    partition._batches[0].done = 0
    partition._join()
    joined, *left = partition._batches
    assert [record.offset for record in joined.records] == [4, 5, 6, 7, 8, 9]
    for batch in (joined, *left):
        for each in batch.acks:
            at_once(cast("Any", each()))
    assert acknowledged == ["first", "second", "of another topic", "behind that"]
    assert [len(batch.records) for batch in left] == [3, 2]


def test_a_deadline_of_a_customer_in_pythons_lane_fires_in_its_turn() -> None:
    pair = Pair(one_scheme("count(page_view, 1m) >= 1 and attr(score) == null or attr(score) > 1"))
    records = [event(number, number, customer) for number, customer in enumerate("abcd")]
    records += [
        event(4, 5, "b", type="profile", attributes={"score": 0.5}),
        event(5, 6, "d", amount="9" * 13),
        event(6, 2 * MINUTE, "e"),
    ]
    pair.fold(records)
    assert pair.compiled.noted["deadlines for Python"]
    pair.advance(START + DAY)


def test_deadlines_fire_a_few_in_a_group() -> None:
    pair = Pair(one_scheme("since(any) < 1m"))
    names = [f"c{number}" for number in range(20)]
    pair.fold([event(number, 0, name) for number, name in enumerate(names)])
    pair.fold([event(20, 1, "c7", type="profile", attributes={"x": 0.5}), event(21, 1, "c8", props={"x": 1})])
    done = [pair.advance_some(START + DAY, 6) for _ in range(4)]
    assert done == [False, False, False, True]


def test_a_deadline_that_a_customer_has_passed_is_not_the_next_one() -> None:
    pair = Pair(one_scheme("count(any, 1h) + count(any, 2h) + count(any, 3h) + count(any, 9d) >= 1"))
    pair.fold([event(0, 0)])
    pair.advance(START + DAY)
    pair.fold([event(1, DAY)])
    assert pair.compiled.segmenter.next_deadline > START + DAY


def all_changes(partition: Partition, records: list[Record]) -> list[Any]:
    """Of these events, and of the deadlines that they left."""
    groups = list(fold(partition, records))
    while not partition.segmenter.advance(partition.segmenter.clock, 3):
        groups.append(Group())
        at_once(partition._complete(groups[-1]))
    groups.append(Group())
    at_once(partition._complete(groups[-1]))
    return [each[:2] for group in groups for each in items(group.changes)]


@pytest.mark.parametrize("make", [pure, compiled])
def test_whoever_buys_does_not_wait_for_the_deadlines_of_others(
    make: Callable[[Definitions], Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [event(number, 0, f"c{number:02}") for number in range(20)]
    records += [event(20 + number, 2 * MINUTE + number, f"c{number:02}") for number in (19, 5, 18, 19, 4)]
    whole = all_changes(make(one_scheme("since(any) < 1m")), records)
    monkeypatch.setattr(Partition, "group_deadlines", 3)
    few = all_changes(make(one_scheme("since(any) < 1m")), records)
    assert few != whole
    assert sorted(few) == sorted(whole)
    for customer in {key for key, _ in whole}:
        assert [each for each in few if each[0] == customer] == [each for each in whole if each[0] == customer]


@pytest.mark.parametrize("make", [pure, compiled])
@pytest.mark.parametrize(
    ("when", "moved", "left"), [("since(any) < 1m", 3, 17), ("count(any, 7d) >= 1 and count(purchase, 7d) >= 1", 0, 0)]
)
def test_a_group_is_full_of_changes_by_time_and_not_of_deadlines_that_come_to_nothing(
    make: Callable[[Definitions], Partition], when: str, moved: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Partition, "group_deadlines", 3)
    partition = make(one_scheme(when))
    list(fold(partition, [event(number, 0, f"c{number:02}") for number in range(20)]))
    assert partition.segmenter.pending == 20
    asyncio.run(partition._advance(START + 90 * DAY))
    assert partition._moved_by_time == moved
    assert partition.segmenter.pending == left


def test_a_sum_with_fractions_stays_with_python() -> None:
    pair = Pair(one_scheme("sum(page_view.qty, 30d) >= 1.5"))
    pair.fold([event(0, 0), event(1, 1, props={"qty": 0.5}), event(2, 2, props={"qty": 1})])
    before = pair.compiled.noted["events for Python"]
    pair.fold([event(3, 3, props={"qty": 1})])
    assert pair.compiled.noted["events for Python"] > before
    pair.show(["a"], told=True)
    pair.swap()
    pair.fold([event(4, 4, props={"qty": 1})])
    pair.advance(START + 40 * DAY)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 10**12, 10**12 + 1, 2**52, 2**52 + 1])
def test_a_number_of_any_size_counts(number: int) -> None:
    for when in ("sum(page_view.qty, all) > 3", "max(page_view.qty, 1d) > 3", "last(page_view.qty) > 3", VIEWS):
        pair = Pair(one_scheme(when))
        pair.fold([event(0, 0), event(1, 1, props={"qty": number}), event(2, 2, props={"qty": 5})])
        pair.fold([event(3, 3, props={"qty": 1})])
        pair.advance(START + 9 * DAY)


LARGE = [
    "since(any) + 7000000000w + 7000000000w + 7000000000w > 1w",
    "-since(any) - 7000000000w - 7000000000w < 1w",
    "since(any) * 4000000000000000000 - since(purchase) * 4000000000000000000 > 1w",
    "since(any) - 7625597w > 1w",
    "count(any, 30d) >= 4611686018427387903",
]


@pytest.mark.parametrize("when", LARGE)
def test_large_literals_add_up(when: str) -> None:
    pair = Pair(one_scheme(when))
    pair.fold([event(0, 0), event(1, 1, type="purchase", amount=5), event(2, 70_000)])
    pair.advance(START + 10_000 * DAY)


def test_when_the_input_was_not_observed_from_its_beginning_changes_say_so() -> None:
    pair = Pair(one_scheme("count(any, 30d) >= 2 or count(any, all) >= 9"))
    pair.fold([event(n, n * 20 * DAY) for n in range(3, 7)])


# What the core cannot apply


UNSUPPORTED = {
    "distinct(any.qty, 7d) > 1": "",
    "since(any) > 999999999999999w": "",
    "count(any, 30d) > 10000000000000000000000": "",
    "count(any, 30d) > 1": ", min_stay: 999999999999999w",
}


@pytest.mark.parametrize(("when", "rest"), UNSUPPORTED.items())
def test_what_the_core_cannot_apply_python_applies(when: str, rest: str) -> None:
    definitions = one_scheme(when, rest=rest)
    with pytest.raises(UnsupportedError):
        plan(definitions)
    assert kind_of_partition(definitions, Engine.AUTO) is Partition
    with pytest.raises(NoEngineError, match="the definitions use"):
        kind_of_partition(definitions, Engine.COMPILED)


def test_many_features_and_selections_are_left_to_python() -> None:
    features = "".join(f"  f{n}: count(any, {n + 1}d)\n" for n in range(65))
    with pytest.raises(UnsupportedError, match="40 features"):
        plan(one_scheme("f1 > 1", f"features:\n{features}"))
    terms = " + ".join(f"count(any where a > {n}, all)" for n in range(64))
    with pytest.raises(UnsupportedError, match="63 selections"):
        plan(one_scheme(f"{terms} > 1"))
    with pytest.raises(UnsupportedError):
        plan(one_scheme("count(any, 1d) > 1", "refund_window: 999999999999999w"))


def test_an_operator_chooses_the_engine() -> None:
    definitions = one_scheme("count(any, 1d) > 1")
    assert kind_of_partition(definitions, Engine.PYTHON) is Partition
    for wanted in (Engine.AUTO, Engine.COMPILED):
        assert issubclass(kind_of_partition(definitions, wanted), CompiledPartition)
    with patch.dict("sys.modules", {"streamseg_engine": None}), pytest.raises(NoEngineError, match="not installed"):
        kind_of_partition(definitions, Engine.COMPILED)


# Broken states


RICH = supported((ROOT / "tests" / "worker" / "definitions" / "every_feature.yaml").read_text(encoding="utf-8"))
RICH_ONES = load_definitions(RICH.encode())


def rich_states() -> list[bytes]:
    """States that hold something of all."""
    partition = compiled(RICH_ONES)
    lines = Shop(customers=12, events=300, span_ms=60 * DAY, currency="USD").lines()
    for _ in fold(partition, numbered(line for _, line in lines)):
        pass
    return list(stored(partition).values())


STATES = rich_states()
WORDS = [b"\xc0", b"\x90", b"\x80", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xdd\xff\xff\xff\xff", b"\xff"]
"""Of MessagePack: null, nothing, and the largest."""


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Draw a state of which some bytes are others."""
    data = bytearray(draw(st.sampled_from(STATES)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data) - 1) | st.integers(8, 60))
        data[start : start + draw(st.integers(0, 9))] = draw(st.binary(max_size=9) | st.sampled_from(WORDS))
    return bytes(data)


class EndlessError(Exception):
    """Python goes round in a circle with what is broken."""


@contextmanager
def at_most_a_second() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise EndlessError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(data: bytes) -> str:
    """What becomes of a state when it is used in every way; whatever is raised is an exception, not a panic."""
    partition = compiled(RICH_ONES)
    try:
        with at_most_a_second():
            use(partition, data)
    except StateError:
        return "refused"
    except Exception as error:  # noqa: BLE001 - of what is broken Python says this or that
        return type(error).__name__
    return "read"


def use(partition: Partition, data: bytes) -> None:
    given = MemoryStates()
    given.put({b"a": data})
    load(partition, given, 8)
    seen(partition, next(fold(partition, [event(0, 0)])))
    for record in (event(1, 1, type="purchase", amount=5, order_id="o"), event(2, 2, type="refund", order_id="o")):
        next(fold(partition, [record]))
    partition._show(Group(), ["a"], told=True)
    partition.segmenter.advance(START + 400 * DAY, 20)
    next(fold(partition, [event(3, 400 * DAY)]))


def is_readable(data: bytes) -> bool:
    """Whether Python can read a state."""
    layout = RICH_ONES.layout
    try:
        decode_state(data, layout)
    except StateError:
        return False
    return True


@settings(THOROUGH, max_examples=8 * THOROUGH.max_examples)
@given(broken())
def test_a_broken_state_is_refused_and_does_no_harm(data: bytes) -> None:
    became = outcome(data)
    assert is_readable(data) or became in ("refused", "ValueError")


@settings(THOROUGH, max_examples=4 * THOROUGH.max_examples)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_state_do_no_harm(data: bytes) -> None:
    assert outcome(data) != "read"


@THOROUGH
@given(st.lists(st.none() | st.binary(max_size=90), max_size=5), st.none() | st.binary(max_size=9))
def test_bytes_that_are_no_events_are_rejected_alike(values: list[bytes | None], key: bytes | None) -> None:
    pair = Pair(RICH_ONES, Keys.REJECT)
    pair.fold([Record(number, key, value) for number, value in enumerate([event(0, 0).value, *values])])
