"""What peers are made of: Java built by Maven, and Python packages in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
POM = Path(__file__).parent / "peers" / "pom.xml"
LOCK = ROOT / "requirements" / "peers.txt"
ENVIRONMENT = ROOT / ".streamseg" / "peers-venv"


@cache
def java_classes() -> Path:
    """Builds the Java peers; returns the folder of their modules."""
    _run(["mvn", "-q", "-B", "-f", str(POM), "package"])
    return POM.parent


def classes(module: str) -> str:
    """The class path of a Java peer."""
    target = java_classes() / module / "target"
    return os.pathsep.join((str(target / "classes"), str(target / "dependency" / "*")))


@cache
def peers_python() -> Path:
    """The Python that has the peers' packages; installs what the lock says and is not there."""
    python, uv = ENVIRONMENT / "bin" / "python", str(Path(sys.executable).with_name("uv"))
    if not python.exists():
        _run([uv, "venv", "-q", "--python", sys.executable, str(ENVIRONMENT)])
    _run([uv, "pip", "sync", "-q", "--require-hashes", "--python", str(python), str(LOCK)])
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-3_000:]}")
