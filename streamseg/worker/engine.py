"""Whether the compiled core is there, and has words for the definitions."""

from __future__ import annotations

import logging
import os

from streamseg.core.definitions import Definitions
from streamseg.core.errors import InputError
from streamseg.worker.native_plan import UnsupportedError, plan
from streamseg.worker.partition import Partition

logger = logging.getLogger("streamseg.worker")

VARIABLE = "STREAMSEG_ENGINE"
"""`python` or `compiled`; else the compiled core where it is there and can apply the definitions."""


class NoEngineError(InputError):
    """The compiled core was asked for, and cannot do it."""


def kind_of_partition(definitions: Definitions) -> type[Partition]:
    """What folds the events. Raises NoEngineError if the compiled core is asked for and cannot."""
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted not in ("auto", "python", "compiled"):
        raise NoEngineError(f"{VARIABLE}={wanted}: it is auto, python or compiled")
    if wanted == "python":
        return Partition
    try:
        import streamseg_engine  # noqa: F401

        packed = plan(definitions)
    except (ImportError, UnsupportedError) as error:
        why = "it is not installed" if isinstance(error, ImportError) else f"the definitions use {error}"
        if wanted == "compiled":
            raise NoEngineError(f"{VARIABLE}=compiled, but the compiled core cannot be used: {why}") from error
        logger.info("events are applied in Python, not by the compiled core: %s", why)
        return Partition
    from streamseg.worker.compiled import CompiledPartition

    return type("CompiledPartition", (CompiledPartition,), {"plan": packed})
