"""A real Kafka on this machine: one node, from jars, without containers."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from streamseg.services.jars import default_jars, ensure_jars
from streamseg.services.java import find_java
from streamseg.services.process import ServiceError
from streamseg.services.service import LOOPBACK, LocalService, free_port, refusal

_ANSWER_SECONDS = 5.0
_FORMAT_SECONDS = 120.0
_QUIET = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)
_SMALL = ("-XX:+UseSerialGC", "-XX:-UsePerfData")
# A large young generation: under load a pause of some 10 ms comes a third as often as with the JVM's own choice.
_BROKER_JVM = (*_QUIET, *_SMALL, "-Xms256m", "-Xmx512m", "-Xmn320m", "-XX:+ExitOnOutOfMemoryError")
_FORMAT_JVM = (*_QUIET, *_SMALL, "-Xmx128m", "-XX:TieredStopAtLevel=1")

# The folder is relative: a path with a comma or a letter beyond Latin-1 would not survive
# a Java properties file.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{broker}
log.dirs=data

# A misspelt topic is an error here, as in production.
auto.create.topics.enable=false
# Records of years ago are replayed: they must not be old enough to be deleted.
log.retention.ms=-1

# One node has one replica.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Small and quick.
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
num.network.threads=2
num.io.threads=4
background.threads=2
# As the system has them: through Kafka's own 100 KB a large fetch goes in turns, each of which waits for a core.
socket.send.buffer.bytes=-1
socket.receive.buffer.bytes=-1
log.cleaner.dedupe.buffer.size=8388608
log.cleaner.io.buffer.size=131072
controlled.shutdown.enable=false
broker.heartbeat.interval.ms=500
# A killed broker is registered until its session ends; it cannot come back sooner.
broker.session.timeout.ms=3000

# A group is there at once, and misses a dead member soon.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""


class LocalKafka(LocalService):
    """One Kafka node (KRaft, broker and controller in one) with its data in `directory`, kept over restarts.

    `jars` is the cache folder of Kafka's jars; without it, `streamseg.services.jars.default_jars`. A first
    start fetches them, which takes a minute or so; any other takes some five seconds. `settings` are added to the
    node's properties, and win over ours.

    After a `pause` of more than three seconds it takes a moment until it leads its partitions again.
    """

    name: ClassVar[str] = "Kafka"

    def __init__(self, directory: Path, jars: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(directory)
        self.jars = jars or default_jars()
        self.settings = dict(settings or {})
        self._controller_port = free_port()

    @property
    def bootstrap(self) -> str:
        """The broker's address, host:port."""
        return f"{LOOPBACK}:{self.port}"

    def _command(self) -> list[str]:
        java = find_java()
        classes = f"{ensure_jars(self.jars)}/*"
        settings = _PROPERTIES.format(host=LOOPBACK, broker=self.port, controller=self._controller_port)
        settings += "".join(f"{name}={value}\n" for name, value in self.settings.items())  # the last of a name counts
        (self.directory / "server.properties").write_text(settings)
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(java, classes)
        return [str(java), *_BROKER_JVM, "-cp", classes, "kafka.Kafka", "server.properties"]

    def _format(self, java: Path, classes: str) -> None:
        command = [str(java), *_FORMAT_JVM, "-cp", classes, "kafka.tools.StorageTool", "format"]
        result = subprocess.run(
            [*command, f"--cluster-id={_new_cluster()}", "--config=server.properties"],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_FORMAT_SECONDS,
            check=False,
        )
        if result.returncode != 0:
            raise ServiceError(f"Kafka's data folder {self.directory / 'data'} cannot be formatted:\n{result.stdout}")

    def _problem(self) -> str | None:
        return kafka_problem(self.bootstrap)


def kafka_problem(bootstrap: str) -> str | None:
    """Say why no Kafka answers at `bootstrap` (host:port, or several with commas), None when one answers.

    It answers when it names its brokers, so a node that only listens so far does not. May be called from a
    thread that runs an event loop, which it blocks. Raises ServiceError when `bootstrap` is no such address.
    """
    refusals = [refusal(host, port) for host, port in addresses(bootstrap)]
    if all(refusals):
        return "; ".join(reason for reason in refusals if reason)
    with ThreadPoolExecutor(1) as elsewhere:
        return elsewhere.submit(asyncio.run, _protocol_problem(bootstrap)).result()


def addresses(bootstrap: str) -> list[tuple[str, int]]:
    """Split host:port[,host:port…]; an IPv6 host stands in brackets. ServiceError when it is not that."""
    pairs = []
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
            raise ServiceError(f"{bootstrap!r} is no Kafka address: write host:port, or host:port,host:port.")
        pairs.append((host.removeprefix("[").removesuffix("]"), int(port)))
    return pairs


async def _protocol_problem(bootstrap: str) -> str | None:
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(_ANSWER_SECONDS * 1000))
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await admin.start()
            cluster = await admin.describe_cluster()
    except TimeoutError:
        return f"what listens at {bootstrap} did not answer as Kafka does within {_ANSWER_SECONDS:g} s"
    except (KafkaError, OSError) as error:
        return f"what listens at {bootstrap} did not answer as Kafka does: {error}"
    finally:
        await admin.close()
    return None if cluster["brokers"] else f"Kafka at {bootstrap} has no broker yet"


def _new_cluster() -> str:
    """Give a random cluster id: a UUID in URL-safe base 64, which must not begin with a dash."""
    digits = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return "S" + digits[1:]
