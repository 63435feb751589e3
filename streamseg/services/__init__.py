"""Kafka and Redis on this machine, for the demo, the tests and developers.

`kafka` and `redis` give the address of one that runs already, when the environment names it, and start one
otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamseg.services.kafka import LocalKafka, kafka_problem
from streamseg.services.process import MissingProgramError, ServiceError
from streamseg.services.redis import LocalRedis, redis_problem, without_password

__all__ = ["LocalKafka", "LocalRedis", "MissingProgramError", "ServiceError", "kafka", "redis"]


@contextmanager
def kafka(directory: Path) -> Iterator[str]:
    """Give the address (host:port) of a Kafka that answers.

    It is the one that STREAMSEG_KAFKA names, which is neither started nor stopped, or else one that lives in
    `directory` as long as the context. Raises ServiceError when it does not answer.
    """
    if outside := os.environ.get("STREAMSEG_KAFKA"):
        _require(kafka_problem(outside), "Kafka", f"STREAMSEG_KAFKA={outside}", "host:port")
        yield outside
        return
    with LocalKafka(directory) as local:
        yield local.bootstrap


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    """Give the URL of a Redis that answers.

    It is the one that STREAMSEG_REDIS names, which is neither started nor stopped, or else one that lives in
    `directory` as long as the context. Raises ServiceError when it does not answer.
    """
    if outside := os.environ.get("STREAMSEG_REDIS"):
        setting = f"STREAMSEG_REDIS={without_password(outside)}"
        _require(redis_problem(outside), "Redis", setting, "redis://host:port/0")
        yield outside
        return
    with LocalRedis(directory) as local:
        yield local.url


def _require(problem: str | None, service: str, setting: str, form: str) -> None:
    if problem is None:
        return
    variable = setting.partition("=")[0]
    raise ServiceError(
        f"{setting}: no {service} answers there ({problem}). Start it, or correct the address ({form}), "
        f"or unset {variable} to have a {service} started on this machine."
    )
