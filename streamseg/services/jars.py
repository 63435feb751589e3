"""Kafka's jars: fetched once by Maven, from the list in deploy/kafka/pom.xml, and kept in a cache folder."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from streamseg.services.java import find_java
from streamseg.services.process import MissingProgramError, ServiceError

_log = logging.getLogger(__name__)
_PROJECT_SIGNS = ("pyproject.toml", ".git")
_TAIL_LINES = 20


def ensure_jars(jars: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Give the folder with Kafka's jars, in the cache folder `jars`; Maven fetches them if need be.

    Each list of jars has a folder of its own, so a new version never pulls the jars away from a running
    broker. Several processes may call this at once: one fetches, the others wait. Raises
    MissingProgramError when Maven is needed and not installed, ServiceError with Maven's words when it fails.
    """
    pom = pom_file().read_bytes()
    folder = jars.resolve() / hashlib.sha256(pom).hexdigest()[:12]
    if folder.is_dir():
        return folder
    maven = _find_maven(jars, environment)
    jars.mkdir(parents=True, exist_ok=True)
    with _only_one(jars / ".lock"):
        if not folder.is_dir():
            _fetch(maven, pom, folder, environment)
    return folder


def default_jars() -> Path:
    """Give the cache folder: `.streamseg/kafka` of the project around the current folder, else the user's."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if any((folder / sign).exists() for sign in _PROJECT_SIGNS):
            return folder / ".streamseg" / "kafka"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "streamseg" / "kafka"


def pom_file() -> Path:
    """Give the list of jars: packed beside this module in a wheel, deploy/kafka/pom.xml in a checkout.

    Raises ServiceError when neither is there.
    """
    here = Path(__file__).resolve()
    for pom in (here.with_name("kafka-pom.xml"), here.parents[2] / "deploy" / "kafka" / "pom.xml"):
        if pom.is_file():
            return pom
    raise ServiceError(
        f"kafka-pom.xml is missing beside {here}: this installation is incomplete. Install streamseg again."
    )


def _find_maven(jars: Path, environment: Mapping[str, str]) -> str:
    maven = shutil.which("mvn", path=environment.get("PATH", os.defpath))
    if maven is None:
        raise MissingProgramError(
            f"Maven is needed once, to fetch Kafka's jars into {jars}, and there is no mvn on the PATH. "
            "Debian/Ubuntu: sudo apt-get install maven. macOS: brew install maven. "
            "Or set STREAMSEG_KAFKA=host:port to use a Kafka that runs already."
        )
    return maven


def _fetch(maven: str, pom: bytes, folder: Path, environment: Mapping[str, str]) -> None:
    """Fetch into a folder beside `folder` and rename it: `folder` is there only when it is whole."""
    _log.info("Maven fetches Kafka's jars into %s: about 40 MB, once.", folder)
    (folder.parent / ".gitignore").write_text("*\n")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as name:
        unfinished = Path(name, folder.name)
        unfinished.mkdir()
        (unfinished / "pom.xml").write_bytes(pom)
        _run_maven(maven, unfinished, environment)
        unfinished.rename(folder)


def _run_maven(maven: str, folder: Path, environment: Mapping[str, str]) -> None:
    pom = folder / "pom.xml"
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    result = subprocess.run(
        [maven, "-q", "-B", "-f", str(pom), *goal],
        env=_with_java(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        said = "\n".join(result.stdout.splitlines()[-_TAIL_LINES:])
        raise ServiceError(
            f"Maven could not fetch Kafka's jars (exit code {result.returncode}). It needs its repository: "
            "see to the network, or to a mirror or proxy in Maven's settings.xml, and try again. "
            f"Maven's last words:\n{said}"
        )


def _with_java(environment: Mapping[str, str]) -> dict[str, str]:
    """Lend Maven, which any Java runs, the one that will run Kafka when the system has none."""
    if "JAVA_HOME" in environment or shutil.which("java", path=environment.get("PATH", os.defpath)):
        return dict(environment)
    return {**environment, "JAVA_HOME": str(find_java(environment).parent.parent)}


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
