from itertools import combinations
from typing import Any

import pytest

from tests.deploy.deployment import (
    GRAFANA_VALUES,
    Query,
    annotation_queries,
    dashboard,
    panel_queries,
    panels,
    selectors,
)

PANELS = panels()
QUERIES = panel_queries() + annotation_queries()
#: Grafana's identifiers of the units in use; it shows an unknown one as text after the number.
UNITS = {"none", "short", "s", "percentunit", "eps", "cps", "wps"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variables() -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard()["templating"]["list"]}


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    apart = (
        one["x"] + one["w"] <= other["x"]
        or other["x"] + other["w"] <= one["x"]
        or one["y"] + one["h"] <= other["y"]
        or other["y"] + other["h"] <= one["y"]
    )
    return not apart


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_the_chosen_data_source(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == SOURCE
    assert [target["datasource"] for target in panel["targets"]] == [SOURCE] * len(panel["targets"])
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_a_query_parses_and_looks_only_at_the_chosen_workers(query: Query) -> None:
    for selector in selectors(query.expression):
        chosen = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert chosen["job"] == GRAFANA_VALUES["$job"], f"{selector.name} does not choose by job"
        assert chosen["instance"] == GRAFANA_VALUES["$instance"], f"{selector.name} does not choose by instance"


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_a_query_about_segments_looks_only_at_the_chosen_schemes(query: Query) -> None:
    for selector in selectors(query.expression):
        if "_segment_" in str(selector.name):
            chosen = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
            assert chosen["scheme"] == GRAFANA_VALUES["$scheme"]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.place)
def test_no_variable_of_a_query_is_left_without_a_value(query: Query) -> None:
    assert "$" not in query.expression.replace('"$1"', "")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_rate_follows_the_scrape_interval(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        assert "rate(" not in target["expr"] or "[$__rate_interval]" in target["expr"]


@pytest.mark.parametrize("name", ["job", "instance", "scheme"])
def test_workers_and_schemes_are_chosen_from_what_is_there(name: str) -> None:
    variable = variables()[name]

    assert variable["query"]["query"].startswith("label_values(streamseg_")
    assert (variable["datasource"], variable["multi"], variable["includeAll"]) == (SOURCE, True, True)


def test_the_data_source_is_chosen_first() -> None:
    first = dashboard()["templating"]["list"][0]

    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")


def test_panels_have_numbers_of_their_own() -> None:
    numbers = [panel["id"] for panel in dashboard()["panels"]]

    assert len(numbers) == len(set(numbers))


def test_panels_stand_side_by_side() -> None:
    for one, other in combinations(dashboard()["panels"], 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def test_panels_stay_within_the_width_of_the_page() -> None:
    assert max(panel["gridPos"]["x"] + panel["gridPos"]["w"] for panel in dashboard()["panels"]) <= 24


def test_links_to_the_dashboard_last() -> None:
    assert (dashboard()["uid"], dashboard()["editable"]) == ("streamseg", False)
