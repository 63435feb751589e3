"""Kafka, Redis and a worker for the time of a demo, in a folder that goes with them."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from redis import Redis

from streamseg import services
from streamseg.core.errors import StreamsegError
from streamseg.demo.source import PARTITIONS
from streamseg.services.process import Process
from streamseg.services.service import LOOPBACK, free_port
from streamseg.worker.settings import Names
from streamseg.worker.topics import own_topics

DEFINITIONS = Path(__file__).resolve().parents[1] / "definitions" / "starter.yaml"

_HOME = Path(".streamseg") / "demo"
_READY_SECONDS = 90.0
_MANY_DEATHS = 5
_POLL_SECONDS = 0.05


class WorkerFellError(StreamsegError):
    """The worker ends again and again. Exit code 70: a fault of ours."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the parts of a demo are."""

    folder: Path
    kafka: str
    redis: str
    http: str
    """The worker's host:port."""
    names: Names
    events: str
    """The topic of the events."""

    @property
    def group(self) -> str:
        """The worker's consumer group; on services that are not ours it meets no other."""
        return self.names.prefix


def child(folder: Path, name: str, module: str, *arguments: str) -> Process:
    """Start a Python module as a process that ends with this one; its log is `name`.log in the folder."""
    command = [sys.executable, "-m", module, *arguments]
    return Process(f"the {name}", command, folder / f"{name}.log", environment=_environment())


@contextmanager
def demo_folder() -> Iterator[Path]:
    """Make a folder below the current one, and leave nothing of it behind."""
    _HOME.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=_HOME)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another demo may be running, or something else be in there
            folder.parent.rmdir()
            folder.parent.parent.rmdir()


@contextmanager
def prepared(folder: Path, kafka: str, redis: str) -> Iterator[Stage]:
    """Create the topic of the events. On services that are not ours, what was made is removed at the end."""
    outside = {name for name in ("STREAMSEG_KAFKA", "STREAMSEG_REDIS") if os.environ.get(name)}
    names = Names(f"streamseg-demo-{secrets.token_hex(3)}" if outside else "streamseg")
    stage = Stage(folder, kafka, redis, f"{LOOPBACK}:{free_port()}", names, f"{names.prefix}.events")
    asyncio.run(_create_events(stage))
    try:
        yield stage
    finally:
        if "STREAMSEG_KAFKA" in outside:
            asyncio.run(_delete_topics(stage))
        if "STREAMSEG_REDIS" in outside:
            _delete_keys(stage)


async def _create_events(stage: Stage) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.kafka)
    await admin.start()
    try:
        # Whatever the broker's own setting: events of years ago are to stay.
        keep = {"retention.ms": "-1"}
        topic = NewTopic(stage.events, num_partitions=PARTITIONS, replication_factor=1, topic_configs=keep)
        response = await admin.create_topics([topic])
        for name, code, *message in response.topic_errors:
            if code:
                raise services.ServiceError(f"topic {name} cannot be created: {' '.join(map(str, message)) or code}")
        # A broker learns of it a moment after the controller.
        while (await admin.describe_topics([stage.events]))[0]["error_code"]:
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await admin.close()


async def _delete_topics(stage: Stage) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=stage.kafka)
    await admin.start()
    try:
        await admin.delete_topics([stage.events, *(topic.name for topic in own_topics(stage.names, stage.group))])
    finally:
        await admin.close()


def _delete_keys(stage: Stage) -> None:
    with Redis.from_url(stage.redis) as redis:
        keys = list(redis.scan_iter(f"{stage.names.redis}*", count=1_000))
        for start in range(0, len(keys), 1_000):
            redis.unlink(*keys[start : start + 1_000])


class Worker:
    """The real worker as a process: started again whenever it has died."""

    def __init__(self, stage: Stage) -> None:
        self.restarts = 0
        self._start = partial(child, stage.folder, "worker", "streamseg", *_arguments(stage))
        self._http = stage.http
        self._process = self._start()

    def wait_until_ready(self) -> None:
        """Wait until it has its partitions. Raises ServiceError with the end of its log."""
        self._process.wait_until_ready(partial(_not_ready, self._http), _READY_SECONDS)

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()

    def stop(self) -> None:
        """End it at once: what it would still write is thrown away with the rest."""
        self._process.kill()

    def keep_running(self) -> bool:
        """Start it again if it has died, and tell so. Raises WorkerFellError when that happens too often."""
        if self._process.running:
            return False
        if self.restarts == _MANY_DEATHS:
            raise WorkerFellError(f"the worker ended {_MANY_DEATHS + 1} times:\n{self._process.tail()}")
        self.restarts += 1
        self._process = self._start()
        return True

    def tail(self) -> str:
        """The last lines of its log."""
        return self._process.tail()


def _arguments(stage: Stage) -> list[str]:
    return [
        *("worker", "--clock", "stream", "--definitions", str(DEFINITIONS), "--kafka", stage.kafka),
        *("--redis", stage.redis, "--events", stage.events, "--group", stage.group, "--prefix", stage.names.prefix),
        *("--http", stage.http, "--data", str(stage.folder / "data")),
    ]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("STREAMSEG_")}


def _not_ready(http: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=5):
            return None
    except urllib.error.HTTPError as error:
        return error.read().decode().strip()
    except OSError as error:
        return f"nothing listens at {http} yet ({error})"
