import re
from typing import Any

import pytest

from tests.deploy.deployment import PROJECT, RULES, Query, alerts, read_yaml, rule_queries, rules, selectors

RECORDED = {rule["record"] for rule in rules() if "record" in rule}
ALERTS = alerts()


def runbook_anchors() -> set[str]:
    """Return the anchors of the runbook's second-level headings, as GitHub forms them."""
    text = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")
    return {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, flags=re.MULTILINE)}


@pytest.mark.parametrize("query", rule_queries(), ids=lambda query: query.place)
def test_the_expression_of_a_rule_parses_and_reads_series(query: Query) -> None:
    assert list(selectors(query.expression))


@pytest.mark.parametrize("query", rule_queries(), ids=lambda query: query.place)
def test_a_rule_uses_only_recorded_series_that_are_recorded(query: Query) -> None:
    names = {str(selector.name) for selector in selectors(query.expression)}

    assert {name for name in names if ":" in name} <= RECORDED


def test_recorded_names_say_level_metric_and_operations() -> None:
    assert [name for name in RECORDED if not re.fullmatch(r"[a-z_]+:streamseg_[a-z_]+:[a-z0-9_]+", name)] == []


def test_a_name_is_recorded_once() -> None:
    assert len(RECORDED) == sum("record" in rule for rule in rules())


def test_groups_have_names_of_their_own() -> None:
    names = [group["name"] for path in RULES.glob("*.yml") for group in read_yaml(path)["groups"]]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_how_bad_and_what_to_do(alert: dict[str, Any]) -> None:
    annotations = alert["annotations"]

    assert re.fullmatch(r"Streamseg([A-Z][a-z]+)+", alert["alert"])
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert "for" in alert, "one bad scrape would wake somebody"
    assert "{{" not in annotations["summary"]
    assert annotations["description"] != annotations["summary"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_a_section_in_the_runbook(alert: dict[str, Any]) -> None:
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")

    assert (page, anchor) == ("docs/runbook.md", alert["alert"].lower())
    assert anchor in runbook_anchors()


def test_the_runbook_has_no_section_without_an_alert() -> None:
    assert runbook_anchors() == {alert["alert"].lower() for alert in ALERTS}


def test_links_within_the_runbook_lead_somewhere() -> None:
    text = (PROJECT / "docs" / "runbook.md").read_text(encoding="utf-8")

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= runbook_anchors()


def test_every_alert_has_a_unit_test_in_which_it_fires() -> None:
    tests = [test for path in (RULES.parent / "tests").glob("*.yml") for test in read_yaml(path)["tests"]]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]}

    assert fired == {alert["alert"] for alert in ALERTS}
