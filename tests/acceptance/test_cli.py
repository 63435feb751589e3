"""The command line, command by command, without Kafka."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from streamseg.cli import cli
from tests.acceptance.commands import ROOT, run

CASES = sorted((ROOT / "tests" / "golden" / "cases").iterdir())
CASE = CASES[0]
COMPARED = ("scheme", "from", "to", "version", "reason", "cause", "time", "since", "next_change_at", "next_segment")


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_help_names_every_option_and_its_environment_variable(command: str, tmp_path: Path) -> None:
    done = run(command, "--help", directory=tmp_path)
    assert done.code == 0
    text = " ".join(done.output.split())
    options = [each for each in cli.commands[command].params if each.param_type_name == "option"]
    for option in options:
        assert max(option.opts, key=len) in text
        if isinstance(option.envvar, str):
            assert f"env var: {option.envvar}" in text


def test_a_worker_can_be_set_up_by_the_environment_alone(tmp_path: Path) -> None:
    text = run("worker", "-h", directory=tmp_path).output
    for name in ("DEFINITIONS", "KAFKA", "REDIS", "EVENTS", "GROUP", "PREFIX", "CLOCK", "HTTP", "DATA", "LOG_LEVEL"):
        assert f"STREAMSEG_{name}" in text


def test_the_number_of_events_to_generate_is_not_taken_from_the_topics_of_the_environment(tmp_path: Path) -> None:
    done = run("generate", "--events", 7, "--customers", 3, directory=tmp_path, STREAMSEG_EVENTS="web,shop")
    assert (done.code, len(done.lines)) == (0, 7)


def test_a_misspelt_variable_is_an_error_that_says_which_was_meant(tmp_path: Path) -> None:
    done = run("check", "x.yaml", directory=tmp_path, STREAMSEG_KAKFA="host:1")
    assert done.code == 1
    assert done.errors == "environment variable STREAMSEG_KAKFA is not known: did you mean `STREAMSEG_KAFKA`?\n"


def test_an_option_may_stand_in_the_environment(tmp_path: Path) -> None:
    definitions = str(CASE / "definitions.yaml")
    done = run(
        "replay",
        CASE / "events.jsonl",
        directory=tmp_path,
        STREAMSEG_DEFINITIONS=definitions,
        STREAMSEG_CHANGES="out.jsonl",
    )
    assert done.code == 0
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") > 1


USAGE = [
    [],
    ["replay"],
    ["replay", "--definitions", "x.yaml"],
    ["replay", "--definitions", "x.yaml", "--until", "yesterday", "e.jsonl"],
    ["sing"],
    ["check"],
    ["check", "a", "b"],
    ["tail"],
    ["tail", "--kafka", ","],
    ["tail", "--kafka", "h:1", "--max", "0"],
    ["worker", "--clock", "sun"],
    ["worker", "--max-rejected", "1.5"],
    ["dead-letters"],
    ["dead-letters", "--kafka", "h:1", "--reason", "bad_luck"],
    ["dead-letters", "--kafka", "h:1", "--json", "--resubmit"],
    ["dead-letters", "--kafka", "h:1", "--to", "t"],
    ["explain", "c1", "--definitions", "x.yaml"],
    ["explain", "c1", "e.jsonl", "--definitions", "x.yaml", "--kafka", "h:1"],
    ["generate", "--events", "many"],
    ["generate", "--span", "90"],
    ["generate", "--kafka", "h:1"],
    ["generate", "--topic", "t"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_usage_ends_with_code_2_and_says_how_to_use_it(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, directory=tmp_path)
    assert done.code == 2
    assert "Usage: streamseg" in done.errors
    assert "Traceback" not in done.errors


WRONG = {
    "definitions file none.yaml: No such file or directory": ["check", "none.yaml"],
    "definitions file .: Is a directory": ["check", "."],
    "events file none.jsonl: No such file or directory": ["replay", "--definitions", "good.yaml", "none.jsonl"],
    "cannot write none/out: No such file or directory": ["generate", "--output", "none/out"],
    "a shop starts in 1970 or later and spans at least a day": ["generate", "--span", "1h"],
    "customer 'nobody' is unknown: none of 4 lines is an event of it": [
        "explain", "nobody", "--definitions", "good.yaml", "--replay", "events.jsonl",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("message", "arguments"), WRONG.items(), ids=WRONG)
def test_wrong_input_ends_with_code_1_and_one_line_that_says_what(
    message: str, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_bytes((CASE / "definitions.yaml").read_bytes())
    (tmp_path / "events.jsonl").write_bytes((CASE / "events.jsonl").read_bytes())
    done = run(*arguments, directory=tmp_path)
    assert (done.code, done.errors) == (1, f"{message}\n")


AWAY = [
    ["tail"],
    ["topics", "--events", "e"],
    ["generate", "--topic", "t"],
    ["explain", "c1", "--definitions", str(CASE / "definitions.yaml")],
]


@pytest.mark.parametrize("arguments", AWAY, ids=lambda arguments: arguments[0])
def test_a_kafka_that_is_away_ends_with_code_75(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, "--kafka", "127.0.0.1:1", directory=tmp_path)
    assert done.code == 75
    assert "no Kafka answers at 127.0.0.1:1: start it, or correct --kafka" in done.errors.splitlines()[-1]


def test_check_of_good_definitions_says_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_bytes((ROOT / "streamseg" / "definitions" / "starter.yaml").read_bytes())
    done = run("check", "good.yaml", directory=tmp_path)
    assert done.code == 0
    assert done.output.startswith("good.yaml: 2 schemes, 12 segments, sha256:")


def test_check_points_at_the_one_mistake(tmp_path: Path) -> None:
    good = (ROOT / "streamseg" / "definitions" / "starter.yaml").read_text()
    (tmp_path / "bad.yaml").write_text(good.replace("quiet_for <= 90d", "quiet_fro <= 90d"))
    done = run("check", "bad.yaml", directory=tmp_path)
    assert (done.code, done.output) == (1, "")
    line = good[: good.index("quiet_for <= 90d")].count("\n") + 1
    assert done.errors == (
        f"bad.yaml:{line}:15: error: there is no feature 'quiet_fro'\n"
        f" {line} |         when: quiet_fro <= 90d\n"
        "    |               ^^^^^^^^^\n"
        "    = hint: did you mean `quiet_for`?\n"
    )


# Replay


def replayed(case: Path, directory: Path, *arguments: object, given: bytes = b"") -> Any:
    until = (case / "until").read_text().strip()
    options = ["--definitions", case / "definitions.yaml", "--until", until, *arguments]
    return run("replay", *options, directory=directory, given=given)


def per_customer(lines: bytes) -> dict[str, list[tuple[Any, ...]]]:
    """What must be equal of each customer's changes, in order."""
    found = defaultdict(list)
    for line in lines.splitlines():
        change = json.loads(line)
        found[change["customer_id"]].append(tuple(change[field] for field in COMPARED))
    return dict(found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_replay_gives_the_published_changes(case: Path, tmp_path: Path) -> None:
    done = replayed(case, tmp_path, "--changes", "out.jsonl", case / "events.jsonl")
    assert done.code == 0, done
    expected = per_customer((case / "changes.jsonl").read_bytes())
    assert per_customer((tmp_path / "out.jsonl").read_bytes()) == expected


def test_events_may_be_compressed_come_from_a_pipe_or_stand_in_several_files(tmp_path: Path) -> None:
    events = (CASE / "events.jsonl").read_bytes()
    expected = (CASE / "changes.jsonl").read_bytes().splitlines()
    first, *rest = events.splitlines(keepends=True)
    (tmp_path / "all.jsonl.gz").write_bytes(gzip.compress(events))
    (tmp_path / "first.jsonl").write_bytes(first.rstrip())
    (tmp_path / "rest.jsonl.gz").write_bytes(gzip.compress(b"".join(rest)))
    for files in (["all.jsonl.gz"], ["-"], ["first.jsonl", "rest.jsonl.gz"]):
        done = replayed(CASE, tmp_path, "--changes", "-", *files, given=events)
        assert done.code == 0, done
        assert per_customer(done.bytes) == per_customer(b"\n".join(expected))


def test_changes_to_standard_output_stand_there_alone(tmp_path: Path) -> None:
    done = replayed(CASE, tmp_path, "--changes", "-", CASE / "events.jsonl")
    assert all(json.loads(line)["scheme"] for line in done.lines)
    assert "customers" in done.errors


def test_assignments_tell_each_customer_s_segments_and_what_comes_next(tmp_path: Path) -> None:
    assert replayed(CASE, tmp_path, "--assignments", "out.jsonl", CASE / "events.jsonl").code == 0
    last = {}
    for line in (CASE / "changes.jsonl").read_bytes().splitlines():
        change = json.loads(line)
        last[change["customer_id"], change["scheme"]] = change
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [each["customer_id"] for each in found] == sorted({customer for customer, _ in last})
    for each in found:
        for scheme, assignment in each["schemes"].items():
            change = last[each["customer_id"], scheme]
            assert assignment["segment"] == change["to"]
            assert assignment["since"] == change["time"]
            assert assignment["next_segment"] == change["next_segment"]


def test_rejected_lines_are_written_with_their_number_and_reason(tmp_path: Path) -> None:
    event = (CASE / "events.jsonl").read_bytes().splitlines()[0]
    given = b"\n".join([event, b"hello", b"", b'{"type":"page_view"}', b"caf\xe9", event[:-1]])
    options = ["--definitions", CASE / "definitions.yaml", "--rejects", "out.jsonl"]
    done = run("replay", *options, "-", given=given, directory=tmp_path)
    assert done.code == 0
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert [(each["line"], each["reason"]) for each in found] == [
        (2, "malformed_json"), (4, "missing_field"), (5, "malformed_json"), (6, "malformed_json"),
    ]  # fmt: skip
    assert found[0]["event"] == "hello"
    assert found[2]["event"] == "caf\ufffd"


# Explain

DEFINITIONS = """\
version: 1
currency: EUR
features:
  orders: count(purchase, 90d)
  spend: sum(purchase.amount, 90d)
  pro: attr(plan) == "pro"
schemes:
  value:
    owner: crm-team
    default: prospect
    segments:
      - name: champion
        when: orders >= 5 and spend >= 300 and since(purchase) <= 30d
        action: early access to new collections
        owner: loyalty
      - name: insider
        when: (pro or last(purchase.channel) in ["app", "web"]) and not (orders < 4)
      - name: loyal
        when: 3 <= orders
        stay_when: orders >= 2
        min_stay: 7d
        action: a card
  life:
    default: asleep
    segments:
      - name: awake
        when: since(any) <= 30d
"""


def purchase(number: int, day: int, **changes: Any) -> bytes:
    event = {"id": f"e{number}", "type": "purchase", "customer_id": "c42", "time": f"2026-01-{day:02}T10:00:00Z"}
    return json.dumps(event | {"amount": "50.10"} | changes).encode()


def explained(tmp_path: Path, events: list[bytes], *arguments: object) -> Any:
    (tmp_path / "d.yaml").write_text(DEFINITIONS)
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(events))
    options = ["--definitions", "d.yaml", "--replay", "events.jsonl", *arguments]
    return run("explain", "c42", *options, directory=tmp_path)


BOUGHT = [purchase(1, 1), purchase(2, 2), purchase(3, 3), purchase(4, 4)]


def test_explain_shows_values_thresholds_margins_and_the_way_up(tmp_path: Path) -> None:
    done = explained(tmp_path, BOUGHT, "--until", "2026-01-20T14:00:00Z")
    assert (done.code, done.errors) == (0, "")
    assert (
        done.output
        == """\
customer c42 at 2026-01-20T14:00:00.000Z, version 3

value: loyal since 2026-01-03T10:00:00.000Z
  next: prospect at 2026-04-04T00:00:00.000Z (in 73d 10h)
  action: a card
  owner: crm-team
  ✗ champion  when orders >= 5 and spend >= 300 and since(purchase) <= 30d
      ✗ orders = 4, needs >= 5: 1 short
      ✗ spend = 200.40 EUR, needs >= 300.00 EUR: 99.60 EUR short
      ✓ since(purchase) = 16d 4h, needs <= 30d: 13d 20h to spare
      to get in: orders = 4, needs >= 5: 1 short
      to get in: spend = 200.40 EUR, needs >= 300.00 EUR: 99.60 EUR short
  ✗ insider  when (pro or last(purchase.channel) in ["app", "web"]) and not (orders < 4)
      ✗ pro = false, needs true
      ✗ last(purchase.channel) = null, needs in ["app", "web"]
      ✓ orders = 4, needs >= 4: 0 to spare
      to get in: either pro = false, needs true or last(purchase.channel) = null, needs in ["app", "web"]
> ✓ loyal  when 3 <= orders
      ✓ orders = 4, needs >= 3: 1 to spare
      ✓ stay_when orders >= 2
      min_stay 7d
  ✓ prospect  default

life: awake since 2026-01-01T10:00:00.000Z
  next: asleep at 2026-02-03T10:00:00.001Z (in 13d 20h)
> ✓ awake  when since(any) <= 30d
      ✓ since(any) = 16d 4h, needs <= 30d: 13d 20h to spare
  ✓ asleep  default
"""
    )


def test_explain_at_a_later_time_shows_what_is_due(tmp_path: Path) -> None:
    done = explained(tmp_path, BOUGHT, "--at", "2026-02-04T10:00:00.001Z")
    life = done.output.split("\n\n")[2]
    assert (
        life
        == """\
life: awake since 2026-01-01T10:00:00.000Z
  next: asleep at 2026-02-03T10:00:00.001Z (due for 1d)
> ✗ awake  when since(any) <= 30d
      ✗ since(any) = 31d 1ms, needs <= 30d: 1d 1ms too much
  ✓ asleep  default
"""
    )


def test_explain_at_an_earlier_time_is_refused(tmp_path: Path) -> None:
    done = explained(tmp_path, BOUGHT, "--at", "2026-01-03T00:00:00Z")
    assert done.code == 1
    assert done.errors == (
        "the state is of 2026-01-04T10:00:00.000Z and cannot be taken back to 2026-01-03T00:00:00.000Z: for an earlier "
        "instant, replay the events --until it\n"
    )


def test_explain_says_what_keeps_a_customer_whose_condition_no_longer_holds(tmp_path: Path) -> None:
    refund = purchase(9, 5, type="refund", order_id="e1")
    done = explained(tmp_path, [*BOUGHT[:3], refund])
    assert done.output.split("\n\n")[1].splitlines()[:4] == [
        "value: loyal since 2026-01-03T10:00:00.000Z",
        "  next: prospect at 2026-04-03T00:00:00.000Z (in 87d 14h)",
        "  held by min_stay 7d until 2026-01-10T10:00:00.000Z",
        "  held by stay_when orders >= 2",
    ]


def test_explain_as_json_has_the_same_in_fields(tmp_path: Path) -> None:
    done = explained(tmp_path, BOUGHT, "--json")
    [line] = done.lines
    found = json.loads(line)
    assert (found["customer_id"], found["time"], found["version"]) == ("c42", "2026-01-04T10:00:00.000Z", 3)
    value, life = found["schemes"]
    assert (value["segment"], value["next_segment"], life["next_change_at"]) == (
        "loyal", "prospect", "2026-02-03T10:00:00.001Z",
    )  # fmt: skip
    assert value["segments"][0]["comparisons"][0] == {
        "text": "orders >= 5",
        "holds": False,
        "subject": "orders",
        "value": "4",
        "needs": ">= 5",
        "margin": "1 short",
    }
    assert [segment["holds"] for segment in value["segments"]] == [False, False, True, True]


def test_explain_does_not_let_a_property_steer_the_terminal(tmp_path: Path) -> None:
    done = explained(tmp_path, [*BOUGHT[:3], purchase(4, 4, props={"channel": "\x1b[31mred\x9b"})])
    assert "\x1b" not in done.output
    assert "\x9b" not in done.output
    assert r'last(purchase.channel) = "\u001b[31mred\u009b", needs in ["app", "web"]' in done.output


# Generate


def test_the_same_settings_generate_the_same_bytes(tmp_path: Path) -> None:
    settings = ["generate", "--events", 500, "--customers", 20, "--seed", 7]
    plain = run(*settings, directory=tmp_path)
    assert len(plain.lines) == 500
    assert run(*settings, "--output", "a.jsonl", directory=tmp_path).code == 0
    assert run(*settings, "--output", "a.jsonl.gz", directory=tmp_path).code == 0
    assert (tmp_path / "a.jsonl").read_bytes() == plain.bytes
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == plain.bytes
    assert run(*settings[:-1], 8, directory=tmp_path).bytes != plain.bytes


def test_generated_events_begin_when_they_are_told_to(tmp_path: Path) -> None:
    settings = ["--events", 50, "--customers", 5, "--span", "30d", "--malformed-ratio", 0, "--late-ratio", 0]
    done = run("generate", *settings, "--start", "2020-03-01T00:00:00Z", "--currency", "EUR", directory=tmp_path)
    times = [json.loads(line)["time"] for line in done.lines]
    assert times == sorted(times)
    assert times[0].startswith("2020-03-0")


def test_generated_events_are_segmented_by_the_starter_definitions(tmp_path: Path) -> None:
    events = run("generate", "--events", 5_000, "--customers", 200, directory=tmp_path).bytes
    starter = ROOT / "streamseg" / "definitions" / "starter.yaml"
    done = run("replay", "--definitions", starter, "-", given=events, directory=tmp_path)
    assert done.code == 0
    assert "5,000 events" in done.output
