"""The harness of `make bench`, without its long runs."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from benchmarks import report
from benchmarks.comparison import ALWAYS, chosen
from benchmarks.expected import Expected, Move, expect
from benchmarks.figures import Cost, Figures, ratio
from benchmarks.input import Input, make
from benchmarks.peer import DEFINITIONS, PEERS
from benchmarks.peers.rules import Profile, apply, new_profile
from streamseg.core.change import Change
from streamseg.formats.definitions_yaml import read_definitions
from streamseg.replay import Replay

NAMES = {
    "floor", "streamseg", "replay", "faust", "quix", "kafka-streams-memory", "kafka-streams-memory-cached",
    "kafka-streams-rocksdb", "kafka-streams-rocksdb-cached", "flink",
}  # fmt: skip
EVENTS = 4_000


def test_the_job_is_one_scheme_of_six_segments_over_windows_of_a_week_a_month_and_a_quarter() -> None:
    (compiled,) = read_definitions(DEFINITIONS).schemes

    assert len(compiled.scheme.names) == 6
    text = DEFINITIONS.read_text()
    assert all(f"count(purchase, {days}d)" in text and f"sum(purchase.amount, {days}d)" in text for days in (7, 30, 90))


def test_all_runs_every_name_and_none_runs_ours_and_the_floors() -> None:
    assert set(chosen("all")) == NAMES | {"decode"}
    assert chosen("") == list(ALWAYS)
    assert chosen("flink") == [*ALWAYS, "flink"]


def test_a_peer_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(click.UsageError, match=r"no such peer: spark.*kafka-streams-memory"):
        chosen("flink spark")


def test_the_table_has_a_row_for_each_name_and_the_last_line_the_medians_of_its_rounds() -> None:
    found = {
        name: [Figures(1_000.4, 2_000, 30), Figures(3_000, 5_000, 31), Figures(2_000, 4_000, 90)] for name in NAMES
    }

    rows = report.table(found).splitlines()[1:]
    line = json.loads(report.as_json(found))

    assert {row.split()[0] for row in rows} == NAMES
    assert line["streamseg"] == {"events_per_second": 2_000, "events_per_cpu_second": 4_000, "peak_mb": 31}
    assert set(line) == NAMES
    assert set(report.TITLES) == NAMES | {"decode"} == {*PEERS, "decode", "replay"}


def test_what_a_run_takes_to_start_drops_out_of_its_figures() -> None:
    start, whole = Cost(20_000, 3.5, 2.0, 100), Cost(220_000, 5.5, 3.0, 900)

    assert whole.beyond(start) == Figures(100_000, 200_000, 900)


def test_a_ratio_is_taken_round_by_round() -> None:
    found = ratio([100, 200, 400], [50, 200, 400])

    assert (found.middle, found.least, found.greatest) == (1, 0.5, 1)


def test_the_rules_that_peers_in_python_have_put_every_customer_where_a_replay_does(tmp_path: Path) -> None:
    given, expected = replayed(tmp_path)

    moves = moves_by_hand(given)

    assert expected.wrong(moves, in_time=False) is None
    assert 0 < expected.moves < expected.moves_in_time
    assert len(expected.segments) == EVENTS / 20


def test_a_peer_with_one_customer_elsewhere_or_a_change_too_many_is_found_out(tmp_path: Path) -> None:
    given, expected = replayed(tmp_path)
    moves = moves_by_hand(given)
    last = moves[-1]
    elsewhere = Move(last.customer_id, "nowhere", last.version, last.time)

    assert f"{last.customer_id} in nowhere, not {last.to}" in str(
        expected.wrong([*moves[:-1], elsewhere], in_time=False)
    )
    assert expected.wrong([*moves, last], in_time=False) == f"{len(moves) + 1} changes, not {len(moves)}"


def replayed(folder: Path) -> tuple[Input, Expected]:
    given, changes = make(folder / "events.jsonl", EVENTS, seed=3), list[Change]()
    with given.path.open("rb") as file:
        Replay(read_definitions(DEFINITIONS), changes.append).run(file)
    path = folder / "changes.jsonl"
    path.write_text("".join(json.dumps(change.data()) + "\n" for change in changes))
    return given, expect(given, path)


def moves_by_hand(given: Input) -> list[Move]:
    profiles, moves = dict[str, Profile](), []
    for line in given.path.read_bytes().splitlines():
        event = json.loads(line)
        customer = event["customer_id"]
        profile = profiles.setdefault(customer, new_profile())
        change = apply(profile, event["id"], event["type"], customer, event["time"], event.get("amount"))
        if change is not None:
            moves.append(Move(customer, change["to"], change["version"], change["time"]))
    return moves
