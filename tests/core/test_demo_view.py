from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from streamseg.core.units import parse_instant
from streamseg.demo_view import (
    DemoState,
    DemoView,
    Migration,
    SchemeFigures,
    SegmentFigures,
    SegmentMove,
    print_summary,
)

NOON = parse_instant("1997-10-12T12:00:00Z")
VALUE = SchemeFigures(
    name="value",
    segments=(
        SegmentFigures(name="champions", customers=2_284, value=65_780_212, change=31),
        SegmentFigures(name="potential_loyalists", customers=1_430, value=10_758_900, change=-1_204),
        SegmentFigures(name="prospects", customers=286),
    ),
)
ENGAGEMENT = SchemeFigures(
    name="engagement",
    segments=(
        SegmentFigures(name="active", customers=1_000, value=124_000_000),
        SegmentFigures(name="dormant", customers=3_000, value=99),
    ),
)
MOVES = tuple(
    SegmentMove(time=NOON, customer=f"c{number:05}", scheme="value", source=source, target=target, reason=reason)
    for number, (source, target, reason) in enumerate(
        [
            ("champions", "potential_loyalists", "time"),
            ("potential_loyalists", "champions", "event"),
            (None, "prospects", "event"),
            ("prospects", None, "erase"),
        ]
        * 10
    )
)
STATE = DemoState(
    progress=0.63,
    events=43_885,
    events_per_second=1_874.4,
    simulated=NOON,
    elapsed=83.4,
    schemes=(VALUE, ENGAGEMENT),
    moves=MOVES,
    moves_total=98_213,
    migrations=(
        Migration(scheme="value", source="potential_loyalists", target="champions", customers=3_854),
        Migration(scheme="engagement", source="active", target="dormant", customers=1_247),
    ),
    restarts=1,
    tip="Time alone made most of these changes.",
)
NOTHING_YET = DemoState(
    progress=0.0,
    events=0,
    events_per_second=0.0,
    simulated=0,
    elapsed=0.0,
    schemes=(SchemeFigures(name="value", segments=()),),
)


def drawn(state: DemoState, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), record=True, color_system=None)
    console.print(DemoView(state), end="")
    return console.export_text().split("\n")


def summary(state: DemoState, width: int, *notes: str) -> str:
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None)
    print_summary(console, state, notes)
    return console.export_text()


@pytest.mark.parametrize(("width", "height"), [(100, 36), (80, 24), (120, 50), (96, 34)])
def test_the_view_fills_the_terminal_and_never_exceeds_it(width: int, height: int) -> None:
    lines = drawn(STATE, width, height)

    assert len(lines) == height
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), [(100, 36), (80, 24)])
def test_an_onlooker_sees_how_far_the_demo_is(width: int, height: int) -> None:
    text = "\n".join(drawn(STATE, width, height))

    for shown in ("63%", "43,885 events", "1,874/s", "98,213 changes", "12 October 1997", "1 min 23 s"):
        assert shown in text
    assert "1 worker restart " in text
    assert STATE.tip in text


@pytest.mark.parametrize(("width", "height"), [(100, 36), (80, 24)])
def test_an_onlooker_sees_every_segment_with_its_size_share_and_change(width: int, height: int) -> None:
    lines = drawn(STATE, width, height)

    champions = next(line for line in lines if "● champions" in line)
    potential = next(line for line in lines if "● potential_loyalists" in line)
    assert set(champions.split()) >= {"champions", "2,284", "57.1", "▲31"}
    assert "▼1,204" in potential
    assert any("● dormant" in line and "3,000" in line and "75.0" in line for line in lines)


def test_a_roomy_terminal_also_shows_what_segments_spend() -> None:
    text = "\n".join(drawn(STATE, 100, 36))

    assert "in 5 s" in text
    assert all(spend in text for spend in ("$658k", "$108k", "$1.24M", "$1 "))


@pytest.mark.parametrize(("width", "height"), [(100, 36), (80, 24)])
def test_the_latest_changes_stand_newest_first_as_many_as_fit(width: int, height: int) -> None:
    lines = drawn(STATE, width, height)
    shown = [line for line in lines if "1997-10-12 12:00" in line]

    assert len(shown) >= 8
    assert [line.split()[3] for line in shown] == [move.customer for move in MOVES[: len(shown)]]
    assert "champions → potential_loyalists" in shown[0]
    assert "time passed" in shown[0]
    assert " → prospects" in shown[2]
    assert "prospects → gone" in shown[3]


def test_a_roomy_terminal_shows_the_largest_migrations_with_long_names_cut() -> None:
    text = "\n".join(drawn(STATE, 100, 36))

    assert "3,854 potential_lo… → champions" in text
    assert "1,247 active → dormant" in text


def test_a_demo_that_has_seen_nothing_is_drawn_too() -> None:
    for state in (NOTHING_YET, replace(NOTHING_YET, schemes=())):
        for width, height in ((100, 36), (80, 24), (40, 10)):
            lines = drawn(state, width, height)
            assert "streamseg" in lines[0]
            assert lines[2].startswith(" 0 event")
            assert max(map(len, lines)) <= width


def test_better_segments_are_greener_and_the_last_one_is_grey() -> None:
    colours = [ENGAGEMENT.colour(segment.name) for segment in ENGAGEMENT.segments]

    assert colours == ["#2ecc71", "#8a919c"]
    assert VALUE.colour("champions") != VALUE.colour("potential_loyalists") != VALUE.colour("prospects")


def test_money_is_shown_in_the_currency_of_the_definitions() -> None:
    yen = replace(STATE, currency="JPY")
    francs = replace(STATE, currency="CHF")

    assert "¥65.78M" in "\n".join(drawn(yen, 100, 36))
    assert "CHF 658k" in "\n".join(drawn(francs, 100, 36))


@pytest.mark.parametrize("width", [100, 80])
def test_the_summary_says_what_was_done_and_lists_the_notes(width: int) -> None:
    text = summary(STATE, width, "every change is in the topic", "look one up")
    flat = " ".join(text.split())

    assert "43,885 events of 4,000 customers in 1 min 23 s" in flat
    assert "98,213 segment changes, through 1 worker restart." in flat
    assert "• every change is in the topic" in text
    assert "• look one up" in text
    for segment in (*VALUE.segments, *ENGAGEMENT.segments):
        assert segment.name in text
    assert "3,854" in text
    assert "▲" not in text


def test_a_summary_without_restarts_does_not_mention_them() -> None:
    assert "restart" not in summary(replace(STATE, restarts=0), 80)
