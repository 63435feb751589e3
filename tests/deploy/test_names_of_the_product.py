"""The deployment files name metrics, settings and commands; here each is looked up in the product itself."""

import re
import subprocess
import sys

import pytest

from streamseg.cli import environment_variables
from streamseg.worker.metrics import METRIC_NAMES
from tests.deploy.deployment import (
    DEPLOY,
    Query,
    annotation_queries,
    dashboard,
    docker_instructions,
    metric_of,
    panel_queries,
    rule_queries,
    selectors,
    streamseg_services,
)

#: What Prometheus itself records about a target.
OF_PROMETHEUS = {"up"}
ALL_QUERIES = rule_queries() + panel_queries() + annotation_queries()


def metrics_in(query: Query) -> set[str]:
    names = {str(selector.name) for selector in selectors(query.expression)}
    return {metric_of(name) for name in names if ":" not in name} - OF_PROMETHEUS


def streamseg(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from streamseg.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("query", ALL_QUERIES, ids=lambda query: query.place)
def test_a_query_names_only_metrics_that_the_worker_has(query: Query) -> None:
    assert metrics_in(query) - METRIC_NAMES == set()


def test_the_variables_of_the_dashboard_come_from_metrics_that_the_worker_has() -> None:
    queries = [variable["query"]["query"] for variable in dashboard()["templating"]["list"][1:]]

    assert {re.findall(r"streamseg_\w+", query)[0] for query in queries} <= METRIC_NAMES


def test_every_metric_of_the_worker_is_on_the_dashboard() -> None:
    shown = {metric for query in panel_queries() for metric in metrics_in(query)}

    assert METRIC_NAMES - shown == set()


@pytest.mark.parametrize("name", sorted(streamseg_services()))
def test_a_service_sets_only_variables_that_streamseg_knows(name: str) -> None:
    assert set(streamseg_services()[name].get("environment", {})) - environment_variables() == set()


def test_the_image_sets_only_variables_that_streamseg_knows() -> None:
    settings = " ".join(arguments for instruction, arguments in docker_instructions() if instruction == "ENV")

    assert set(re.findall(r"STREAMSEG_\w+", settings)) - environment_variables() == set()


@pytest.mark.parametrize("name", sorted(streamseg_services()))
def test_a_service_gives_a_command_that_streamseg_has(name: str) -> None:
    command, *arguments = streamseg_services()[name]["command"]

    answer = streamseg(command, "--help")

    assert answer.returncode == 0, answer.stderr
    assert [option for option in arguments if option.startswith("--") and option not in answer.stdout] == []


def test_the_definitions_of_the_compose_file_are_right() -> None:
    answer = streamseg("check", str(DEPLOY / "definitions.yaml"))

    assert answer.returncode == 0, answer.stdout + answer.stderr
