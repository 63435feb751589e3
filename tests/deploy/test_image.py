import json
import re

import pytest

from tests.deploy.deployment import PROJECT, docker_instructions, project_version

INSTRUCTIONS = docker_instructions()
LAST_STAGE = INSTRUCTIONS[max(at for at, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM") :]
PIP_INSTALLS = [
    command.strip()
    for name, arguments in INSTRUCTIONS
    if name == "RUN"
    for command in arguments.split("&&")
    if re.match(r"pip (install|wheel)\b", command.strip())
]
COPIED_FROM_THE_TREE = [
    source
    for name, arguments in INSTRUCTIONS
    if name == "COPY" and "--from=" not in arguments
    for source in arguments.split()[:-1]
]


def in_last_stage(instruction: str) -> list[str]:
    return [arguments for name, arguments in LAST_STAGE if name == instruction]


def test_the_base_image_is_pinned_to_a_full_version() -> None:
    stages: set[str] = set()
    for name, arguments in INSTRUCTIONS:
        if name == "FROM":
            image, _, stage = arguments.partition(" AS ")
            assert image in stages or re.fullmatch(r"python:3\.11\.\d+-slim-\w+", image), image
            stages.add(stage)


@pytest.mark.parametrize("command", PIP_INSTALLS)
def test_pip_installs_nothing_that_is_not_checked(command: str) -> None:
    options = set(command.split())

    assert (
        "--require-hashes" in options
        or {"--no-deps", "--no-index"} <= options
        or {
            "--no-deps",
            "--no-build-isolation",
        }
        <= options
    ), command


def test_dependencies_come_from_the_lock_of_the_runtime() -> None:
    assert any("--require-hashes" in command and "/tmp/runtime.txt" in command for command in PIP_INSTALLS)
    assert ("COPY", "requirements/runtime.txt /tmp/runtime.txt") in INSTRUCTIONS


def test_the_container_does_not_run_as_root() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", in_last_stage("USER")[-1])


def test_the_image_says_whether_the_worker_is_ready() -> None:
    (check,) = in_last_stage("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])

    assert "/readyz" in command[-1]
    compile(command[-1], "HEALTHCHECK", "exec")


def test_the_worker_gets_the_signals_itself() -> None:
    (entry_point,) = in_last_stage("ENTRYPOINT")
    (command,) = in_last_stage("CMD")

    assert json.loads(entry_point) + json.loads(command) == ["streamseg", "worker"]


def test_the_label_carries_the_version_of_the_project() -> None:
    (labels,) = in_last_stage("LABEL")

    assert f'org.opencontainers.image.version="{project_version()}"' in labels


@pytest.mark.parametrize("source", COPIED_FROM_THE_TREE)
def test_what_the_image_copies_is_in_the_tree_and_reaches_the_engine(source: str) -> None:
    allowed = {
        line.removeprefix("!")
        for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }

    assert (PROJECT / source).exists()
    assert source.partition("/")[0] in allowed, f".dockerignore keeps {source} from the engine"


def test_the_engine_gets_nothing_it_does_not_need() -> None:
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert next(line for line in lines if not line.startswith("#")) == "*"
