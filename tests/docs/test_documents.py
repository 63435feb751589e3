"""What the documents claim, held against the product."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from streamseg.cli import cli
from streamseg.core.change import Reason
from streamseg.core.expression import FUNCTIONS
from streamseg.formats.definitions_yaml import load_definitions
from streamseg.formats.rejection import REASONS
from streamseg.replay import replay_changes
from streamseg.worker.metrics import METRIC_NAMES, Metrics
from streamseg.worker.settings import Names
from streamseg.worker.topics import own_topics
from tests.docs.markdown import ROOT, Block, Document, documents, rows, words

README, OPERATING, EVENTS = Document("README.md"), Document("docs/operating.md"), Document("docs/events.md")
SUBSCRIBING, DEFINITIONS = Document("docs/subscribing.md"), Document("docs/definitions.md")
ALL = documents()
YAML_BLOCKS = [block for document in ALL for block in document.blocks("yaml")]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
RECORDS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
SOME_SCHEME = "schemes:\n  some:\n    default: others\n    segments:\n      - {name: one, when: since(any) <= 1d}\n"


def completed(text: str) -> str:
    """A definitions file, of a block that may leave out what is the same everywhere."""
    parts = yaml.safe_load(text)
    head = "" if "version" in parts else "version: 1\ncurrency: EUR\n"
    return head + text + ("" if "schemes" in parts else SOME_SCHEME)


# Links


@pytest.mark.parametrize("document", ALL, ids=lambda document: document.name)
def test_every_link_leads_somewhere(document: Document) -> None:
    broken = [link for link in document.links() if not urlsplit(link).scheme and not resolves(document, link)]

    assert broken == []


def resolves(document: Document, link: str) -> bool:
    path, _, fragment = link.partition("#")
    target = (document.path.parent / path).resolve() if path else document.path
    if not target.exists() or ROOT not in [target, *target.parents]:
        return False
    return not fragment or fragment in Document(str(target.relative_to(ROOT))).anchors()


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, left = set[Path](), [README.path]
    while left:
        path = left.pop()
        reached.add(path)
        document = Document(str(path.relative_to(ROOT)))
        for link in document.links():
            target = (path.parent / link.partition("#")[0]).resolve()
            found = list(target.glob("*.md")) if target.is_dir() else [target]
            left += [each for each in found if each.suffix == ".md" and each.exists() and each not in reached]

    assert {document.path for document in ALL} - reached == set()


# Examples


@pytest.mark.parametrize("block", YAML_BLOCKS, ids=str)
def test_a_definitions_file_in_a_document_is_accepted(block: Block) -> None:
    assert load_definitions(completed(block.text).encode()).schemes


def test_the_first_definitions_file_of_the_readme_is_the_one_among_the_examples() -> None:
    assert README.blocks("yaml")[0].text == (ROOT / "docs/examples/first.yaml").read_text()


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block and what follows each."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts if part)]


def test_the_commands_of_the_first_definitions_file_print_what_the_readme_shows(tmp_path: Path) -> None:
    shown = [pair for block in README.blocks("console") if block.text.startswith("$ ") for pair in commands(block)]
    (tmp_path / "docs").symlink_to(ROOT / "docs")

    printed = [(command, run(command, tmp_path)) for command, _ in shown]

    assert len(shown) == 4
    assert printed == [(command, stripped(output)) for command, output in shown]


def run(command: str, directory: Path) -> str:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": programs, "COLUMNS": "120", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return stripped(done.stdout)


def stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def test_every_streamseg_command_in_a_document_has_options_that_exist() -> None:
    unknown = []
    for document in ALL:
        for block in document.blocks("console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                unknown += [f"{document.name}: {each}" for each in unknown_parts(line.removeprefix("$ "))]

    assert unknown == []


def unknown_parts(line: str) -> list[str]:
    parts = shlex.split(line, comments=True)
    if parts[:1] != ["streamseg"]:
        return []
    command = cli.commands.get(parts[1])
    if command is None:
        return [parts[1]]
    known = {name for parameter in command.params for name in parameter.opts}
    return [part for part in parts[2:] if part.startswith("--") and part not in known]


@pytest.mark.parametrize("block", README.blocks("python") + SUBSCRIBING.blocks("python"), ids=str)
def test_python_in_a_document_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


def test_python_in_the_pages_for_readers_is_a_part_of_an_example() -> None:
    sources = "\n".join(path.read_text() for path in EXAMPLES)
    blocks = [block for name in ("subscribing", "redis") for block in Document(f"docs/{name}.md").blocks("python")]

    assert [str(block) for block in blocks if block.text.strip() not in sources] == []


@pytest.mark.parametrize("document", ALL, ids=lambda document: document.name)
def test_json_in_a_document_is_json(document: Document) -> None:
    for block in document.blocks("json"):
        assert json.loads(block.text)


# The command line


def options(command: click.Command) -> dict[str, tuple[str, str]]:
    """Variable and default of each option."""
    return {
        max(parameter.opts): (str(parameter.envvar), "required" if parameter.required else str(parameter.default))
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }


def test_the_table_of_settings_is_that_of_the_worker() -> None:
    table = {
        words(option)[0]: (words(variable)[0], (words(default) or [default])[0])
        for option, variable, default, _ in rows(OPERATING.section("Settings of the worker"))
        if words(option)
    }

    assert table == options(cli.commands["worker"])


def test_the_table_of_commands_has_all_of_them() -> None:
    named = {words(row[0])[0] for row in rows(OPERATING.section("Commands")) if words(row[0])}

    assert named == {f"streamseg {name}" for name in cli.commands}


# Metrics, reasons, topics, fields


class OneCustomer:
    """What a worker with one customer in one partition shows."""

    def segments(self) -> list[tuple[str, str, int, int]]:
        return [("value", "champion", 1, 100)]

    def partitions(self) -> list[tuple[int, int, int]]:
        return [(0, 0, 0)]

    def lags(self) -> list[tuple[str, int, int]]:
        return [("events", 0, 0)]


def labels_of_metrics() -> dict[str, set[str]]:
    metrics = Metrics(load_definitions((ROOT / "docs/examples/first.yaml").read_bytes()))
    metrics.observe(OneCustomer())
    own = {
        next(iter(each.describe())).name: set(each._labelnames)
        for each in vars(metrics).values()
        if isinstance(each, MetricWrapperBase)
    }
    families = [family for family in metrics.registry.collect() if family.samples]
    shown = {family.name: set(family.samples[0].labels) - {"le"} for family in families}
    return {name: (shown | own)[name.removesuffix("_total")] for name in METRIC_NAMES}


def test_the_table_of_metrics_has_all_of_them_with_their_labels() -> None:
    table = {
        words(name)[0]: set(words(labels)) for name, labels, _ in rows(OPERATING.section("Metrics")) if words(name)
    }

    assert table == labels_of_metrics()


def test_the_table_of_reasons_says_of_all_of_them_what_the_product_says() -> None:
    _, _, table = EVENTS.section("Rejected events").partition("| reason |")
    said = {words(reason)[0]: (what, mend) for reason, what, mend in rows(table) if words(reason)}

    assert said == {reason: (each.what, each.mend) for reason, each in REASONS.items()}


def test_the_table_of_topics_has_the_policies_that_the_worker_creates() -> None:
    table = {row[0].strip("`"): row[1] for row in rows(OPERATING.section("Topics"))}
    created = own_topics(Names("<prefix>"), "<group>")

    assert {topic.name: table[topic.name] for topic in created} == {
        topic.name: topic.required["cleanup.policy"] for topic in created
    }


def test_the_table_of_a_change_has_the_fields_of_a_change_in_their_order() -> None:
    events = (ROOT / "docs/examples/first-events.jsonl").read_bytes().splitlines()
    [change, *_] = replay_changes((ROOT / "docs/examples/first.yaml").read_bytes(), events, None)
    table = [words(row[0])[0] for row in rows(SUBSCRIBING.section("A change")) if words(row[0])]
    example = json.loads(SUBSCRIBING.blocks("json")[0].text)

    assert [name for name in table if not name.startswith("ce_") and name != "content-type"] == list(change)
    assert list(example) == list(change)


def test_the_page_on_changes_names_every_reason_of_a_change() -> None:
    named = [word for row in rows(SUBSCRIBING.section("A change")) if row[0] == "`reason`" for word in words(row[1])]

    assert set(named) == {reason.value for reason in Reason}


def test_the_page_on_definitions_names_every_function() -> None:
    named = {word.partition("(")[0] for word in words(DEFINITIONS.section("Features: what is known of a customer"))}

    assert set(FUNCTIONS) - named == set()


# Glossary, decisions


def test_the_glossary_has_the_noun_of_every_module_of_the_core() -> None:
    terms = {term for row in rows(Document("docs/glossary.md").text) for term in re.findall(r"\*\*([^*]+)\*\*", row[0])}
    modules = {path.stem for path in (ROOT / "streamseg" / "core").glob("*.py")} - {"__init__", "units"}

    assert {module for module in modules if not any(module.removesuffix("s") in term for term in terms)} == set()
    assert "core/units.py" in Document("docs/glossary.md").text


def test_a_decision_is_short_and_says_what_was_rejected() -> None:
    for number, path in enumerate(RECORDS, 1):
        lines = path.read_text().splitlines()
        headings = [line.removeprefix("## ") for line in lines if line.startswith("## ")]

        assert path.name.startswith(f"{number:04}-")
        assert lines[0].startswith(f"# {number}. ")
        assert len(lines) <= 60
        assert headings[:2] == ["Context", "Decision"]
        assert any(heading.startswith("Rejected") for heading in headings)
        assert headings[-1] == "Consequences"
