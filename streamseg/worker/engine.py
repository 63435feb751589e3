"""Whether the compiled core is there, and has words for the definitions."""

from __future__ import annotations

import logging

from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError
from streamseg.worker.native_plan import UnsupportedError, plan
from streamseg.worker.partition import Partition
from streamseg.worker.settings import Engine

logger = logging.getLogger("streamseg.worker")


class NoEngineError(InputError):
    """The compiled core was asked for, and cannot do it."""


def kind_of_partition(definitions: Definitions, wanted: Engine) -> type[Partition]:
    """What folds the events. Raises NoEngineError if the compiled core is asked for and cannot."""
    if wanted is Engine.PYTHON:
        return Partition
    try:
        import streamseg_engine  # noqa: F401

        packed = plan(definitions)
    except (ImportError, UnsupportedError) as error:
        why = "it is not installed" if isinstance(error, ImportError) else f"the definitions use {error}"
        if wanted is Engine.COMPILED:
            raise NoEngineError(f"--engine compiled cannot be: {why}") from error
        logger.info("events are applied in Python, not by the compiled core: %s", why)
        return Partition
    from streamseg.worker.compiled import CompiledPartition

    return type("CompiledPartition", (CompiledPartition,), {"plan": packed})
