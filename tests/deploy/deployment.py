"""Reads the deployment files, as the tests of this folder see them."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
#: Values for Grafana's variables: five minutes, an hour, and everything. Each is spelled in its own way,
#: so that a test can tell by which variable a series is chosen.
GRAFANA_VALUES = {
    "$__rate_interval": "5m",
    "$__range": "1h",
    "$job": ".+",
    "$instance": ".*",
    "$scheme": ".+.*",
}


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and where it stands, for messages."""

    place: str
    expression: str


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict), f"{path.name} is not a mapping"
    return content


def project_version() -> str:
    """Return the version in pyproject.toml."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def compose() -> dict[str, Any]:
    """Return docker-compose.yml with its merge keys resolved."""
    return read_yaml(PROJECT / "docker-compose.yml")


def services() -> dict[str, dict[str, Any]]:
    """Return the services of docker-compose.yml by name."""
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def streamseg_services() -> dict[str, dict[str, Any]]:
    """Return the services that run the streamseg image."""
    return {name: service for name, service in services().items() if "build" in service}


def workers() -> dict[str, dict[str, Any]]:
    """Return the services that run `streamseg worker`."""
    return {name: service for name, service in streamseg_services().items() if service["command"][0] == "worker"}


def docker_instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile as (instruction, arguments), lines joined, comments left out."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = (line.strip().partition(" ") for line in text.splitlines() if line.strip())
    return [(instruction.upper(), " ".join(arguments.split())) for instruction, _, arguments in lines]


def rules() -> list[dict[str, Any]]:
    """Return every recording and alerting rule."""
    groups = (group for path in sorted(RULES.glob("*.yml")) for group in read_yaml(path)["groups"])
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    """Return the alerting rules."""
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    path = DEPLOY / "grafana" / "dashboards" / "streamseg.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels, rows left out."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rule_queries() -> list[Query]:
    """Return the expression of every rule."""
    return [Query(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


def panel_queries() -> list[Query]:
    """Return the expressions of the panels, with Grafana's variables filled in."""
    targets = ((panel["title"], target["expr"]) for panel in panels() for target in panel["targets"])
    return [Query(title, filled_in(expression)) for title, expression in targets]


def annotation_queries() -> list[Query]:
    """Return the expressions of the dashboard's own annotations, filled in."""
    marks = (mark for mark in dashboard()["annotations"]["list"] if "expr" in mark)
    return [Query(mark["name"], filled_in(mark["expr"])) for mark in marks]


def filled_in(expression: str) -> str:
    """Return the expression with values for Grafana's variables."""
    for variable, value in GRAFANA_VALUES.items():
        expression = expression.replace(variable, value)
    return expression


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """Yield each series selector in a PromQL expression; raises ValueError when it does not parse."""
    found: list[promql_parser.VectorSelector] = []

    def collect(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), collect)
    yield from found


def metric_of(series: str) -> str:
    """Return the metric that a series belongs to: a histogram's base name, else the name itself."""
    return re.sub(r"_(bucket|sum|count)$", "", series)
