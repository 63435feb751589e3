"""Tells whether the locks were compiled from the dependencies that pyproject.toml has now, without a network.

Each lock begins with a comment that has a digest of them; `make lock` writes it, `make check` compares it.
"""

from __future__ import annotations

import json
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
PREFIX = "# dependencies: sha256:"


def digest(parts: list[object]) -> str:
    """A digest of parts of pyproject.toml."""
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def wanted() -> dict[str, str]:
    """For each lock the digest it must have."""
    data = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    project, groups = data["project"], data["dependency-groups"]
    runtime: list[object] = [
        project["dependencies"],
        project["optional-dependencies"]["local"],
        project["optional-dependencies"]["rocksdb"],
        project["requires-python"],
    ]
    return {
        "runtime.txt": digest(runtime),
        "dev.txt": digest([*runtime, project["optional-dependencies"]["parquet"], groups["dev"]]),
        "fuzz.txt": digest([groups["fuzz"], project["requires-python"]]),
        "peers.txt": digest([groups["peers"], project["requires-python"]]),
    }


def main(write: bool) -> int:
    """Compares, or writes, the digests; returns the exit code."""
    stale = 0
    for name, expected in wanted().items():
        path = HERE / name
        lines = path.read_text().splitlines(keepends=True)
        first = lines[0].strip() if lines else ""
        if write:
            rest = lines[1:] if first.startswith(PREFIX) else lines
            path.write_text(f"{PREFIX}{expected}\n" + "".join(rest))
        elif first != PREFIX + expected:
            sys.stderr.write(f"requirements/{name} is older than pyproject.toml: run make lock\n")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
