"""Replays of large inputs, of tables, and of broken files, as somebody with a history runs them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, array, decimal128, int64, map_, parquet, string, timestamp

from tests.acceptance.commands import PATIENCE, ROOT, Outcome, run, started

STARTER = ROOT / "streamseg" / "definitions" / "starter.yaml"
OUTPUTS = ("changes", "rejects", "assignments")
UNTIL = "2027-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history with late and repeated events, refunds, and lines that are no events."""
    file = tmp_path_factory.mktemp("shop") / "shop.jsonl"
    ratios = ["--late-ratio", "0.1", "--duplicate-ratio", "0.05", "--malformed-ratio", "0.02"]
    settings = ["--events", 20_000, "--customers", 1_500, *ratios]
    assert run("generate", *settings, "--output", file, directory=file.parent).code == 0
    return file


def replayed(directory: Path, *arguments: object, given: bytes = b"") -> tuple[Outcome, list[bytes]]:
    """What a replay says, and what it writes."""
    directory.mkdir(exist_ok=True)
    written = [part for name in OUTPUTS for part in (f"--{name}", name)]
    done = run("replay", "--definitions", STARTER, *written, *arguments, directory=directory, given=given)
    return done, [(directory / name).read_bytes() for name in OUTPUTS]


def test_any_number_of_processes_writes_the_same(shop: Path, tmp_path: Path) -> None:
    one, expected = replayed(tmp_path / "one", "--jobs", 1, "--until", UNTIL, shop)
    assert one.code == 0
    assert all(expected)
    for jobs in (2, 3):
        done, found = replayed(tmp_path / "more", "--jobs", jobs, "--until", UNTIL, shop)
        assert (done.code, done.output, done.errors) == (0, one.output, one.errors)
        assert found == expected
    done, found = replayed(tmp_path / "more", "--jobs", 2, "--until", UNTIL, "-", given=shop.read_bytes())
    assert (done.output, found) == (one.output, expected)


def readable(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSON lines that has other lines, too."""
    for line in path.read_bytes().splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


@pytest.mark.parametrize("name", ["shop.csv.gz", "shop.parquet"])
def test_python_and_the_compiled_core_write_the_same_of_any_table(name: str, shop: Path, tmp_path: Path) -> None:
    columns = (*FIELDS, "props", "attributes")
    rows = [
        {key: json.dumps(cell) if isinstance(cell := event.get(key), dict) else cell for key in columns}
        for event in readable(shop)
    ]
    if name.endswith(".parquet"):
        table = {key: array([None if row[key] is None else str(row[key]) for row in rows], string()) for key in columns}
        parquet.write_table(Table.from_pydict(table), tmp_path / name)
    else:
        with gzip.open(tmp_path / name, "wt", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    python, expected = replayed(tmp_path / "python", "--engine", "python", "--jobs", 1, tmp_path / name)
    assert python.code == 0
    assert python.output.startswith("1")
    for jobs in (1, 2):
        done, found = replayed(tmp_path / "auto", "--jobs", jobs, tmp_path / name)
        assert (done.code, done.output, done.errors) == (0, python.output, python.errors)
        assert found == expected


def test_python_and_the_compiled_core_write_the_same(shop: Path, tmp_path: Path) -> None:
    one, expected = replayed(tmp_path / "python", "--engine", "python", "--jobs", 1, "--until", UNTIL, shop)
    assert one.code == 0
    for engine, jobs in (("auto", 1), ("auto", 2), ("python", 2)):
        done, found = replayed(tmp_path / "more", "--engine", engine, "--jobs", jobs, "--until", UNTIL, shop)
        assert (done.code, done.output, done.errors) == (0, one.output, one.errors)
        assert found == expected


def test_an_empty_input_is_a_replay_of_no_events(tmp_path: Path) -> None:
    done, found = replayed(tmp_path, "--jobs", 2, "-")
    assert (done.code, found) == (0, [b"", b"", b""])
    assert done.output.startswith("0 events (), 0 customers, 0 changes")


def test_changes_and_rejected_lines_in_one_file_stand_as_they_happened(shop: Path, tmp_path: Path) -> None:
    options = ["--definitions", STARTER, "--changes", "-", "--rejects", "-"]
    one, two = (run("replay", *options, "--jobs", jobs, shop, directory=tmp_path) for jobs in (1, 2))
    python = run("replay", *options, "--engine", "python", shop, directory=tmp_path)
    assert one.bytes == two.bytes == python.bytes


def test_what_stands_before_a_broken_place_is_replayed_by_any_number_of_processes(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(shop.read_bytes())[:-100_000])
    one, expected = replayed(tmp_path, "--jobs", 1, "cut.jsonl.gz")
    two, found = replayed(tmp_path, "--jobs", 2, "cut.jsonl.gz")
    assert one.code == two.code == 1
    assert one.errors.startswith("events file cut.jsonl.gz, after line ")
    assert (two.errors, found) == (one.errors, expected)
    python, found = replayed(tmp_path, "--jobs", 1, "--engine", "python", "cut.jsonl.gz")
    assert (python.errors, found) == (one.errors, expected)
    assert expected[0]


# The processes


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def eventually(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_replay_whose_process_is_killed_ends_with_code_70_and_says_so(tmp_path: Path) -> None:
    replay = started(["replay", "--definitions", STARTER, "--jobs", 2, "-"], tmp_path)
    first, second = eventually(lambda: len(found := children(replay.pid)) == 2 and found)
    os.kill(second, signal.SIGKILL)
    eventually(lambda: gone(second))
    _, errors = replay.communicate(b"{}\n", timeout=PATIENCE)
    assert replay.returncode == 70
    assert b"a process of the replay has ended before its time" in errors
    eventually(lambda: gone(first))


def test_a_replay_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    replay = started(["replay", "--definitions", STARTER, "--jobs", 2, "-"], tmp_path)
    left = eventually(lambda: len(found := children(replay.pid)) == 2 and found)
    replay.kill()
    replay.communicate(timeout=PATIENCE)
    eventually(lambda: all(map(gone, left)))


# Tables

EVENTS: list[dict[str, Any]] = [
    {"id": "e1", "type": "profile", "customer_id": "7", "time": "2026-01-01T10:00:00Z", "attributes": {"plan": "pro"}},
    {"type": "page_view", "customer_id": "7", "time": "2026-01-02T10:00:00.250Z", "props": {"category": "shoes"}},
    {"id": "e3", "type": "purchase", "customer_id": "7", "time": "2026-01-03T10:00:00Z", "order_id": "o1",
     "amount": "49.90", "currency": "EUR", "props": {"category": "01", "coupon": True, "items": 2, "weight": 1.5}},
    {"id": "e3", "type": "purchase", "customer_id": "8", "time": "2026-01-03T10:00:00Z", "amount": "19.05"},
    {"id": "e4", "type": "page_view", "customer_id": "8", "time": "2026-01-02T11:00:00Z",
     "props": {"category": "true"}},
    {"id": "e5", "type": "refund", "customer_id": "7", "time": "2026-01-04T10:00:00Z", "order_id": "o1"},
    {"id": "e6", "type": "refund", "customer_id": "7", "time": "2026-01-04T10:00:00Z"},
    {"id": "e7", "type": "page_view", "customer_id": "ä", "time": "2026-01-05T00:00:00Z",
     "props": {"category": 'a,"b\n'}},
]  # fmt: skip
TABLES_YAML = """\
version: 1
currency: EUR
features:
  shoes: count(page_view where category == "shoes", 7d)
  coupons: count(purchase where coupon == true, 7d)
  items: sum(purchase.items, 7d)
  weight: sum(purchase.weight, 7d)
  last_category: last(any.category)
  spend: sum(purchase.amount, 7d)
  pro: attr(plan) == "pro"
schemes:
  all:
    default: none
    segments:
      - {name: one, when: items == 2 and weight == 1.5 and spend >= 49.90 and coupons == 1 and last_category == "01"}
      - {name: two, when: shoes >= 1 and pro}
      - {name: three, when: last_category == "true" or spend >= 19.05}
      - {name: four, when: pro}
"""
FIELDS = ("id", "type", "customer_id", "time", "order_id", "amount", "currency")
PROPS = ("category", "coupon", "items", "weight")


def write_json_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(event) + "\n" for event in EVENTS))


def write_csv(path: Path) -> None:
    def cell(value: Any) -> str:
        return value if isinstance(value, str) and value != "true" else json.dumps(value)

    with path.open("w", newline="", encoding="utf-8-sig") as file:
        rows = csv.DictWriter(file, [*FIELDS, *(f"props.{name}" for name in PROPS), "attributes.plan", "comment"])
        rows.writeheader()
        for event in EVENTS:
            row = {name: event[name] for name in FIELDS if name in event}
            for parent in ("props", "attributes"):
                row |= {f"{parent}.{name}": cell(value) for name, value in event.get(parent, {}).items()}
            rows.writerow(row | {"comment": "not ours"})


def write_gzipped_csv(path: Path) -> None:
    write_csv(path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes()))


def write_parquet(path: Path) -> None:
    """With the types that a warehouse would give the columns."""
    from datetime import datetime
    from decimal import Decimal

    columns = {name: [event.get(name) for event in EVENTS] for name in FIELDS}
    table: dict[str, Any] = {name: array(cells) for name, cells in columns.items()}
    table["type"] = table["type"].dictionary_encode()
    table["time"] = array([datetime.fromisoformat(event["time"]) for event in EVENTS], timestamp("us", "UTC"))
    table["amount"] = array([None if each is None else Decimal(each) for each in columns["amount"]], decimal128(12, 2))
    table |= {f"props.{name}": array([event.get("props", {}).get(name) for event in EVENTS]) for name in PROPS}
    plans = [list(event["attributes"].items()) if "attributes" in event else None for event in EVENTS]
    table["attributes"] = array(plans, map_(string(), string()))
    table["comment"] = array(range(len(EVENTS)), int64())
    parquet.write_table(Table.from_pydict(table), path)


WRITERS = {"events.csv": write_csv, "events.csv.gz": write_gzipped_csv, "events.parquet": write_parquet}


def replayed_table(directory: Path, *arguments: object) -> tuple[Outcome, list[dict[str, Any]]]:
    (directory / "d.yaml").write_text(TABLES_YAML)
    done = run("replay", "--definitions", "d.yaml", "--changes", "out", *arguments, directory=directory)
    return done, [json.loads(line) for line in (directory / "out").read_bytes().splitlines()]


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_is_replayed_as_the_same_events_in_json_lines_are(name: str, tmp_path: Path) -> None:
    write_json_lines(tmp_path / "events.jsonl")
    WRITERS[name](tmp_path / name)
    expected, changes = replayed_table(tmp_path, "events.jsonl")
    assert {change["to"] for change in changes} == {"one", "two", "three", "four", "none"}
    assert "rejected 1: missing_field" in expected.output
    for jobs in (1, 2):
        done, found = replayed_table(tmp_path, "--jobs", jobs, name)
        assert (done.code, done.output, done.errors) == (0, expected.output, "")
        assert found == changes


def test_a_format_can_be_named_where_the_file_s_name_does_not_tell(tmp_path: Path) -> None:
    write_csv(tmp_path / "export")
    done, found = replayed_table(tmp_path, "--format", "csv", "export")
    assert (done.code, len(found) > 3) == (0, True)


HEADER = "type,customer_id,time\n"
BROKEN = {
    "type,when\nx,y\n": "events file e.csv: no column customer_id and no column time; it has type, when",
    HEADER + "a,b,1\na,b\n": "events file e.csv, row 2 (line 3): 2 cells, but 3 columns",
    HEADER + 'a,b,1\na,b,"1\n': "events file e.csv, after row 1 (line 3): unexpected end of data",
    "type,customer_id,time,props,props.x\n": "events file e.csv: has the column props and props.x too",
}


@pytest.mark.parametrize(("text", "message"), BROKEN.items(), ids=BROKEN.values())
def test_a_broken_csv_ends_with_code_1_and_names_the_row(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(text)
    done = run("replay", "--definitions", STARTER, "e.csv", directory=tmp_path)
    assert (done.code, done.errors) == (1, message + "\n")


def test_a_row_that_is_no_event_is_rejected_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(HEADER.encode() + b"a,b,1\na,b,yesterday\na,caf\xe9,1\n\na,,1\n")
    done, (_, rejects, _) = replayed(tmp_path, "e.csv")
    assert done.code == 0
    found = [(each["line"], each["reason"]) for each in map(json.loads, rejects.splitlines())]
    assert found == [(2, "bad_time"), (3, "invalid_utf8"), (5, "missing_field")]


def test_what_is_no_parquet_ends_with_code_1_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "e.parquet").write_bytes(b"PAR1")
    for name in ("e.parquet", "none.parquet"):
        done = run("replay", "--definitions", STARTER, name, directory=tmp_path)
        assert (done.code, done.errors.startswith(f"events file {name}: ")) == (1, True), done


def test_without_pyarrow_it_is_said_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError\n")
    write_parquet(tmp_path / "e.parquet")
    options = ["replay", "--definitions", STARTER, "e.parquet"]
    done = run(*options, directory=tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert (done.code, done.errors) == (
        1,
        "events file e.parquet: to read Parquet, pip install 'streamseg[parquet]'\n",
    )
